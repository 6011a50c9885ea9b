"""Efficient-VQGAN's class-conditional generator on ImageNet (paper, Sec. 4.2, Table 5).

python -m evqgan.main --config=configs/imagenet_stage2.py --workdir=workdirs/imagenet_stage2

256x256, 16x16 tokens, blocks of 8x8, T = 8, 185 M parameters. Needs the tokenizer of
configs/imagenet_stage1.py.
Published: gFID 9.92, IS 82.2 (with rejection of half: 6.81, 135.84).   Ours: not trained yet.
:512    512x512, 32x32 tokens, 16 blocks, of which a training step predicts four. Needs
        imagenet_stage1.py:512.
:paper  the paper's text (joint attention, its masks), with as many supervised tokens an image.
:vqgan  on VQGAN's tokenizer, configs/baselines/vqgan_imagenet_stage1.py (paper, Table 7; its other
        half is configs/baselines/vqgan_imagenet_stage2.py).   Published: gFID 13.67 (VQGAN's GPT:
        17.04).
:tiny   a few steps on generated images.
Where a TPU's core of 16 GiB gets more than 32 images, or a single GPU all 256, add
  --config.generator.remat=True --config.generator.unroll=1
Hours and hardware of the paper: 200 epochs on 8 A100, hours not published. Ours, estimated
(configs/common.py):
  variant     images   TFLOP an image   and to encode it   hours on v5e-16   on 8 H100
  default    256.2 M            0.609              0.037                39          21
  512        256.2 M            1.116              0.149               112          49
  paper      256.2 M            0.630              0.037                40          22
  vqgan      256.2 M            0.627              0.141                56          27
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "512", "paper", "vqgan" or "tiny"."""
    common.variant(variant, ["512", "paper", "vqgan"])
    size, tokenizer = (512, "imagenet_stage1_512") if variant == "512" else (256, "imagenet_stage1")
    tokenizer = "vqgan_imagenet_stage1" if variant == "vqgan" else tokenizer
    config = common.stage2(f"workdirs/{tokenizer}", size, classes=1000)
    # Central crops are what FID's reference images show.
    config.dataset.update({"name": "imagenet2012", "crop": "adm"})
    if variant == "512":
        # Of 16 blocks: ours, as many supervised tokens an image as at 256x256.
        config.loss.targets = 4
    elif variant == "paper":
        config = common.as_written(config)
    else:
        config = common.without_loop(config)
    return common.tiny(config) if variant == "tiny" else config
