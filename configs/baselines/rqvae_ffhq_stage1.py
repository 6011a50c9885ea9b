"""RQ-VAE on FFHQ (Lee et al., CVPR 2022).

python -m evqgan.main --config=configs/baselines/rqvae_ffhq_stage1.py \
  --workdir=workdirs/rqvae_ffhq_stage1 \
  --config.dataset.folder=FOLDER

256x256, f = 32: 8x8 tokens of four codes each, one codebook of 2048.
Published: no rFID.   Ours: not trained yet.
:tiny  a few steps on generated images.
Published hardware: 4 A100, hours not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import rqvae_imagenet_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = rqvae_imagenet_stage1.get_config()
    config.dataset = {"size": 256, "crop": "random_resized", **common.FACES}  # its code
    config.tokenizer.quantizer.codes = 2048
    config.tokenizer.encoder.attention = config.tokenizer.decoder.attention = (16,)
    config.duration, config.eval_every = "150 epochs", "5 epochs"
    config.optimizer.warmup = config.adversarial.optimizer.warmup = "5 epochs"
    return common.tiny(config) if variant == "tiny" else config
