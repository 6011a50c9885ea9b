"""Efficient-VQGAN's tokenizer on ImageNet (paper, Sec. 4.1, Tables 1 and 2).

python -m evqgan.main --config=configs/imagenet_stage1.py --workdir=workdirs/imagenet_stage1

256x256, f = 16: 16x16 tokens, 1024 codes.   Published: rFID 2.34, 142 images/s on an A100.   Ours: not trained yet.
:f8    32x32 tokens.                         Published: rFID 0.95, 108 images/s.
:512   512x512, f = 16: 32x32 tokens.
:tiny  a few steps on generated images.
Hours and hardware of the paper: 20 epochs on 8 A100, hours not published. Ours: not measured yet.
"""

from configs import common


def get_config(variant=""):
    """The config of `variant`: "", "f8", "512" or "tiny"."""
    common.variant(variant, ["f8", "512"])
    depths = (2, 18) if variant == "f8" else (2, 2, 18)  # Swin-B's first stages
    config = common.judged(common.stage1(depths, 512 if variant == "512" else 256))
    config.dataset.update({"name": "imagenet2012", "crop": "random_resized"})
    return common.tiny(config) if variant == "tiny" else config
