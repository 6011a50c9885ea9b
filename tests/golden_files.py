"""Read recorded outputs of the original implementations.

They are `.npz` files of config, weights, inputs and outputs. Weights that a file does not store are
made by a rule: normal numbers seeded by the file's seed and the weight's name.
"""

import json
import os
import pathlib
import re
import zlib

import numpy as np

# How far nudged inputs are off: some 30 roundings of float32.
# Networks of 50 layers differ by a third.
ROUNDING = 3e-6


def files(pattern):
    """The recordings, at least one, whose names match.

    They lie in the folder EVQGAN_GOLDEN, or if none there matches in tests/golden.
    """
    ours = pathlib.Path(__file__).parent / "golden"
    folders = [pathlib.Path(os.environ.get("EVQGAN_GOLDEN", ours)), ours]
    found = next(filter(None, (sorted(folder.glob(pattern)) for folder in folders)), None)
    assert found, f"no recording {pattern} in {folders[0]}"
    return found


def recorded(pattern):
    """[(path, name of an output)] of all recordings whose names match."""
    return [(path, name) for path in files(pattern) for name in load(path)[3]]


def close(ours, theirs, tolerance=1e-5, name="", least=1e-9):
    """Assert that two arrays of one shape are close.

    They differ by at most `tolerance` of the largest of `theirs`, or of `least`.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape}, not {theirs.shape}"
    scale = max(np.abs(theirs).max(), least)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=name)


def nudged(x, number, size=ROUNDING):
    """x with each value off by a normal number times `size` of it.

    The normal numbers depend on `number` alone.
    """
    noise = np.random.default_rng(number).standard_normal(np.shape(x))
    return np.asarray(x * (1 + size * noise), np.asarray(x).dtype)


def close_but_for_kinks(ours, theirs, near, tolerance=1e-4, nudges=40, least=1e-9):
    """Assert that gradients are close as in `close`, whichever side of a kink units have fallen.

    This holds for the units within rounding of a kink. At a kink (of ReLU, max pooling, hinge, |x|,
    ...) a gradient jumps. Two libraries or processors, whose sums differ by rounding, find a unit
    that is within rounding of a kink on different sides, and then all that lies before the unit
    differs by one jump, by much more than rounding. So `theirs` has to equal ours plus a
    combination of those jumps that our own gradient makes when the input is nudged by rounding:
    jumps are collected nudge by nudge, and what of the difference lies in their span is taken away,
    until the rest is within the tolerance. A jump is one direction of as many as there are numbers,
    so a wrong gradient does not lie in the span of a few; a gradient in no unit's reach is compared
    as strictly as ever, and costs nothing more.

    ours, theirs: {name: array}, with the names of theirs; all are compared at once, as a unit that
    falls the other way changes all of them. near(number): ours once more, at inputs that are
    `nudged` by this number.
    """
    scales = {name: max(np.abs(array).max(), least) for name, array in theirs.items()}

    def flat(arrays):
        for name, array in theirs.items():
            assert np.shape(arrays[name]) == array.shape, (
                f"{name}: {np.shape(arrays[name])}, not {array.shape}"
            )
        return np.concatenate(
            [np.ravel(np.float64(arrays[name]) / scale) for name, scale in scales.items()]
        )

    start, directions = flat(ours), []
    rest = flat(theirs) - start
    for number in range(nudges):
        if np.abs(rest).max() <= tolerance:
            return
        assert rest.size > 25 * nudges, (
            f"{rest.size} numbers are too few to tell a jump from a mistake: use close"
        )
        jump = flat(near(number)) - start
        for direction in directions:
            jump -= direction @ jump * direction
        if np.abs(jump).max() > tolerance:
            directions.append(jump / np.linalg.norm(jump))
            rest -= directions[-1] @ rest * directions[-1]
    ends = np.cumsum([array.size for array in theirs.values()])
    name = list(theirs)[np.searchsorted(ends, np.abs(rest).argmax(), side="right")]
    share = np.mean(np.abs(rest) > tolerance)
    raise AssertionError(
        f"{name} is off by {np.abs(rest).max():.2g} of its largest value, "
        f"{share:.1%} of all numbers by more than {tolerance:g}, "
        f"and the {len(directions)} kinks found within rounding do not explain it"
    )


def close_but_for_many_kinks(ours, theirs, slope=5e-3, rest=0.05):
    """Assert that gradients [B,C,H,W] agree where units within rounding of a kink are many.

    They are too many to be told apart. Their jumps have nothing to do with the gradient, so they
    hardly move the slope of theirs on ours, which is 1 for every image and channel up to `slope`; a
    factor, or a term that is 1 % off, does. The length of the difference is at most `rest` of that
    of theirs. In Projected GAN's critic, ReLU6 in 32 layers at 224x224, nudges of 1e-7 change most
    numbers by more than 1e-4; nudges of 3e-6 move the slopes by up to 3.7e-3 and the whole by up to
    2.9 %.
    """
    ours, theirs = np.float64(ours), np.float64(theirs)
    assert ours.shape == theirs.shape, f"{ours.shape}, not {theirs.shape}"
    slopes = (theirs * ours).sum((2, 3)) / (ours**2).sum((2, 3))
    np.testing.assert_allclose(
        slopes, 1, rtol=0, atol=slope, err_msg="slopes of theirs on ours, [B,C]"
    )
    assert np.linalg.norm(ours - theirs) <= rest * np.linalg.norm(theirs)


def load(path):
    """Return config, and weights, inputs and outputs as {name: array}.

    The weights agree with the file's checksums.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    config = json.loads(str(arrays.pop("config")))
    groups = {}
    for key, array in arrays.items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = array
    weights = groups.get("w", {})
    for name, (shape, _) in config.get("shapes", {}).items():
        if name not in weights:
            weights[name] = rule(name, shape, config)
    for name, sums in config.get("checksum", {}).items():
        array = weights[name].astype(np.float64)
        np.testing.assert_allclose(
            [array.sum(), (array**2).sum()], sums, rtol=1e-6, atol=1e-5, err_msg=name
        )
    return config, weights, groups.get("in", {}), groups.get("out", {})


def rule(name, shape, config):
    """The weight called `name`: float32 of `shape`."""
    rng = np.random.default_rng([config["seed"], zlib.crc32(name.encode())])
    parts = name.split(config.get("key_separator", "."))
    for pattern, kind, *numbers in config.get("overrides", ()):
        if re.search(pattern, name):
            assert kind in ("normal", "absnormal", "value"), f"{name} has to be stored, but is not"
            if kind == "value":
                return np.full(shape, numbers[0], np.float32)
            noise = rng.standard_normal(shape)
            return np.float32(
                numbers[0] + numbers[1] * noise if kind == "normal" else numbers[0] * np.abs(noise)
            )
    if parts[-1] == "running_var":
        return np.float32(0.5 + rng.random(shape))
    noise = rng.standard_normal(shape)
    if parts[-1] == "running_mean" or len(shape) <= 1:
        return np.float32(0.1 * noise + (parts[-1] in ("weight", "scale", "gamma")))
    gain, fan = config.get("gain", 1.0), np.prod(shape[1:])
    if "extra_rule" in config and re.match(r"loss\.perceptual_loss\.net.*weight$", name):
        gain = 2**0.5
    if parts[-1] == "kernel":  # flax
        fan = (
            shape[0]
            if len(shape) == 3 and parts[-2] in ("query", "key", "value")
            else np.prod(shape[:-1])
        )
    return np.float32(gain * float(fan) ** -0.5 * noise)
