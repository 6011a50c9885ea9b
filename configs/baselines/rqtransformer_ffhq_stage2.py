"""The unconditional RQ-Transformer on FFHQ (Lee et al., CVPR 2022), 355 M parameters.

python -m evqgan.main --config=configs/baselines/rqtransformer_ffhq_stage2.py \
  --workdir=workdirs/rqtransformer_ffhq_stage2 --config.dataset.folder=FOLDER

8x8 tokens of four codes. Needs the tokenizer of configs/baselines/rqvae_ffhq_stage1.py.
Published: gFID 10.38.   Ours: not trained yet.
:tiny  a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import rqtransformer_imagenet_stage2, rqvae_ffhq_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = rqtransformer_imagenet_stage2.get_config("800m")
    config.dataset = {"size": 256, "crop": "random_resized", **common.FACES}  # its code
    config.tokenizer.weights = "workdirs/rqvae_ffhq_stage1"
    config.generator.update({"width": 1024, "heads": 16, "classes": 0})
    config.batch_size, config.duration, config.mesh = 128, "200 epochs", ConfigDict()
    config.sample = {"top_k": 250}
    if variant == "tiny":
        return common.tiny(config, rqvae_ffhq_stage1.get_config("tiny"))
    return config
