"""The comparison of gradients that leaves a kink's side open: what it forgives and what not."""

import itertools

import numpy as np
import pytest
from golden_files import close, close_but_for_kinks, close_but_for_many_kinks, nudged

WIDTHS = (100, 60, 40, 5)
RNG = np.random.default_rng(0)
KERNELS = [
    np.float32(RNG.standard_normal(pair) * (2 / pair[0]) ** 0.5)
    for pair in itertools.pairwise(WIDTHS)
]
X = np.float32(RNG.standard_normal((30, WIDTHS[0])))


def gradient(x, kernels=KERNELS, switched=(), term=1.0, least=0.0):
    """Of the sum of squares of a small network's outputs in x.

    Return {"x": [30,100], "kernel": [100,60]}.

    switched: units of the first layer, (image, unit), on the other side of their ReLU. term: a
    factor of the gradient that comes through the first half of the second layer. least: where the
    ReLUs begin.
    """
    before, on = [x], []
    for i, kernel in enumerate(kernels):
        y = before[-1] @ kernel
        mask = y > least if i < len(kernels) - 1 else np.ones_like(y, bool)
        if i == 0:
            for place in switched:
                mask[place] = ~mask[place]
        on.append(mask)
        before.append(y * mask)
    back = 2 * before[-1]
    for i in reversed(range(len(kernels))):
        back = back * on[i]
        if i == 1:
            back = back * np.where(
                np.arange(back.shape[1]) < back.shape[1] // 2, np.float32(term), 1
            )
        if i == 0:
            kernel = x.T @ back
        back = back @ kernels[i].T
    return {"x": back, "kernel": kernel}


@pytest.fixture(scope="module")
def edge():
    """An input of which two units lie within rounding of their kinks.

    They are those that lay nearest, moved onto them.
    """
    x, places = X.copy(), []
    for image in (3, 7):
        y = x[image] @ KERNELS[0]
        unit = np.abs(y).argmin()
        x[image] -= y[unit] * KERNELS[0][:, unit] / (KERNELS[0][:, unit] ** 2).sum()
        places.append((image, unit))
    return x, places


def test_nothing_is_nudged_where_nothing_differs(edge):
    x, _ = edge
    assert np.abs(x - X).max() < 1e-2 and nudged(x, 1).dtype == np.float32
    assert 1e-6 < np.abs(nudged(x, 1) / x - 1).max() < 1e-4 and (nudged(x, 1) == nudged(x, 1)).all()
    close_but_for_kinks(gradient(x), gradient(x), near=None)


@pytest.mark.parametrize("number", [1, 2])
def test_units_at_their_kinks_may_fall_to_either_side(edge, number):
    x, places = edge
    ours, theirs = gradient(x), gradient(x, switched=places[:number])
    with pytest.raises(AssertionError):
        close(ours["x"], theirs["x"], 1e-4)
    assert np.linalg.norm(ours["x"] - theirs["x"]) > 1e-3 * np.linalg.norm(theirs["x"])
    close_but_for_kinks(ours, theirs, lambda number: gradient(nudged(x, number)))


def test_rounding_of_another_size_is_forgiven_too(edge):
    x, _ = edge
    for number in range(100, 110):
        theirs = gradient(nudged(x, number, 1e-6))
        close_but_for_kinks(gradient(x), theirs, lambda number: gradient(nudged(x, number)))


def changed(layer, place, factor):
    kernels = [kernel.copy() for kernel in KERNELS]
    kernels[layer][place] *= factor
    return kernels


COLUMN = (slice(None), 5)
WRONG = {
    "scaled by 1 %": lambda x, places: {name: 1.01 * array for name, array in gradient(x).items()},
    "one term by 1 %": lambda x, places: gradient(x, term=1.01),
    "one term by 1 %, and a kink": lambda x, places: gradient(x, term=1.01, switched=places),
    "one layer by 1 %": lambda x, places: gradient(x, changed(1, ..., 1.01), switched=places),
    "a column of a kernel by 1 %": lambda x, places: gradient(x, changed(1, COLUMN, 1.01)),
    "one image by 1 %": lambda x, places: {
        **gradient(x),
        "x": gradient(x)["x"] * np.where(np.arange(30) == 7, 1.01, 1)[:, None],
    },
    "noise of 1 %": lambda x, places: {
        name: array * (1 + 0.01 * np.random.default_rng(0).standard_normal(array.shape))
        for name, array in gradient(x).items()
    },
    "ReLUs that begin at 0.01": lambda x, places: gradient(x, least=0.01),
    "a unit far from its kink": lambda x, places: gradient(x, switched=[(3, far(x, 3))]),
}


def far(x, image):
    y = np.abs(x[image] @ KERNELS[0])
    return np.flatnonzero(y > 0.1)[0]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_gradient_is_none_of_those(edge, wrong):
    x, places = edge
    theirs = WRONG[wrong](x, places)
    with pytest.raises(AssertionError, match="kinks found within rounding do not explain it"):
        close_but_for_kinks(gradient(x), theirs, lambda number: gradient(nudged(x, number)))


def test_a_few_numbers_are_too_few():
    ours, theirs = {"norm": np.float32([1.0])}, {"norm": np.float32([1.01])}
    with pytest.raises(AssertionError, match="1 numbers are too few to tell a jump from a mistake"):
        close_but_for_kinks(ours, theirs, lambda number: ours)
    with pytest.raises(AssertionError, match=r"norm: \(2,\), not \(1,\)"):
        close_but_for_kinks({"norm": np.zeros(2)}, theirs, lambda number: ours)


def test_many_jumps_are_forgiven_and_a_factor_is_not():
    rng = np.random.default_rng(0)
    ours = rng.standard_normal((2, 3, 64, 64))
    theirs = ours + 0.012 * rng.standard_normal(ours.shape)
    close_but_for_many_kinks(ours, theirs)
    scaled = np.ones((2, 3, 1, 1))
    scaled[1, 2] = 1.01
    with pytest.raises(AssertionError, match="slopes of theirs on ours"):
        close_but_for_many_kinks(ours, theirs * scaled)
    with pytest.raises(AssertionError):
        close_but_for_many_kinks(ours, ours + 0.1 * rng.standard_normal(ours.shape))
