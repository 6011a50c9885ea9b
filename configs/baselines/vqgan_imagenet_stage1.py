"""VQGAN's tokenizer on ImageNet (Esser et al., 2021; taming-transformers).

python -m evqgan.main --config=configs/baselines/vqgan_imagenet_stage1.py \
  --workdir=workdirs/vqgan_imagenet_stage1

256x256, f = 16: 16x16 tokens.
Published: rFID 7.94 (1024 codes, :1024), 4.98 (16384).   Ours: not trained yet.
:1024    1024 codes.
:gumbel  f = 8, 8192 codes, Gumbel quantizer (published for OpenImages: rFID 1.49 on ImageNet).
:tiny    a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "1024", "gumbel" or "tiny"."""
    common.variant(variant, ["1024", "gumbel"])
    coder = {"name": "cnn"}
    quantizer = {"name": "vqgan", "codes": 1024 if variant == "1024" else 16384, "width": 256}
    if variant == "gumbel":
        coder |= {"multipliers": (1, 1, 2, 4), "attention": (8,)}
        # DALL-E's temperatures; the weight of the KL term is that of the code's GumbelVQ.
        quantizer = {
            "name": "gumbel",
            "codes": 8192,
            "width": 256,
            "kl_weight": 1e-8,
            "anneal": 150_000,
        }
    config = baselines.stage1(coder, dict(coder), quantizer, baselines.IMAGENET_VQGAN)
    config.loss = {"l1": 1.0, "l2": 0.0}
    start = {"start": "250001 steps", "ramp": "0 steps"}
    config.adversarial.update({"critic": {"name": "patchgan"}, "factor": 0.5, **start})
    # Its yaml has 12 images on each GPU and does not say on how many: 16, which 8 devices share, is
    # ours, as is the duration: none is published. The start, in steps, is its yaml's.
    config.batch_size, config.duration = 16, "10 epochs"
    rate = 4.5e-6 * config.batch_size  # its rule, for both
    config.adversarial.optimizer = {"learning_rate": rate, "b1": 0.5, "b2": 0.9}
    baselines.optimizer(config, learning_rate=rate, b1=0.5, b2=0.9, ema=0.0)
    return common.tiny(config) if variant == "tiny" else config
