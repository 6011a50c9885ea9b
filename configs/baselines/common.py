"""What the configs of the compared systems share; the rest is as in configs/common.py."""

from ml_collections import ConfigDict

from configs import common

IMAGENET = {"name": "imagenet2012", "crop": "random_resized"}
FACES = {"folder": "data/ffhq", "label_key": "", "train": "sorted[:60000]", "validation": "sorted[60000:]"}  # VQGAN


def stage1(encoder, decoder, quantizer, dataset, **more):
    """A tokenizer of 256x256 images with the perceptual and the adversarial term, in float32 as the originals.

    encoder, decoder: what differs from the defaults of the module; more: keys of config.tokenizer.
    """
    config = common.judged(common.stage1((2,), 256))
    config.dtype, config.keep = "float32", 2
    config.dataset.update(dataset)
    config.tokenizer = ConfigDict({"encoder": encoder, "decoder": decoder, "quantizer": quantizer, **more})
    return config


def stage2(tokenizer, generator, dataset, classes=0, soft=0.0):
    """A generator on the tokenizer of `workdirs/<tokenizer>`, 256x256 images."""
    config = common.stage2(f"workdirs/{tokenizer}", 256)
    config.dataset.update(dataset)
    config.generator = ConfigDict({**generator, "classes": classes, "remat": True})
    config.loss, config.sample = ConfigDict(), ConfigDict()
    if soft:
        config.tokenizer.soft = soft
    return config


def optimizer(config, **keys):
    """Sets config.optimizer to `keys` alone: the constructor's defaults for the others, and the averages as given."""
    config.optimizer = ConfigDict({"warmup": "0 steps", **keys})
    return config
