"""What a number is called that is computed of features, and whose features a name is of."""

from collections.abc import Iterable

# What the field calls a number if it is of Inception's trained features, and of no others.
OF_INCEPTION = {
    "frechet": "fid",
    "spatial_frechet": "sfid",
    "mmd": "kid",
    "mmd_sd": "kid_sd",
    "score": "is",
    "score_sd": "is_sd",
}
# And if it is of CLIP's: Jayasumana et al. (2024).
OF_CLIP = {"rbf_mmd": "cmmd"}
UNTRAINED = "_untrained"  # ends the names of numbers by random weights
# What evaluation.json of older versions calls numbers, and what they are called now.
RENAMED = {"frechet": "frechet_pixels", "heldout_frechet": "heldout_frechet_pixels"}


def name_of(number: str, network: str, untrained: bool = False, prefix: str = "") -> str:
    """Return a number's name, which always says whose features it is of.

    Such as fid_inception, cmmd_clip, frechet_dinov2, precision_inception, rfid_inception or
    frechet_inception_untrained: with random weights it is no FID.

    number: a key of what `evals.feature_metrics` computes, such as frechet, mmd or precision.
    network: the module in evqgan/features.
    untrained: whether its weights are random.
    prefix: "r" of reconstructions.
    """
    of_field = {"inception": OF_INCEPTION, "clip": OF_CLIP}.get(network, {})
    if not untrained:
        number = of_field.get(number, number)
    return f"{prefix}{number}_{network}" + UNTRAINED * untrained


def network_of(name: str, networks: Iterable[str]) -> str:
    """Return of which of the networks' features a number is that `name_of` named; "" if of none."""
    bare = name.removesuffix(UNTRAINED)
    return max((one for one in networks if bare.endswith(f"_{one}")), key=len, default="")
