"""RQ-VAE on ImageNet (Lee et al., CVPR 2022).

python -m evqgan.main --config=configs/baselines/rqvae_imagenet_stage1.py \
  --workdir=workdirs/rqvae_imagenet_stage1

256x256, f = 32: 8x8 tokens of four codes each, one codebook of 16384.
Published: rFID 4.73 (50 epochs: 3.20).
Ours: not trained yet.
:tiny  a few steps on generated images.
Published hardware: 4 A100, hours not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    coder = {"name": "cnn", "multipliers": (1, 1, 2, 2, 4, 4), "attention": (32,)}
    quantizer = {
        "name": "rqvae",
        "codes": 16384,
        "width": 256,
        "depth": 4,
        "decay": 0.99,
        "revive": 1.0,
    }
    config = baselines.stage1(coder, dict(coder), quantizer, baselines.IMAGENET)
    config.adversarial.update(
        {
            "critic": {"name": "patchgan", "layers": 2},
            "start": "0 steps",
            "ramp": "0 steps",
            "factor": 0.5,
            "weight": 0.75,
        }
    )
    config.batch_size, config.duration = 128, "10 epochs"
    keys = {"learning_rate": 4e-5, "b1": 0.5, "b2": 0.9, "warmup": "0.5 epochs"}
    config.adversarial.optimizer = keys
    baselines.optimizer(config, **keys, ema=0.0)
    return common.tiny(config) if variant == "tiny" else config
