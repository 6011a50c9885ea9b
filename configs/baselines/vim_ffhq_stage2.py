"""VIM-Large, ViT-VQGAN's unconditional transformer on FFHQ (Yu et al., ICLR 2022): paper, Table 4.

python -m evqgan.main --config=configs/baselines/vim_ffhq_stage2.py \
  --workdir=workdirs/vim_ffhq_stage2 \
  --config.dataset.folder=FOLDER

32x32 tokens. Needs the tokenizer of configs/baselines/vitvqgan_ffhq_stage1.py.
Published: gFID 5.3.   Ours: not trained yet.
:tiny  a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import vim_imagenet_stage2, vitvqgan_ffhq_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = vim_imagenet_stage2.get_config("large")
    config.dataset = {"size": 256, **common.FACES}
    # Ours: nothing is published of its training on faces. As many epochs as of ImageNet, whose
    # 450,000 steps would be 7,680 of these faces; the rate is held as long a share of them, and
    # rises for a longer one: 1,055 steps.
    config.duration = "360 epochs"
    config.optimizer.update({"warmup": "5%", "hold": "17%"})
    config.tokenizer.weights, config.generator.classes = "workdirs/vitvqgan_ffhq_stage1", 0
    if variant == "tiny":
        return common.tiny(config, vitvqgan_ffhq_stage1.get_config("tiny"))
    return config
