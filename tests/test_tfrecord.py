"""TFRecord files become data sets that the pipeline reads; what is damaged is named.

The files are written by tensorboardX, whose writer of records is not ours.
"""

import gzip
import io
import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image
from tensorboardX.record_writer import RecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from evqgan.core.errors import InputError
from evqgan.data import (
    from_folder,
    from_tfrecord,
    named,
    pipeline,
    survey,
    tfrecords,
    transforms,
)
from evqgan.data.dataset import Dataset

SIDE = 12
LABEL = "image/class/label"


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter(str(path))
    for record in data:
        writer.write(record)
    writer.close()


def pixels(i):
    return np.random.default_rng(i).integers(0, 256, (SIDE, SIDE + 2, 3), np.uint8)


def example(i, label=None, image=None, **more):
    found = tf_example_pb2.Example()
    features = found.features.feature
    png = cv2.imencode(".png", pixels(i)[..., ::-1])[1].tobytes() if image is None else image
    features["image/encoded"].bytes_list.value.append(png)
    if label is not None:
        features[LABEL].int64_list.value.append(label)
    return found.SerializeToString()


def convert(capsys, *arguments):
    """(exit code, lines of output, lines of errors)"""
    code = from_tfrecord.main([str(word) for word in arguments])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err.splitlines()


def refused(capsys, message, *arguments):
    code, _, errors = convert(capsys, *arguments)
    assert code == 2 and len(errors) == 1 and errors[0].startswith("error: "), errors
    assert message in errors[0], errors[0]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_records_are_those_that_were_written(tmp_path):
    data = [b"", b"a", bytes(range(256)) * 300]
    write(tmp_path / "x.tfrecord", data)
    assert list(tfrecords.records(tmp_path / "x.tfrecord", pytest.fail)) == data
    packed = tmp_path / "packed.tfrecord"
    packed.write_bytes(gzip.compress((tmp_path / "x.tfrecord").read_bytes()))
    assert list(tfrecords.records(packed, pytest.fail)) == data
    assert (
        tfrecords.checksum(b"123456789")
        == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32
    )


def test_every_damage_is_named_and_whole_records_are_kept(tmp_path):
    """Each byte of a file is changed in turn, and the file is cut at each byte."""
    path, data = tmp_path / "x.tfrecord", [b"one", b"two", b"three"]
    write(path, data)
    whole, ends = path.read_bytes(), [19, 38, 59]
    assert len(whole) == ends[-1]
    for at in range(len(whole)):
        record = next(i for i, end in enumerate(ends) if at < end)
        start, told = [0, *ends][record], []
        path.write_bytes(whole)
        flip(path, at)
        found = list(tfrecords.records(path, told.append))
        rest = [] if at - start < 12 else data[record + 1 :]  # behind a damaged length nothing
        assert found == data[:record] + rest and len(told) == 1
        assert f"x.tfrecord, record {record} (byte {start})" in told[0]
        path.write_bytes(whole[:at])
        told.clear()
        assert list(tfrecords.records(path, told.append)) == data[:record]
        assert [f"record {record} " in text for text in told] == [True] * (at != start)


@pytest.fixture
def source(tmp_path):
    """Nine images of three classes, numbered from 1; the last two held out."""
    folder = tmp_path / "source"
    write(folder / "train-00000-of-00002", [example(i, 1 + i % 3) for i in range(4)])
    write(folder / "train-00001-of-00002", [example(i, 1 + i % 3) for i in range(4, 7)])
    write(folder / "validation-00000-of-00001", [example(i, 1 + i % 3) for i in range(7, 9)])
    return folder


def test_examples_become_a_data_set_that_the_pipeline_reads(source, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n")
    asked = ("--name=insects", f"--label_key={LABEL}", f"--class_names={names}")
    code, lines, _ = convert(capsys, source, tmp_path / "data", *asked)
    assert code == 0 and "9 images (7 of train, 2 of validation), 3 classes" in lines
    assert "--config.dataset.name=insects" in lines[-1]
    dataset = Dataset(name="insects", data_dir=str(tmp_path / "data"), size=8)
    for split, numbers in (("train", range(7)), ("validation", range(7, 9))):
        found = pipeline.open_split(dataset, split)
        assert found.class_names == ("ant", "bee", "cat") and len(found) == len(numbers)
        for i, number in enumerate(numbers):
            assert (transforms.decode(found[i]["image"]) == pixels(number)).all()
            assert found[i]["label"] == number % 3
    assert "7 training images in 3 classes" in pipeline.summary(
        dataset, pipeline.open_split(dataset, "train")
    )
    code, lines, _ = convert(capsys, source, tmp_path / "data", *asked)
    assert code == 0 and "is there already" in lines[0]


def test_files_of_stylegan_are_pixels_without_classes(tmp_path, capsys):
    def record(i):
        found, image = tf_example_pb2.Example(), pixels(i).transpose(2, 0, 1)
        found.features.feature["shape"].int64_list.value.extend(image.shape)
        found.features.feature["data"].bytes_list.value.append(image.tobytes())
        return found.SerializeToString()

    write(tmp_path / "faces-r04.tfrecords", [record(i) for i in range(3)])
    code, lines, _ = convert(
        capsys, tmp_path / "faces-r04.tfrecords", tmp_path / "data", "--name=faces"
    )
    assert code == 0 and 'train="train[:90%]"' in lines[-1]
    found = named.Named("faces", "train", str(tmp_path / "data"))
    assert found.class_names == ()
    assert all((transforms.decode(found[i]["image"]) == pixels(i)).all() for i in range(3))


def test_damaged_examples_stop_it_or_are_left_out(source, tmp_path, capsys):
    flip(source / "train-00001-of-00002", 100)
    asked = (source, tmp_path / "data", "--name=insects", f"--label_key={LABEL}")
    refused(capsys, "train-00001-of-00002, record 0 (byte 0): its data are not those", *asked)
    assert not (tmp_path / "data").exists()
    code, lines, _ = convert(capsys, *asked, "--skip_damaged")
    assert code == 0 and "left out 1 damaged record" in lines
    assert len(named.Named("insects", "train", str(tmp_path / "data"))) == 6


def test_a_record_keeps_its_number_behind_one_that_is_left_out(source, tmp_path, capsys):
    file = source / "train-00000-of-00002"
    write(file, [example(0, 1), example(1, 1), example(2)])
    flip(file, 100)
    asked = (source, tmp_path / "data", "--name=insects", f"--label_key={LABEL}")
    refused(capsys, f"{file}, record 2: there is no label", *asked, "--skip_damaged")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{source}", "{data}"], "give the folder of one version"),
        (["{source}"], "expected SRC and DEST"),
        (["{source}/none", "{data}", "--name=x"], "there is no "),
        (["{source}", "{data}", "--name=A b"], "expected small letters"),
        (["{source}", "{data}", "--name=mnist"], "is a data set of tfds"),
        (["{source}", "{data}", "--name=x", "--image_key=picture"], "there is no image 'picture'"),
        (["{source}", "{data}", "--name=x", "--label_key=lable"], "there is no label 'lable'"),
        (["{source}", "{data}", "--name=x", "--label_key=image/encoded"], "one whole number"),
        (["{source}", "{data}", "--name=x", f"--label_key={LABEL}", "--first_label=2"], "label 1"),
        (["{source}", "{data}", "--name=x", "--first_label=1"], "--first_label is of no use with"),
        (["{source}", "{data}", "--name=x", "--class_names={names}"], "give --label_key=KEY, too"),
        (["{source}", "{data}", "--name=x", "--train=nothing*"], "no file in "),
        (["{source}", "{data}", "--name=x", "--train=*", "--validation=v*"], "of both splits"),
        (["{names}", "{data}", "--name=x"], "this is no TFRecord file"),
        (
            ["{source}", "{data}", "--name=x", f"--label_key={LABEL}", "--class_names={names}"],
            "has 2 different names, and the labels need 3",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    source, tmp_path, capsys, arguments, message
):
    (tmp_path / "names").write_text("grasshopper\nbee\n")
    places = {"source": source, "data": tmp_path / "data", "names": tmp_path / "names"}
    refused(capsys, message, *(word.format(**places) for word in arguments))
    assert not (tmp_path / "data").exists()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The digits as tfds would have written them by default: tfrecord, here in two shards."""
    place = tmp_path_factory.mktemp("digits")
    builder = named.prepare("digits", str(place / "array_record"))
    folder = place / "tfrecord" / "digits" / "1.0.0"
    folder.mkdir(parents=True)
    info = json.loads((pathlib.Path(builder.data_path) / named.INFO).read_text())
    info["fileFormat"] = "tfrecord"
    for split in info["splits"]:
        data = []
        for path in sorted(pathlib.Path(builder.data_path).glob(f"*{split['name']}.array*")):
            reader = array_record_module.ArrayRecordReader(str(path))
            data += reader.read_all()
            reader.close()
        cut = len(data) // 3
        for i, part in enumerate((data[:cut], data[cut:])):
            write(folder / f"digits-{split['name']}.tfrecord-{i:05d}-of-00002", part)
        split["shardLengths"] = [str(cut), str(len(data) - cut)]
    for path in pathlib.Path(builder.data_path).iterdir():
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, folder)
    (folder / named.INFO).write_text(json.dumps(info))
    return place / "array_record", folder


def test_a_data_set_of_tfds_keeps_every_record(digits, tmp_path, capsys):
    original, folder = digits
    with pytest.raises(InputError, match="is written as tfrecord, expected array_record.*from_tf"):
        named.Named("digits", "train", str(folder.parents[1]))
    code, lines, errors = convert(capsys, folder, tmp_path)
    assert code == 0, errors
    assert "--config.dataset.name=digits --config.dataset.data_dir=" in lines[-1]
    for split in ("train", "validation", "train[:50%]"):
        ours, theirs = (named.Named("digits", split, str(x)) for x in (tmp_path, original))
        assert len(ours) == len(theirs) and ours.class_names == theirs.class_names
        assert all(ours[i] == theirs[i] for i in range(len(ours)))
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]
    assert not [path for path in (tmp_path / "digits" / "1.0.0").iterdir() if path.name[0] == "."]
    code, lines, _ = convert(capsys, folder, tmp_path)
    assert code == 0 and "is there already" in lines[0]


def test_a_conversion_that_was_stopped_goes_on(digits, tmp_path, capsys, monkeypatch):
    _, folder = digits
    copied, records = [], tfrecords.records

    def stops(path, damaged):
        copied.append(path.name)
        if len(copied) == 3:
            raise KeyboardInterrupt
        yield from records(path, damaged)

    monkeypatch.setattr("evqgan.data.tfds_tfrecord.records", stops)
    assert convert(capsys, folder, tmp_path)[0] == 130
    assert not (tmp_path / "digits" / "1.0.0").exists()
    code, lines, _ = convert(capsys, folder, tmp_path)
    assert code == 0 and "2 of 4 shards are there from before" in lines
    assert copied[3:] == [*copied[2:3], "digits-validation.tfrecord-00001-of-00002"]
    assert len(named.Named("digits", "train", str(tmp_path))) == 1433


@pytest.mark.parametrize("change", ["byte", "cut", "missing", "record", "length"])
def test_a_damaged_data_set_of_tfds_is_named(digits, tmp_path, capsys, change):
    folder = tmp_path / "digits" / "1.0.0"
    shutil.copytree(digits[1], folder)
    shard = folder / "digits-train.tfrecord-00001-of-00002"
    message = {"byte": f"{shard}, record 0 (byte 0)", "cut": "cut short", "missing": "is missing"}
    message["length"] = "this is no TFRecord file, and what follows it cannot be read"
    if change == "byte":
        flip(shard, 200)
    elif change == "length":  # behind which nothing can be read
        flip(shard, 2)
    elif change == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif change == "missing":
        shard.unlink()
    else:  # a file that ends well, and too early
        data = list(tfrecords.records(shard, pytest.fail))
        write(shard, data[:-2])
    refused(capsys, message.get(change, "has 954 whole records"), folder, tmp_path / "data")
    assert not (tmp_path / "data" / "digits" / "1.0.0").exists()
    if change == "missing":
        return
    code, lines, _ = convert(capsys, folder, tmp_path / "data", "--skip_damaged")
    lost = {"byte": 1, "cut": 1, "record": 2, "length": 956}[change]
    assert code == 0
    assert len(named.Named("digits", "train", str(tmp_path / "data"))) == 1433 - lost
    said = [line for line in lines if line.startswith("left out: ")]
    assert len(said) == (2 if change == "length" else 1)  # and of the shard how many it has
    assert f"left out {lost:,} damaged record{'s' if lost > 1 else ''}" in lines


def test_a_folder_becomes_a_data_set_with_its_splits_and_classes(tmp_path, capsys):
    for i in range(12):
        place = tmp_path / "pictures" / ("validation" if i > 8 else "train") / f"class_{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(i)).save(place / f"{i:02d}.png")
    broken = tmp_path / "pictures" / "train" / "class_0" / "00.png"
    broken.write_bytes(broken.read_bytes()[:200])
    data = str(tmp_path / "data")
    assert from_folder.main([str(tmp_path / "pictures"), data, "--name=pictures"]) == 0
    said = capsys.readouterr().out
    assert "left out: train/class_0/00.png" in said and "--config.dataset.name=pictures" in said
    train, held = (named.Named("pictures", split, data) for split in ("train", "validation"))
    assert (len(train), len(held)) == (8, 3) and train.class_names == tuple(
        f"class_{i}" for i in range(3)
    )
    found = sorted(
        (transforms.decode(x["image"]).tobytes(), x["label"])
        for x in map(train.__getitem__, range(8))
    )
    assert found == sorted((pixels(i).tobytes(), i % 3) for i in range(1, 9))
    assert [x.name for x in (tmp_path / "data").iterdir()] == ["pictures"]


def test_however_many_files_are_broken_the_rest_becomes_a_data_set(tmp_path, capsys):
    pictures, data = tmp_path / "pictures", str(tmp_path / "data")
    pictures.mkdir()
    for i in range(12):
        Image.fromarray(pixels(i)).save(pictures / f"{i:02d}.png")
    for i in (3, 4):
        (pictures / f"{i:02d}.png").write_bytes(b"none")
    (pictures / "05.png").unlink()
    (pictures / "05.png").symlink_to("gone")
    words = [str(pictures), data, "--name=pictures"]
    assert from_folder.main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert all(f"left out: 0{i}.png: " in said for i in (3, 4, 5))
    assert sum(len(named.Named("pictures", x, data)) for x in ("train", "validation")) == 9
    for path in pictures.iterdir():
        path.unlink()
        path.write_bytes(b"none")
    assert from_folder.main([*words[:2], "--name=none"]) == 2
    assert "all 12 images are broken" in capsys.readouterr().err


def test_a_third_split_of_a_folder_is_left_out_with_a_word(tmp_path, capsys):
    for i, place in enumerate(("train/a", "train/a", "val/a", "Test/a", "Test/a")):
        (tmp_path / "pictures" / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(i)).save(tmp_path / "pictures" / place / f"{i}.png")
    data = str(tmp_path / "data")
    assert from_folder.main([str(tmp_path / "pictures"), data, "--name=pictures"]) == 0
    assert "left out: Test/ with 2 images: train and validation" in capsys.readouterr().out
    splits = ("train", "validation")
    assert [len(named.Named("pictures", split, data)) for split in splits] == [2, 1]


def test_a_data_set_of_other_files_is_not_taken_for_this_one(source, tmp_path, capsys):
    pictures, data = tmp_path / "pictures", tmp_path / "data"
    pictures.mkdir()
    for i in range(4):
        Image.fromarray(pixels(i)).save(pictures / f"{i}.png")
    words = [str(pictures), str(data), "--name=set"]
    assert [from_folder.main(words) for _ in range(2)] == [0, 0]
    assert "set/1.0.0 is there already, nothing is done" in capsys.readouterr().out
    pictures.rename(tmp_path / "moved")  # the same pictures elsewhere
    assert from_folder.main([str(tmp_path / "moved"), *words[1:]]) == 0
    Image.fromarray(pixels(9)).save(tmp_path / "moved" / "9.png")
    refused = "is there, and was made of other files, or with other flags: give another --name"
    assert from_folder.main([str(tmp_path / "moved"), *words[1:]]) == 2
    assert refused in capsys.readouterr().err
    assert convert(capsys, source, data, "--name=set")[0] == 2
    assert convert(capsys, source, data, "--name=insects", f"--label_key={LABEL}")[0] == 0
    code, _, error = convert(capsys, source, data, "--name=insects")
    assert code == 2 and refused in error[0]


def test_a_damaged_description_of_a_data_set_is_one_line(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for i in range(2):
        Image.fromarray(pixels(i)).save(tmp_path / "pictures" / f"{i}.png")
    words = [str(tmp_path / "pictures"), str(tmp_path / "data"), "--name=set"]
    assert from_folder.main(words) == 0
    info = tmp_path / "data" / "set" / "1.0.0" / named.INFO
    for text in ("{", "{}"):
        info.write_text(text)
        capsys.readouterr()
        assert from_folder.main(words) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_folder_of_images_gets_no_data_set_inside(tmp_path, capsys):
    pictures = tmp_path / "pictures"
    (pictures / "cat").mkdir(parents=True)
    Image.fromarray(pixels(0)).save(pictures / "cat" / "0.png")
    for dest in (pictures, pictures / "data"):
        assert from_folder.main([str(pictures), str(dest), "--name=cat"]) == 2
        assert "is inside of" in capsys.readouterr().err
    assert [x.name for x in pictures.rglob("*")] == ["cat", "0.png"]


def test_sorted_keeps_the_order_of_the_names(tmp_path, capsys):
    (tmp_path / "faces").mkdir()
    for i in range(5):
        Image.fromarray(pixels(i)).save(tmp_path / "faces" / f"{i:05d}.png")
    data = str(tmp_path / "data")
    assert from_folder.main([str(tmp_path / "faces"), data, "--name=faces", "--sorted"]) == 0
    source = named.Named("faces", "train[1:3]", data)
    assert [(transforms.decode(source[i]["image"]) == pixels(1 + i)).all() for i in (0, 1)] == [
        True
    ] * 2


def odd_pictures(place):
    """A large picture of each kind that is decoded with care, and a small one; {name: bytes}."""
    place.mkdir()
    smooth = cv2.resize(pixels(0), (90, 60), interpolation=cv2.INTER_CUBIC)
    large, exif = Image.fromarray(smooth), Image.Exif()
    exif[0x0112] = 6
    large.save(place / "plain.jpg", quality=95)
    large.save(place / "turned.jpg", quality=95, exif=exif)
    large.convert("CMYK").save(place / "cmyk.jpg", quality=95)
    large.convert("L").save(place / "grey.jpg", quality=95)
    clear = Image.merge("RGBA", (*large.split(), large.convert("L")))
    clear.save(place / "clear.png")
    large.save(place / "other.webp")
    Image.fromarray(pixels(1)).save(place / "small.png")
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_large_images_are_scaled_down_as_training_would_and_small_ones_copied(tmp_path, capsys):
    before = odd_pictures(tmp_path / "pictures")
    data = str(tmp_path / "data")
    words = [str(tmp_path / "pictures"), data, "--name=set", "--sorted"]
    assert from_folder.main([*words, "--size=30"]) == 0, capsys.readouterr().err
    source = named.Named("set", "train", data)
    for i, name in enumerate(sorted(before)):
        made = source[i]["image"]
        if name == "small.png":
            assert made == before[name]
            continue
        expected = transforms.cover(transforms.decode(before[name]), (30, 30))
        found = transforms.decode(made)
        assert found.shape == ((45, 30, 3) if name == "turned.jpg" else (30, 45, 3)), name
        error = np.abs(found.astype(int) - expected).mean()
        assert error < 4 if name.endswith("jpg") else error == 0, (name, error)
        with Image.open(io.BytesIO(made)) as image:
            assert image.format == ("JPEG" if name.endswith("jpg") else "PNG")
    assert from_folder.main([*words, "--size=20"]) == 2
    assert "or with other flags: give another --name" in capsys.readouterr().err


def test_a_large_image_that_turns_out_to_be_broken_is_left_out(tmp_path, capsys, monkeypatch):
    """As of many images the survey does not decode all."""
    monkeypatch.setattr(survey, "DECODED", 1)
    odd_pictures(tmp_path / "pictures")
    data = bytearray((tmp_path / "pictures" / "clear.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "pictures" / "clear.png").write_bytes(data)
    words = [str(tmp_path / "pictures"), str(tmp_path / "data"), "--name=set", "--sorted"]
    assert from_folder.main([*words, "--size=30"]) == 0
    said = capsys.readouterr().out
    assert "left out: clear.png: " in said and "left out 1 damaged record" in said
    assert len(named.Named("set", "train", str(tmp_path / "data"))) == 6
