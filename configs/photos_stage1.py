"""A tokenizer on the photographs that come with scikit-image and scikit-learn: real images, nothing to download.

python -m evqgan.main --config=configs/photos_stage1.py --workdir=workdirs/photos_stage1

128x128 crops, f = 16: 8x8 tokens, 1024 codes; regions of each photograph are held out for validation.
Expected: PSNR 25.5 dB, SSIM 0.64 on held-out regions, 46 % of the codes in use; 12 minutes on two busy CPU cores.
:tiny  a few steps on generated images.
"""

from configs import common


def get_config(variant=""):
    """The config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = common.stage1((2, 2, 2), 128, codes=1024, width=32)
    config.dtype, config.batch_size, config.duration = "float32", 16, "1500 steps"
    config.dataset.update({"name": "photographs", "crop": "native"})
    config.tokenizer.quantizer.update({"width": 32, "ema": 0.9, "revive": 0.1})
    config.optimizer.update({"learning_rate": 1e-3, "warmup": "100 steps", "decay": "cosine", "ema": 0.99})
    common.cadence(config, "50 steps", "500 steps", "500 steps")
    return common.tiny(config) if variant == "tiny" else config
