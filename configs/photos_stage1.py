"""A tokenizer on the photographs that come with scikit-image and scikit-learn.

Real images, nothing to download.

python -m evqgan.main --config=configs/photos_stage1.py --workdir=workdirs/photos_stage1

128x128 crops, f = 16: 8x8 tokens, 1024 codes; regions of each photograph are held out for
validation. All terms of the paper's loss, but the frozen networks of two are untrained ("random"):
what is shown is that training works, not the paper's quality. With their weights (README) add
--config.perceptual.weights= and --config.adversarial.weights=.
Expected on held-out regions, two busy CPU cores: PSNR 21.1 dB, SSIM 0.47, 55 % of the codes; 21
minutes.
:perceptual  L2 and the perceptual term: 21.4 dB, 0.50; 11 minutes.
:l2          L2 alone: 21.3 dB, 0.50; 2 minutes.
:global      attention over the whole map instead of windows of 4x4: 21.6 dB, 0.47; 18 minutes.
:small       L2 alone on 32x32 pieces, f = 4: 8x8 tokens, 64 codes; learned in 400 steps of 32.
:tiny        a few steps on generated images.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "perceptual", "l2", "global", "small" or "tiny"."""
    common.variant(variant, ["perceptual", "l2", "global", "small"])
    # 32: the largest map, at a quarter of the image's side.
    window = 32 if variant == "global" else 4
    config = common.stage1((2, 2, 2), 128, codes=1024, width=32, window=window)
    config = common.with_critic(config, weights="random")
    config.dtype, config.batch_size, config.duration = "float32", 4, "400 steps"
    config.dataset.update({"name": "photographs", "crop": "native"})
    config.tokenizer.quantizer.update({"width": 32, "decay": 0.9, "revive": 0.1})
    config.optimizer.update(
        {"learning_rate": 1e-3, "warmup": "50 steps", "decay": "cosine", "ema": 0.99}
    )
    # Of so few steps: first something to judge.
    config.adversarial.update({"start": "50%", "ramp": "10%"})
    if variant == "small":
        config.batch_size, config.dataset.size = 32, 32
        for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
            coder.update({"depths": (2,), "width": 64, "head_dim": 32})
        config.tokenizer.quantizer.update({"codes": 64, "width": 16})
        config.optimizer.learning_rate = 2e-3
    if variant in ("perceptual", "l2", "small"):
        config.adversarial.weight = 0.0
    if variant in ("l2", "small"):
        config.perceptual.weight, config.best = 0.0, "val/mse"
    common.cadence(config, "20 steps", "200 steps", "200 steps")
    return common.tiny(config) if variant == "tiny" else config
