"""MaskGIT's tokenizer on ImageNet (Chang et al., CVPR 2022).

python -m evqgan.main --config=configs/baselines/maskgit_imagenet_stage1.py \
  --workdir=workdirs/maskgit_imagenet_stage1

256x256, f = 16: 16x16 tokens, 1024 codes.
Published: rFID 2.28 (512x512: 1.97).   Ours: not trained yet.
:512   512x512.
:tiny  a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "512" or "tiny"."""
    common.variant(variant, ["512"])
    coder = {
        "name": "cnn",
        "attention": (),
        "middle_attention": False,
        "z_width": 0,
        "bias": False,
        "shortcut_of_output": True,
        "blocks": 2,
    }
    quantizer = {"name": "maskgit", "codes": 1024, "width": 256, "entropy": 0.1}
    config = baselines.stage1(
        {**coder, "down": "pool"}, coder, quantizer, baselines.IMAGENET_MASKGIT, pixels="unit"
    )
    config.dataset.size = 512 if variant == "512" else 256
    config.loss = {"l2": 0.25}  # 1 of differences in [0, 1], which are half of ours
    config.perceptual = {"distance": {"name": "logits", "of": "map"}, "weights": "", "weight": 0.1}
    config.adversarial = {
        "critic": {"name": "maskgit", "blur": True},
        "weights": "",
        "loss": "non_saturating",
        "factor": 1.0,
        "weight": 0.1,
        "adaptive": False,
        "r1": 40.0,  # 10 of images in [0, 1], whose gradients are twice those of ours
        "optimizer": {"learning_rate": 1e-4, "b1": 0.0, "b2": 0.99},
    }
    config.batch_size, config.duration = 256, "1000000 steps"
    # Ours: the whole of the larger images does not fit a v5e-16 (docs/accelerators.md).
    more = {"accumulate": 8} if variant == "512" else {}
    baselines.optimizer(config, learning_rate=1e-4, b1=0.0, b2=0.99, ema=0.999, **more)
    return common.tiny(config) if variant == "tiny" else config
