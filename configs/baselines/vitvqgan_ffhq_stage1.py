"""ViT-VQGAN's tokenizer on FFHQ (Yu et al., ICLR 2022), Base: paper, Table 1.

python -m evqgan.main --config=configs/baselines/vitvqgan_ffhq_stage1.py --workdir=workdirs/vitvqgan_ffhq_stage1 \
  --config.dataset.folder=FOLDER

256x256, f = 8: 32x32 tokens, 8192 codes.   Published: rFID 3.13.   Ours: not trained yet.
:tiny  a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from configs import common
from configs.baselines import common as baselines
from configs.baselines import vitvqgan_imagenet_stage1


def get_config(variant=""):
    """The config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = vitvqgan_imagenet_stage1.get_config()
    config.dataset = {"size": 256, **baselines.FACES}
    return common.tiny(config) if variant == "tiny" else config
