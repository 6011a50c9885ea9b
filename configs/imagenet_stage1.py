"""Efficient-VQGAN's tokenizer on ImageNet (paper, Sec. 4.1, Tables 1 and 2).

python -m evqgan.main --config=configs/imagenet_stage1.py --workdir=workdirs/imagenet_stage1

256x256, f = 16: 16x16 tokens, 1024 codes.
Published: rFID 2.34, 142 images/s on an A100.   Ours: not trained yet.
:f8        32x32 tokens.                     Published: rFID 0.95, 108 images/s.
:512       512x512, f = 16: 32x32 tokens.
:plus      losses and critic of VQGAN+ (Weber et al., "MaskBit", 2024), which take a convolutional
           tokenizer with 16x16 tokens and 1024 codes from VQGAN's rFID 7.94 to 1.67.
:paper16   the paper's 20 epochs in batches of 16, and
:paper128  in batches of 128: two readings of its "batch size of 16 in 8 A100".
:tiny      a few steps on generated images.
Hours and hardware of the paper: 20 epochs on 8 A100, hours not published. Ours, estimated
(configs/common.py):
  variant     images   TFLOP an image   hours on v5e-16   on 8 H100
  default    256.2 M            0.370                58        18.5
  f8         256.2 M            0.353                67        17.6
  512         64.1 M            1.481                82        18.5
  plus       345.6 M            0.648                93          44
  paper16     25.6 M            0.370               5.8         1.8
  paper128    25.6 M            0.370               5.8         1.8
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "f8", "512", "plus", "paper16", "paper128" or "tiny"."""
    common.variant(variant, ["f8", "512", "plus", *common.READINGS])
    depths = (2, 18) if variant == "f8" else (2, 2, 18)  # Swin-B's first stages
    config = common.with_critic(common.stage1(depths, 512 if variant == "512" else 256))
    config.dataset.update({"name": "imagenet2012", "crop": "random_resized"})
    common.full_size(config, evaluation="2 epochs")
    if variant == "512":  # ours: as many steps, of as many pixels each
        config.batch_size, config.duration, config.eval_every = 64, "50 epochs", "1 epoch"
    if variant in common.READINGS:
        common.as_published(config, variant, epochs=20)
    if variant == "plus":
        plus(config)
    return common.tiny(config) if variant == "tiny" else config


def plus(config: ConfigDict) -> ConfigDict:
    """Set the losses of MaskBit's vqgan_plus_10bit.yaml, its critic, and the training of both.

    Ours: the networks, the codebook, what is shown of an image (it has RandomResizedCrop, of 0.8 to
      1 of the area and of other shapes, too), and batches of 256 (it has 16 on each GPU, and does
      not say on how many).
    """
    # Its weight of L2 is 4 for pixels in [0, 1]; squared differences of ours, in [-1, 1], are four
    # times as large.
    config.loss = {"l2": 1.0}
    config.perceptual = {"distance": {"name": "logits"}, "weights": "", "weight": 0.1}
    config.duration = "1350000 steps"
    config.optimizer.b2 = 0.999
    config.adversarial = {
        "critic": {"name": "blurpool"},
        "weights": "",
        "factor": 0.5,
        "weight": 0.02,
        "adaptive": False,
        "lecam": 0.001,
        "start": "20000 steps",
        "ramp": "0 steps",
        "optimizer": {key: value for key, value in config.optimizer.items() if key != "ema"},
    }
    return config
