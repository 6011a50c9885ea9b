"""The class-conditional RQ-Transformer on ImageNet (Lee et al., CVPR 2022), 480 M parameters.

python -m evqgan.main --config=configs/baselines/rqtransformer_imagenet_stage2.py \
  --workdir=workdirs/rqtransformer_imagenet_stage2

8x8 tokens of four codes. Needs the tokenizer of configs/baselines/rqvae_imagenet_stage1.py.
Published: gFID 15.72; :800m 13.11, :1400m 11.56, :3800m 7.55 (with a tokenizer of 50 epochs).
Ours: not trained yet.
:800m, :1400m, :3800m  the larger ones.
:tiny  a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines
from configs.baselines import rqvae_imagenet_stage1

# Its yaml files: layers of body and head, width; heads of 64.
SIZES = {
    "": (12, 4, 1536),
    "800m": (24, 4, 1536),
    "1400m": (42, 6, 1536),
    "3800m": (42, 6, 2560),
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "800m", "1400m", "3800m" or "tiny"."""
    common.variant(variant, [name for name in SIZES if name])
    layers, head_layers, width = SIZES.get(variant, SIZES[""])
    generator = {
        "name": "rqtransformer",
        "layers": layers,
        "head_layers": head_layers,
        "width": width,
        "heads": width // 64,
    }
    config = baselines.stage2(
        "rqvae_imagenet_stage1", generator, baselines.IMAGENET, classes=1000, soft=0.5
    )
    config.batch_size, config.duration = 2048, "100 epochs"
    keys = {"learning_rate": 5e-4, "b1": 0.9, "b2": 0.95, "weight_decay": 1e-4, "clip": 1.0}
    keys["accumulate"] = 2  # ours: a whole batch does not fit a v5e-16 (docs/accelerators.md)
    baselines.optimizer(baselines.sharded(config), **keys, decay="cosine", ema=0.0)
    config.sample = {"top_p": 0.92}
    if variant == "tiny":
        return common.tiny(config, rqvae_imagenet_stage1.get_config("tiny"))
    return config
