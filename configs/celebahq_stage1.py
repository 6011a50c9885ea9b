"""Efficient-VQGAN's tokenizer on CelebA-HQ (paper, Sec. 4.1).

python -m evqgan.main --config=configs/celebahq_stage1.py --workdir=workdirs/celebahq_stage1

256x256, f = 16: 16x16 tokens, 1024 codes; 25,000 faces train, 5,000 validate (VQGAN's numbers).
Published: no rFID of its own; the generator on it reaches gFID 7.81.   Ours: not trained yet.
:tiny  a few steps on generated images.
Hours and hardware of the paper: 50 epochs on 8 A100, hours not published. Ours: not measured yet.
"""

from configs import common, ffhq_stage1


def get_config(variant=""):
    """The config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = ffhq_stage1.get_config()
    config.dataset = {"name": "celeb_a_hq/256", "train": "train[:25000]", "validation": "train[25000:]", "size": 256}
    return common.tiny(config) if variant == "tiny" else config
