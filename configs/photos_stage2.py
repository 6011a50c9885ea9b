"""A generator of 128x128 pieces of the bundled photographs, conditional on the photograph.

python -m evqgan.main --config=configs/photos_stage2.py --workdir=workdirs/photos_stage2

8x8 tokens, blocks of 4x4, T = 8. Needs the tokenizer of configs/photos_stage1.py.
Expected: not measured yet, but for 400 steps of :small (docs/results.md, "Choices of stage 2").
:small  32x32 pieces, on the tokenizer of configs/photos_stage1.py:small.
:tiny   a few steps on generated images.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "small" or "tiny"."""
    common.variant(variant, ["small"])
    small = variant == "small"
    workdir = "workdirs/photos_stage1_small" if small else "workdirs/photos_stage1"
    config = common.stage2(workdir, 32 if small else 128, classes=9)
    config.dtype, config.batch_size, config.duration = "float32", 32, "1500 steps"
    config.dataset.update({"name": "photographs", "crop": "native"})
    config.generator.update(
        {
            "window": 4,
            "extend": 1 if small else 2,
            "layers": 4,
            "width": 128,
            "heads": 4,
            "code_width": 32,
        }
    )
    config.generator.update({"remat": False, "chunk": 0, "positions": "grid", "class_dropout": 0.0})
    # At equal compute, one block of each of many images teaches more than all blocks of few
    # (docs/results.md, "Choices of stage 2").
    config.loss.targets = 1
    config.optimizer.moment_dtype = "float32"
    config.optimizer.update(
        {"learning_rate": 1e-3, "warmup": "100 steps", "decay": "cosine", "ema": 0.99}
    )
    common.cadence(config, "50 steps", "500 steps", "500 steps")
    return common.tiny(config) if variant == "tiny" else config
