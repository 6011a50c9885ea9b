"""MaskGIT's class-conditional transformer on ImageNet (Chang et al., CVPR 2022), 172 M parameters.

Paper, Tables 5 and 6.

python -m evqgan.main --config=configs/baselines/maskgit_imagenet_stage2.py \
  --workdir=workdirs/maskgit_imagenet_stage2

16x16 tokens. Needs the tokenizer of configs/baselines/maskgit_imagenet_stage1.py.
Published: gFID 6.18, IS 182.1 (512x512: 7.32, 156.0).   Ours: not trained yet.
:512   512x512, 32x32 tokens.
:tiny  a few steps on generated images.
More than 32 images a TPU's core of 16 GiB, or 256 on a single GPU: add
  --config.generator.remat=True --config.generator.unroll=1
Hours and hardware: 4x4 TPUs, hours not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines
from configs.baselines import maskgit_imagenet_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "512" or "tiny"."""
    common.variant(variant, ["512"])
    tokenizer = f"maskgit_imagenet_stage1{'_512' if variant == '512' else ''}"
    config = baselines.stage2(
        tokenizer, {"name": "maskgit"}, baselines.IMAGENET_MASKGIT, classes=1000
    )
    config.dataset.size = 512 if variant == "512" else 256
    config.batch_size, config.duration = 256, "300 epochs"  # its Sec. 4.1
    # The optimizer of its configuration.
    keys = {
        "learning_rate": 1e-4,
        "b1": 0.9,
        "b2": 0.96,
        "weight_decay": 0.045,
        "warmup": "5000 steps",
    }
    baselines.optimizer(config, **keys, ema=0.999)
    config.sample = {"steps": 12 if variant == "512" else 8, "choice_temperature": 4.5}
    if variant != "512":
        config = common.without_loop(config)
    if variant == "tiny":
        return common.tiny(config, maskgit_imagenet_stage1.get_config("tiny"))
    return config
