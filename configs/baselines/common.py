"""What the configs of the compared systems share; the rest is as in configs/common.py."""

from typing import Any

from ml_collections import ConfigDict

from configs import common

# RQ-VAE and enhancing-transformers scale the shorter side to the size and mirror one image in two;
# taming-transformers mirrors none. Of MaskGIT's images only the function's name is published.
IMAGENET = {"name": "imagenet2012", "crop": "resize"}
IMAGENET_VQGAN = {**IMAGENET, "flip": False}
IMAGENET_MASKGIT = {**IMAGENET, "crop": "random_resized"}


def stage1(encoder: dict, decoder: dict, quantizer: dict, dataset: dict, **more: Any) -> ConfigDict:
    """Return the config of a tokenizer of 256x256 images, in float32 as the originals.

    It has the perceptual and the adversarial term.
    encoder, decoder: what differs from the defaults of the module.
    more: keys of config.tokenizer.
    """
    config = common.with_critic(common.stage1((2,), 256))
    config.dtype, config.keep = "float32", 2
    config.dataset.update(dataset)
    config.tokenizer = ConfigDict(
        {"encoder": encoder, "decoder": decoder, "quantizer": quantizer, **more}
    )
    return config


def stage2(
    tokenizer: str, generator: dict, dataset: dict, classes: int = 0, soft: float = 0.0
) -> ConfigDict:
    """Return the config of a generator on the tokenizer of `workdirs/<tokenizer>`, 256x256."""
    config = common.stage2(f"workdirs/{tokenizer}", 256)
    config.dataset.update(dataset)
    config.generator = ConfigDict({**generator, "classes": classes, "remat": True})
    config.loss, config.sample = ConfigDict(), ConfigDict()
    if soft:
        config.tokenizer.soft = soft
    return config


def sharded(config: ConfigDict) -> ConfigDict:
    """Split weights and optimizer over all devices (ZeRO-3), and return the config.

    Ours, for a model that one device of 16 GiB cannot hold: docs/accelerators.md.
    """
    config.mesh = {"data": 1, "fsdp": -1}
    return config


def optimizer(config: ConfigDict, **keys: Any) -> ConfigDict:
    """Set config.optimizer to `keys` alone, and return the config.

    The others are the constructor's defaults, the averages as given.
    """
    config.optimizer = ConfigDict({"warmup": "0 steps", **keys})
    return config
