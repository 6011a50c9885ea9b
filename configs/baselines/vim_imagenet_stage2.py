"""VIM, ViT-VQGAN's class-conditional transformer on ImageNet (Yu et al., ICLR 2022).

Paper, Tables 5 and 6.

python -m evqgan.main --config=configs/baselines/vim_imagenet_stage2.py \
  --workdir=workdirs/vim_imagenet_stage2

32x32 tokens. Needs the tokenizer of configs/baselines/vitvqgan_imagenet_stage1.py.
Published: VIM-Base gFID 8.81, IS 110.8 (in the paper's Table 5: 11.2, 97.2); Large 4.17, 175.1.
Ours: not trained yet.
:large  36 layers of 2048.
:tiny   a few steps on generated images.
Published hardware: TPUv4, hours not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines
from configs.baselines import vitvqgan_imagenet_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "large" or "tiny"."""
    common.variant(variant, ["large"])
    layers, width = (36, 2048) if variant == "large" else (24, 1536)  # its Table 3
    generator = {
        "name": "gpt",
        "layers": layers,
        "width": width,
        "heads": 16,
        "dropout": 0.1,
        "tables": "separate",
    }
    config = baselines.stage2(
        "vitvqgan_imagenet_stage1", generator, baselines.IMAGENET, classes=1000
    )
    # Its Sec. 4.2, as the rates; their end is ours.
    config.batch_size, config.duration = 1024, "450000 steps"
    baselines.optimizer(
        baselines.sharded(config),
        learning_rate=4.5e-4,
        b1=0.9,
        b2=0.96,
        weight_decay=0.045,
        clip=1.0,
        warmup="5000 steps",
        hold="75000 steps",
        decay="exponential",
        final=1e-5,
        ema=0.0,
        accumulate=16 if variant == "large" else 8,  # ours: four, eight images a device of v5e-16
    )
    if variant == "tiny":
        return common.tiny(config, vitvqgan_imagenet_stage1.get_config("tiny"))
    return config
