"""Both stages on real handwritten digits, then samples, reconstructions and edits.

The main job, in minutes on a CPU.

bash launch/local.sh

32x32 images, f = 4: 8x8 tokens, 64 codes; blocks of 4x4, T = 4.
Expected: PSNR 28 dB, all codes in use, 97 % of 1,000 samples in their class; 8 to 10 minutes on two
CPU cores that do nothing else.
:tiny  a few steps on generated images.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = ConfigDict({"stage": "quickstart", "samples": 1000})
    config.tokenizer, config.generator = tokenizer(), generator()
    if variant == "tiny":
        config.samples = 20
        config.tokenizer = common.tiny(config.tokenizer)
        config.generator = common.tiny(config.generator)
        config.generator.tokenizer = {"weights": "", "model": {}}
        for part in (config.tokenizer, config.generator):
            part.dataset.update({"classes": 10, "num_examples": 64})
    return config


def tokenizer() -> ConfigDict:
    """Return stage 1: a Swin tokenizer of 32x32 digits."""
    config = common.stage1((2,), 32, codes=64, width=64, window=4)
    config.dtype, config.batch_size, config.duration = "float32", 64, "500 steps"
    config.dataset.update({"name": "digits", "flip": False})
    config.tokenizer.quantizer.update({"width": 16, "decay": 0.9, "revive": 0.1})
    config.optimizer.update(
        {"learning_rate": 2e-3, "warmup": "50 steps", "decay": "cosine", "ema": 0.99}
    )
    return common.cadence(config, "50 steps", "250 steps", "250 steps")


def generator() -> ConfigDict:
    """Return stage 2: class-conditional, four blocks of 4x4 tokens."""
    config = common.stage2("", 32, classes=10)
    config.dtype, config.batch_size, config.duration = "float32", 64, "1600 steps"
    config.dataset.update({"name": "digits", "flip": False})
    config.generator.update(
        {"window": 4, "extend": 1, "layers": 4, "width": 128, "heads": 4, "code_width": 32}
    )
    # 1,600 steps are too few to overfit, and memory is no matter.
    config.generator.update(
        {"dropout": 0.0, "remat": False, "chunk": 0, "positions": "grid", "class_dropout": 0.0}
    )
    config.optimizer.update(
        {"learning_rate": 2e-3, "warmup": "100 steps", "decay": "cosine", "ema": 0.99}
    )
    # At equal compute, one block of each of many images teaches as much as all blocks of few
    # (docs/results.md, "Choices of stage 2").
    config.loss.targets = 1
    config.optimizer.moment_dtype = "float32"
    # By measurement (docs/results.md, "Settings of the sampler").
    config.sample.update({"steps": 4, "choice_temperature": 9.0})
    return common.cadence(config, "50 steps", "800 steps", "400 steps")
