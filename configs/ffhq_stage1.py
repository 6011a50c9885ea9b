"""Efficient-VQGAN's tokenizer on FFHQ (paper, Sec. 4.1, Table 1).

python -m evqgan.main --config=configs/ffhq_stage1.py --workdir=workdirs/ffhq_stage1 \
  --config.dataset.folder=FOLDER

FOLDER holds the 70,000 aligned faces; the first 60,000 train, the others validate (FFHQ's
own division).
256x256, f = 16: 16x16 tokens, 1024 codes.
Published: rFID 3.38 (f = 8: 2.72).   Ours: not trained yet.
:f8        32x32 tokens.
:1024      1024x1024, f = 16: 64x64 tokens.
:paper16   the paper's 50 epochs in batches of 16, and
:paper128  in batches of 128: two readings of its "batch size of 16 in 8 A100".
:tiny      a few steps on generated images.
Batches are of 64, of 16 with :1024: for 8 to 64, to 16 devices; on more, raise config.batch_size or
mesh.tensor.
Hours and hardware of the paper: 50 epochs on 8 A100, hours not published. Ours, estimated
(configs/common.py):
  variant     images   TFLOP an image   hours on v5e-16   on 8 H100
  default     12.0 M            0.252               3.1         0.6
  f8          12.0 M            0.232               3.0         0.5
  1024        3.00 M            4.029                14         2.4
  paper16     3.00 M            0.252               0.8         0.1
  paper128    3.00 M            0.252               0.8         0.1
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "f8", "1024", "paper16", "paper128" or "tiny"."""
    common.variant(variant, ["f8", "1024", *common.READINGS])
    # Swin-T's first stages: 70,000 faces need less than ImageNet.
    depths = (2, 6) if variant == "f8" else (2, 2, 6)
    config = common.with_critic(common.stage1(depths, 1024 if variant == "1024" else 256))
    config.dataset.update(common.FACES)
    common.full_size(config, evaluation="10 epochs")
    # Ours: as many steps as the paper's 50 epochs in batches of 16, 187,500, of four times as many
    # images each; RQ-VAE takes 150 epochs of these faces.
    config.batch_size, config.duration = 64, "200 epochs"
    if variant == "1024":
        config.batch_size, config.duration, config.eval_every = 16, "50 epochs", "5 epochs"
        # All else that is as large as the image is computed again in the backward pass, too.
        config.perceptual.distance.remat = config.adversarial.critic.remat = True
    if variant in common.READINGS:
        common.as_published(config, variant, epochs=50)
    return common.tiny(config) if variant == "tiny" else config
