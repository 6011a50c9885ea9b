"""Efficient-VQGAN's tokenizer on CelebA-HQ (paper, Sec. 4.1).

python -m evqgan.main --config=configs/celebahq_stage1.py --workdir=workdirs/celebahq_stage1

256x256, f = 16: 16x16 tokens, 1024 codes; 25,000 faces train, 5,000 validate (VQGAN's numbers).
Published: no rFID of its own; the generator on it reaches gFID 7.81.   Ours: not trained yet.
:paper16   the paper's 50 epochs in batches of 16, and
:paper128  in batches of 128: two readings of its "batch size of 16 in 8 A100".
:tiny      a few steps on generated images.
Batches are of 64, for 8 to 64 devices; on more, raise config.batch_size or mesh.tensor.
Hours and hardware of the paper: 50 epochs on 8 A100, hours not published. Ours, estimated
(configs/common.py):
  variant     images   TFLOP an image   hours on v5e-16   on 8 H100
  default     5.00 M            0.252               1.3         0.2
  paper16     1.25 M            0.252               0.3         0.1
  paper128    1.25 M            0.252               0.3         0.1
"""

from ml_collections import ConfigDict

from configs import common, ffhq_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "paper16", "paper128" or "tiny"."""
    common.variant(variant, list(common.READINGS))
    config = ffhq_stage1.get_config(variant if variant in common.READINGS else "")
    config.dataset = {
        "name": "celeb_a_hq/256",
        "train": "train[:25000]",
        "validation": "train[25000:]",
        "size": 256,
    }
    return common.tiny(config) if variant == "tiny" else config
