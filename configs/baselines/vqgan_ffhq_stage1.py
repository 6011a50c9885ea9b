"""VQGAN's tokenizer on FFHQ (Esser et al., 2021; the FacesHQ configuration of taming-transformers).

python -m evqgan.main --config=configs/baselines/vqgan_ffhq_stage1.py \
  --workdir=workdirs/vqgan_ffhq_stage1 \
  --config.dataset.folder=FOLDER

256x256, f = 16: 16x16 tokens, 1024 codes.
That configuration trains on CelebA-HQ, too; ours is of FFHQ alone. VQGAN divides FFHQ by lists of
names, as which it is measured: docs/data.md, "Splits by lists of names".
Published: rFID 4.39 (paper, Table 1).   Ours: not trained yet.
:tiny  a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import vqgan_imagenet_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = vqgan_imagenet_stage1.get_config("1024")
    config.dataset = {"size": 256, "flip": False, **common.FACES}
    # Its yaml has 3 images on each GPU and does not say on how many: 8, one for each of 8 devices,
    # is ours, as is the duration: none is published. The start, in steps, is its yaml's.
    config.adversarial.start = "30001 steps"
    config.batch_size, config.duration = 8, "50 epochs"
    config.optimizer.learning_rate = config.adversarial.optimizer.learning_rate = (
        4.5e-6 * config.batch_size
    )
    return common.tiny(config) if variant == "tiny" else config
