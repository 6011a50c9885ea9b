"""ViT-VQGAN's tokenizer on ImageNet (Yu et al., ICLR 2022), Base: paper, Tables 1 and 2.

python -m evqgan.main --config=configs/baselines/vitvqgan_imagenet_stage1.py \
  --workdir=workdirs/vitvqgan_imagenet_stage1

256x256, f = 8: 32x32 tokens, 8192 codes.
Published: rFID 1.55 (small 1.99, small encoder and large decoder 1.28).
Ours: not trained yet.
:small  encoder and decoder of 8 blocks of 512.
:large  encoder of 8 blocks of 512, decoder of 32 of 1280.
:tiny   a few steps on generated images.
Published hardware: TPUv4, 128 cores; hours not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines

# ViT-VQGAN, Table 1; heads of 64 as in enhancing-transformers.
SIZES = {
    "small": {"layers": 8, "width": 512, "heads": 8, "mlp_width": 2048},
    "base": {"layers": 12, "width": 768, "heads": 12, "mlp_width": 3072},
    "large": {"layers": 32, "width": 1280, "heads": 16, "mlp_width": 5120},
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "small", "large" or "tiny"."""
    common.variant(variant, ["small", "large"])
    sizes = {"small": ("small", "small"), "large": ("small", "large")}.get(
        variant, ("base", "base")
    )
    # Ours: with all that layers keep, 16 images take 59 GiB (docs/accelerators.md).
    encoder, decoder = ({"name": "vit", **SIZES[size], "remat": True} for size in sizes)
    quantizer = {"name": "vq", "codes": 8192, "width": 32, "l2_normalize": True}  # its Sec. 3.2
    config = baselines.stage1(encoder, decoder, quantizer, baselines.IMAGENET, pixels="unit")
    # Its Sec. 3.3, as the two weights below; L2 is 1 of differences in [0, 1]
    # (enhancing-transformers), half of ours.
    config.loss = {"l2": 0.25, "logit_laplace": 0.1}
    config.perceptual.weight, config.perceptual.distance["remat"] = 0.1, True
    config.adversarial = {
        "critic": {"name": "stylegan"},
        "weights": "",
        "loss": "non_saturating",
        "weight": 0.1,
        "adaptive": False,
        # enhancing-transformers' 5 of images in [0, 1], whose gradients are twice those of ours.
        "r1": 20.0,
        "r1_every": 16,
    }
    config.batch_size, config.duration = 256, "500000 steps"  # its Sec. 4.1, as the optimizer
    keys = {
        "learning_rate": 1e-4,
        "b1": 0.9,
        "b2": 0.99,
        "weight_decay": 1e-4,
        "warmup": "50000 steps",
    }
    keys |= {"decay": "cosine", "final": 5e-5}
    config.adversarial.optimizer = keys
    if variant == "large":  # ours: the whole of it does not fit a v5e-16
        keys["accumulate"] = 4
        baselines.sharded(config)
    baselines.optimizer(config, **keys, ema=0.0)
    return common.tiny(config) if variant == "tiny" else config
