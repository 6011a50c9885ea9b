"""Data sets of ours by name. Each module here is one, which tfds writes at its first use.

To add one, write a module NAME, such as `my_shapes`, with a subclass of
`tfds.core.GeneratorBasedBuilder` of that name in capitals, `MyShapes`; a config then says
`dataset.name = "NAME"`. To copy one, take `digits`. The class has

    VERSION                   tfds.core.Version("1.0.0"). The examples are written once for each
                              version, into ~/tensorflow_datasets/NAME/VERSION (TFDS_DATA_DIR,
                              config.dataset.data_dir), and read from there ever after: after a
                              change of what is yielded, raise it, or remove that folder.
    _info                     returns tfds.core.DatasetInfo with the features "image", a
                              tfds.features.Image with encoding_format="png", and maybe "label", a
                              tfds.features.ClassLabel.
    _split_generators         returns {"train": examples, "validation": examples}.
    _generate_examples        yields (key, {"image", "label"}); keys differ.

An image is yielded as encoded bytes, `io.BytesIO(cv2.imencode(".png", image)[1].tobytes())` of a
uint8 [H,W,3] whose channels are blue, green, red: to encode an array tfds would need TensorFlow.

No builder is needed for images that lie in memory as arrays: save them as PNG files (for example by
`evqgan.core.pictures.save_png`, which takes uint8 [H,W,3] in red, green, blue) into
FOLDER/train/CLASS/ and FOLDER/validation/CLASS/, and give FOLDER as config.dataset.folder. Where
there are very many, `python -m evqgan.data.from_folder FOLDER DEST` makes few large files of them.
"""
