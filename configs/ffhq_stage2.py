"""Efficient-VQGAN's unconditional generator on FFHQ (paper, Sec. 4.2, Tables 3 and 4).

python -m evqgan.main --config=configs/ffhq_stage2.py --workdir=workdirs/ffhq_stage2 \
  --config.dataset.folder=FOLDER

256x256, 16x16 tokens, blocks of 8x8, T = 8. Needs the tokenizer of configs/ffhq_stage1.py.
Published: gFID 5.28 at 256x256, 11.81 at 1024x1024.   Ours: not trained yet.
:1024   1024x1024, 64x64 tokens, 64 blocks, 16 of them a step. Needs configs/ffhq_stage1.py:1024.
:paper  the paper's text (joint attention, its masks), with as many supervised tokens an image.
:vqgan  on VQGAN's tokenizer, configs/baselines/vqgan_ffhq_stage1.py (paper, Table 7; its other half
        is configs/baselines/vqgan_ffhq_stage2.py).   Published: gFID 7.5 (VQGAN's GPT: 9.6).
:tiny   a few steps on generated images.
More than 32 images a TPU's core of 16 GiB, or 256 on a single GPU: add
  --config.generator.remat=True --config.generator.unroll=1
Hours and hardware of the paper: 200 epochs on 8 A100, hours not published. Ours, estimated
(configs/common.py):
  variant     images   TFLOP an image   and to encode it   hours on v5e-16   on 8 H100
  default     12.0 M            0.608              0.017               1.7         1.0
  1024        12.0 M            4.502              0.280                25         8.5
  paper       12.0 M            0.626              0.017               1.7         1.0
  vqgan       12.0 M            0.608              0.138               2.5         1.2
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "1024", "paper", "vqgan" or "tiny"."""
    common.variant(variant, ["1024", "paper", "vqgan"])
    size, tokenizer = (1024, "ffhq_stage1_1024") if variant == "1024" else (256, "ffhq_stage1")
    tokenizer = "vqgan_ffhq_stage1" if variant == "vqgan" else tokenizer
    config = common.stage2(f"workdirs/{tokenizer}", size)
    config.dataset.update(common.FACES)
    if variant == "1024":
        # Ours: four times the supervised tokens of 256x256, at four times its compute.
        config.batch_size, config.loss.targets = 64, 16
    elif variant == "paper":
        config = common.as_written(config)
    else:
        config = common.without_loop(config)
    return common.tiny(config) if variant == "tiny" else config
