"""Quantizers side by side: the quickstart's tokenizer of digits with about 1,024 codes.

for name in vq ema fsq lfq; do
  python -m evqgan.main --config=configs/digits_quantizers.py:$name \
    --workdir=workdirs/digits_quantizers_$name
done

32x32 images, f = 4: 8x8 tokens of 10 bits.
Expected on held-out digits: docs/results.md, "Quantizers side by side".
:vq    the paper's, 1,024 codes by gradient; the same without a variant.
:ema   1,024 codes by moving average, revived as in the quickstart.
:fsq   levels (8, 5, 5, 5): 1,000 codes.
:lfq   10 bits: 1,024 codes.
:tiny  a few steps on generated images.
"""

from ml_collections import ConfigDict

from configs import common, quickstart

QUANTIZERS = {
    "vq": {"name": "vq", "codes": 1024, "width": 16},
    "ema": {"name": "ema", "codes": 1024, "width": 16, "decay": 0.9, "revive": 0.1},
    "fsq": {"name": "fsq", "levels": (8, 5, 5, 5)},  # FSQ, Table 1
    "lfq": {"name": "lfq", "bits": 10},
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "vq", "ema", "fsq", "lfq" or "tiny"."""
    common.variant(variant, list(QUANTIZERS))
    config = quickstart.tokenizer()
    config.duration = "300 steps"
    with config.unlocked():
        config.tokenizer.quantizer = QUANTIZERS.get(variant, QUANTIZERS["vq"])
    return common.tiny(config) if variant == "tiny" else config
