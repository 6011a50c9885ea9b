"""ViT-VQGAN's tokenizer on FFHQ (Yu et al., ICLR 2022), Base: paper, Table 1.

python -m evqgan.main --config=configs/baselines/vitvqgan_ffhq_stage1.py \
  --workdir=workdirs/vitvqgan_ffhq_stage1 \
  --config.dataset.folder=FOLDER

256x256, f = 8: 32x32 tokens, 8192 codes.   Published: rFID 3.13.   Ours: not trained yet.
:tiny  a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import vitvqgan_imagenet_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = vitvqgan_imagenet_stage1.get_config()
    config.dataset = {"size": 256, **common.FACES}
    # Ours: nothing is published of its training on faces. ImageNet's 500,000 steps, 100 epochs
    # there, would be 2,133 of these faces; RQ-VAE takes 150 of them. The rate rises over as large a
    # share of the steps.
    config.duration, config.eval_every = "400 epochs", "10 epochs"
    config.optimizer.warmup = config.adversarial.optimizer.warmup = "10%"
    return common.tiny(config) if variant == "tiny" else config
