"""Efficient-VQGAN's tokenizer on FFHQ (paper, Sec. 4.1, Table 1).

python -m evqgan.main --config=configs/ffhq_stage1.py --workdir=workdirs/ffhq_stage1 --config.dataset.folder=FOLDER

FOLDER holds the 70,000 aligned faces; the first 60,000 train, the others validate (VQGAN's split).
256x256, f = 16: 16x16 tokens, 1024 codes.   Published: rFID 3.38 (f = 8: 2.72).   Ours: not trained yet.
:f8    32x32 tokens.
:1024  1024x1024, f = 16: 64x64 tokens.
:tiny  a few steps on generated images.
Hours and hardware of the paper: 50 epochs on 8 A100, hours not published. Ours: not measured yet.
"""

from configs import common


def get_config(variant=""):
    """The config of `variant`: "", "f8", "1024" or "tiny"."""
    common.variant(variant, ["f8", "1024"])
    depths = (2, 6) if variant == "f8" else (2, 2, 6)  # Swin-T's first stages: 70,000 faces need less than ImageNet
    config = common.judged(common.stage1(depths, 1024 if variant == "1024" else 256))
    config.duration = "50 epochs"
    faces = {"folder": "data/ffhq", "label_key": "", "train": "sorted[:60000]", "validation": "sorted[60000:]"}
    config.dataset.update(faces)
    if variant == "1024":
        config.batch_size = 16
        # All that is as large as the image is computed again in the backward pass.
        config.tokenizer.encoder.remat = config.tokenizer.decoder.remat = True
        config.perceptual.distance.remat = config.adversarial.critic.remat = True
    return common.tiny(config) if variant == "tiny" else config
