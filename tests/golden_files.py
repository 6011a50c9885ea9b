"""Reads recorded outputs of the original implementations: `.npz` files of config, weights, inputs and outputs.

Weights that a file does not store are made by a rule: normal numbers seeded by the file's seed and the weight's name.
"""

import json
import os
import pathlib
import re
import zlib

import numpy as np


def files(pattern):
    """The recordings whose names match, in the folder EVQGAN_GOLDEN, or if none does in tests/golden; one at least."""
    ours = pathlib.Path(__file__).parent / "golden"
    folders = [pathlib.Path(os.environ.get("EVQGAN_GOLDEN", ours)), ours]
    found = next(filter(None, (sorted(folder.glob(pattern)) for folder in folders)), None)
    assert found, f"no recording {pattern} in {folders[0]}"
    return found


def recorded(pattern):
    """[(path, name of an output)] of all recordings whose names match."""
    return [(path, name) for path in files(pattern) for name in load(path)[3]]


def close(ours, theirs, tolerance=1e-5, name="", least=1e-9):
    """Asserts that arrays of one shape differ by at most `tolerance` of the largest of `theirs`, or of `least`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape}, not {theirs.shape}"
    scale = max(np.abs(theirs).max(), least)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=name)


def load(path):
    """-> config, and weights, inputs and outputs as {name: array}; weights agree with the file's checksums."""
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
        np.testing.assert_allclose([array.sum(), (array**2).sum()], sums, rtol=1e-6, atol=1e-5, err_msg=name)
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
            return np.float32(numbers[0] + numbers[1] * noise if kind == "normal" else numbers[0] * np.abs(noise))
    if parts[-1] == "running_var":
        return np.float32(0.5 + rng.random(shape))
    noise = rng.standard_normal(shape)
    if parts[-1] == "running_mean" or len(shape) <= 1:
        return np.float32(0.1 * noise + (parts[-1] in ("weight", "scale", "gamma")))
    gain, fan = config.get("gain", 1.0), np.prod(shape[1:])
    if "extra_rule" in config and re.match(r"loss\.perceptual_loss\.net.*weight$", name):
        gain = 2**0.5
    if parts[-1] == "kernel":  # flax
        fan = shape[0] if len(shape) == 3 and parts[-2] in ("query", "key", "value") else np.prod(shape[:-1])
    return np.float32(gain * float(fan) ** -0.5 * noise)
