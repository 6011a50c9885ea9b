"""Quantizer sections of configs from before quantizers had names.

Saved workdirs hold them; they are read for one release.
"""

from evqgan.core import build

# The keys of the single class of that time, but for codes, width and commitment; their defaults.
DEFAULTS = {
    "depth": 1,
    "shared": True,
    "ema": 0.0,
    "l2_normalize": False,
    "revive": 0.0,
    "swapped_commitment": False,
    "entropy": 0.0,
    "entropy_temperature": 0.01,
    "entropy_target": "softmax",
    "absolute_counts": False,
    "between_depths": False,
    "detached_residual": False,
    "unnormalized_gradient": False,
}


def renamed(section: dict) -> dict:
    """Return config.tokenizer.quantizer in today's form, with a `name`, to the same numbers.

    {"codes": 64, "ema": 0.9, "revive": 0.1} -> {"name": "ema", "codes": 64, "decay": 0.9, ...}
    A section that has a name is returned unchanged. A key that is unknown, or that the named
    quantizer does not take, is kept, so that `core.build` refuses it.
    """
    if not isinstance(section, dict) or "name" in section:
        return section
    keys = dict(section)
    kind = keys.pop("kind", "vq")
    if kind == "gumbel" and keys.pop("noiseless_ids", False):
        return {
            "name": "maskgit_gumbel",
            **{"final_temperature": 1 / 16, "kl_weight": 5e-4, "logits": "dense"},
            **keys,
        }
    if kind != "vq":
        return {"name": kind, **keys}
    settings = {**DEFAULTS, **keys}
    name = _name(settings)
    # A moving average leaves no codebook term to weigh: then the commitment had the weight 1.
    if settings["ema"] and settings["swapped_commitment"]:
        settings.update(commitment=1.0, swapped_commitment=False)
    if name == "vqgan":
        settings["swapped_commitment"] = False
    if name == "rqvae" and (
        settings["between_depths"] or settings["depth"] == 1 or not settings["shared"]
    ):
        settings.update(absolute_counts=False, between_depths=False)
    if name == "vitvqgan" or not settings["l2_normalize"]:
        settings["unnormalized_gradient"] = False
    module = build.module("tokenizers.quantizers", name, "config.tokenizer.quantizer", "Quantizer")
    taken = build.keys_of(module.Quantizer)
    if "decay" in taken:
        settings["decay"] = settings.pop("ema")
    return {
        "name": name,
        **{key: x for key, x in settings.items() if key in taken or x != DEFAULTS.get(key)},
    }


def _name(settings: dict) -> str:
    """Return the name of the quantizer that does what these keys meant."""
    if settings["entropy"]:
        return "maskgit"
    several = settings["depth"] != 1
    if settings["detached_residual"] or (
        settings["l2_normalize"] and (several or settings["unnormalized_gradient"])
    ):
        return "vitvqgan"
    if settings["absolute_counts"]:
        return "rqvae"
    if several:
        return "residual"
    if settings["ema"]:
        return "ema"
    if settings["revive"]:
        return "revived"
    return "vqgan" if settings["swapped_commitment"] else "vq"
