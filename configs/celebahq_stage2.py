"""Efficient-VQGAN's unconditional generator on CelebA-HQ (paper, Sec. 4.2, Table 3).

python -m evqgan.main --config=configs/celebahq_stage2.py --workdir=workdirs/celebahq_stage2

256x256, 16x16 tokens, blocks of 8x8, T = 8. Needs the tokenizer of configs/celebahq_stage1.py.
Published: gFID 7.81.   Ours: not trained yet.
:tiny  a few steps on generated images.
More than 32 images a TPU's core of 16 GiB, or 256 on a single GPU: add
  --config.generator.remat=True --config.generator.unroll=1
Hours and hardware of the paper: 200 epochs on 8 A100, hours not published. Ours, estimated
(configs/common.py):
  variant     images   TFLOP an image   and to encode it   hours on v5e-16   on 8 H100
  default     5.00 M            0.608              0.017               0.7         0.4
"""

from ml_collections import ConfigDict

from configs import celebahq_stage1, common


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    config = common.without_loop(common.stage2("workdirs/celebahq_stage1", 256))
    config.dataset = celebahq_stage1.get_config().dataset
    return common.tiny(config) if variant == "tiny" else config
