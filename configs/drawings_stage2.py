"""A generator of OpenMoji's drawings, conditional on their class: faces, animals, food, ...

python -m evqgan.main --config=configs/drawings_stage2.py --workdir=workdirs/drawings_stage2

64x64, 8x8 tokens, blocks of 4x4, T = 8; for two CPU cores. Needs the tokenizer of
configs/drawings_stage1.py.
Expected, after 15,000 steps: 900 samples have a Frechet distance of 256 by EfficientNet, 52 % are
in their class (held-out drawings 56 %). Faces, people and flags can be told; docs/results.md says
what is wrong with them. A step takes 0.08 to 0.2 s on two CPU cores that nobody else uses, up to
0.8 s on busy ones.
:f4    16x16 tokens, blocks of 8x8, on configs/drawings_stage1.py:f4, in
       workdirs/drawings_stage1_f4; two hours, and worse: Frechet distance 397 to 450, 35 to 40 %
       in class, held-out cross-entropy 1.97 (docs/results.md).
:256   256x256, 16x16 tokens, blocks of 8x8, for one GPU; on configs/drawings_stage1.py:256, in
       workdirs/drawings_stage1_256.
:1024  1024x1024, 64x64 tokens, 64 blocks, 8 of them a step; likewise on :1024.
:cpu512, :cpu1024  the same on the tokenizers of these names, small enough for two CPU cores.
:tiny  a few steps on generated images.
Few drawings are learned by heart: the held-out cross-entropy is least, 2.99, after 5,000 steps, and
3.30 at the end, while samples become better. Both checkpoints are kept; the latest is sampled.
"""

from ml_collections import ConfigDict

from configs import common, drawings_stage1

VARIANTS = ("f4", "256", "1024", "cpu512", "cpu1024")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", one of VARIANTS, or "tiny"."""
    common.variant(variant, VARIANTS)
    config = drawings_stage1.of_drawings(variant, small, large, slim)
    tokenizer = drawings_stage1.get_config("tiny") if variant == "tiny" else None
    return common.tiny(config, tokenizer) if variant == "tiny" else config


def small(factor: int) -> ConfigDict:
    """Return the generator of 64x64, for a CPU; factor: its tokenizer's f, 8 or 4."""
    of_tokens = "_f4" if factor == 4 else ""
    config = common.stage2(f"workdirs/drawings_stage1{of_tokens}", 64, classes=9)
    # As large as fits 5 MB in float16 together with the tokenizer.
    config.generator.update({"layers": 5, "width": 128, "heads": 4})
    if factor == 8:
        config.generator.update({"window": 4, "extend": 1})
    config.generator.update({"code_width": 32, "remat": False, "chunk": 0, "dropout": 0.2})
    config.dtype, config.batch_size = "float32", 32
    config.duration = "15000 steps" if factor == 8 else "12000 steps"
    config.optimizer.update(
        {"learning_rate": 1e-3, "warmup": "200 steps", "decay": "cosine", "ema": 0.99}
    )
    config.optimizer.moment_dtype = "float32"
    # Ours: by the Frechet distance of EfficientNet, four seeds, 264 for 286 at MaskGIT's 4.5. At
    # f = 4, where more than half of the tokens are white, nearly all becomes so.
    config.sample.choice_temperature = 1.0 if factor == 8 else 4.5
    # At equal compute, one block of each of many images teaches no less than all blocks of few
    # (docs/results.md, "Choices of stage 2").
    config.loss.targets = 1
    return common.cadence(config, "100 steps", "1000 steps", "1000 steps")


def large(size: int) -> ConfigDict:
    """Return the generator of 256x256 or 1024x1024, for one GPU."""
    config = common.stage2(f"workdirs/drawings_stage1_{size}", size, classes=9)
    config.generator.update({"layers": 12, "width": 512, "heads": 8, "remat": size == 1024})
    config.batch_size, config.duration = (64, "20000 steps") if size == 256 else (16, "20000 steps")
    if size == 1024:
        config.loss.targets = 8
    config.optimizer.update({"learning_rate": 3e-4, "warmup": "1000 steps", "decay": "cosine"})
    return common.cadence(config, "100 steps", "2000 steps", "2000 steps")


def slim(size: int) -> ConfigDict:
    """Return the generator of 512x512 or 1024x1024 for a CPU, in minutes."""
    config = common.stage2(f"workdirs/drawings_stage1_cpu{size}", size, classes=9)
    config.generator.update({"layers": 3, "width": 128, "heads": 4, "extend": 2})
    config.generator.update({"code_width": 32, "remat": False, "chunk": 0, "dropout": 0.1})
    config.dtype, config.batch_size, config.duration = "float32", 2, "300 steps"
    config.optimizer.update({"learning_rate": 2e-3, "warmup": "50 steps", "decay": "cosine"})
    config.optimizer.update({"ema": 0.99, "moment_dtype": "float32"})
    config.loss.targets = 8
    return common.cadence(config, "20 steps", "300 steps", "300 steps")
