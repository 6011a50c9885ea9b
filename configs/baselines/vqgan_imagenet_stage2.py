"""VQGAN's class-conditional GPT on ImageNet (Esser et al., 2021), 1.4 G parameters.

Paper, Tables 5, 6 and 7.

python -m evqgan.main --config=configs/baselines/vqgan_imagenet_stage2.py \
  --workdir=workdirs/vqgan_imagenet_stage2

Needs the tokenizer of configs/baselines/vqgan_imagenet_stage1.py. Table 7's other half is
configs/imagenet_stage2.py:vqgan.
Published: gFID 15.78 (k = 600, p = 0.92; 17.04 with all codes, paper, Table 5).
Ours: not trained yet.
:tiny  a few steps on generated images.
Published hours: 45.8 days on an A100. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines
from configs.baselines import vqgan_imagenet_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    generator = {"name": "gpt", "layers": 48, "width": 1536, "heads": 16, "dropout": 0.0}
    config = baselines.stage2(
        "vqgan_imagenet_stage1", generator, baselines.IMAGENET_VQGAN, classes=1000
    )
    # 2.4 M passes of 16 images, 8 for a step (its README and issues); rate: its rule; the rest: its
    # code.
    config.batch_size, config.duration = 128, "300000 steps"
    rate = 4.5e-6 * config.batch_size
    baselines.optimizer(
        baselines.sharded(config),
        learning_rate=rate,
        b1=0.9,
        b2=0.95,
        weight_decay=0.01,
        ema=0.0,
        accumulate=8,
    )
    config.sample = {"temperature": 1.0, "top_k": 600, "top_p": 0.92}
    if variant == "tiny":
        return common.tiny(config, vqgan_imagenet_stage1.get_config("tiny"))
    return config
