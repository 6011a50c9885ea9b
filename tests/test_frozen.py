"""The tables of the frozen networks: every public name arrives, nothing else does.

All return bit for bit.
"""

import re

import jax
import jax.numpy as jnp
import lpips_table
import numpy as np
import pytest
from golden_files import files, load

from evqgan.convert import frozen, other_files
from evqgan.convert.mapping import to_ours, to_theirs
from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name
from evqgan.losses import lpips

COUNTS = {
    "efficientnet_lite0": 2_958_848,
    "efficientnet_lite0_head": 1_693_160,
    "vgg16": 14_714_688,
    "lpips": 1_472,
    "inception": 23_850_960,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
}
# Floats in the public files.
TENSORS = {
    "efficientnet_lite0": 240,
    "efficientnet_lite0_head": 7,
    "vgg16": 26,
    "lpips": 5,
    "inception": 472,
    "resnet50": 267,
    "resnet101": 522,
}
NAMES = {  # the first and the last of each
    "vgg16": {"features.0.weight": (64, 3, 3, 3), "features.28.bias": (512,)},
    "lpips": {"lin0.model.1.weight": (1, 64, 1, 1), "lin4.model.1.weight": (1, 512, 1, 1)},
    "efficientnet_lite0": {
        "conv_stem.weight": (32, 3, 3, 3),
        "blocks.6.0.conv_pwl.weight": (320, 1152, 1, 1),
    },
    "efficientnet_lite0_head": {
        "conv_head.weight": (1280, 320, 1, 1),
        "classifier.bias": (1000,),
    },
    "inception": {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3), "fc.bias": (1008,)},
    "resnet50": {
        "conv1.weight": (64, 3, 7, 7),
        "layer4.2.bn3.running_var": (2048,),
        "fc.weight": (1000, 2048),
    },
    "resnet101": {
        "layer3.22.conv2.weight": (256, 256, 3, 3),
        "layer1.0.downsample.1.running_mean": (256,),
    },
}

OTHER_NAMES = {  # the first and the last of the files of packages
    "efficientnet_lite0": {
        "_conv_stem.weight": (32, 3, 3, 3),
        "_blocks.0._depthwise_conv.weight": (32, 1, 3, 3),
        "_blocks.1._expand_conv.weight": (96, 16, 1, 1),
        "_blocks.15._bn2.running_var": (320,),
    },
    "efficientnet_lite0_head": {
        "_conv_head.weight": (1280, 320, 1, 1),
        "_bn1.running_var": (1280,),
        "_fc.weight": (1000, 1280),
    },
}


def random(like):
    """A tree of small arrays that are all different, seen as arrays of the shapes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    return structure.unflatten(
        [np.arange(i, x.size + i, dtype=np.float32).reshape(x.shape) for i, x in enumerate(leaves)]
    )


@pytest.fixture(scope="module", params=sorted(COUNTS))
def network(request):
    """Name, source, weights of ours, and the same under the names of the public file."""
    source = frozen.NETWORKS[request.param]
    ours = random(source.like())
    return request.param, source, ours, to_theirs(source.table, ours)


def test_every_network_is_listed():
    # 304 M parameters each: in tests/test_clip.py and test_dinov2.py, as smaller networks.
    assert {*COUNTS, "clip", "dinov2"} == set(frozen.NETWORKS)


def test_parameters(network):
    name, _, ours, _ = network
    assert sum(x.size for x in jax.tree.leaves(ours["params"])) == COUNTS[name]


def test_names_are_those_of_the_public_files(network):
    name, _, _, theirs = network
    assert len(theirs) == TENSORS[name]
    for key, shape in NAMES[name].items():
        assert theirs[key].shape == shape


def test_weights_arrive_and_return_bit_for_bit(network):
    _, source, ours, theirs = network
    again = to_ours(source.table, theirs, source.like(), source.ignored)
    assert jax.tree.structure(again) == jax.tree.structure(ours)
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(ours), strict=True):
        np.testing.assert_array_equal(x, y)


def test_what_is_missing_or_unknown_is_refused(network):
    name, source, _, theirs = network
    key = next(iter(NAMES[name]))
    with pytest.raises(InputError, match="is missing"):
        to_ours(
            source.table,
            {k: x for k, x in theirs.items() if k != key},
            source.like(),
            source.ignored,
        )
    with pytest.raises(InputError, match="extra.weight is no name of a weight of it"):
        to_ours(
            source.table, {**theirs, "extra.weight": np.zeros(1)}, source.like(), source.ignored
        )


def test_a_file_of_another_network_is_called_by_its_name(network):
    """And a file of ours; what is nearly right is listed name by name."""
    name, _, ours, theirs = network
    other = "lpips" if name != "lpips" else "vgg16"
    said = other_files.described(other, theirs)
    key = next(iter(theirs))
    assert said.startswith("it lacks ") and key in said.split(", and has ")[1]
    found = said.split("it seems to be of ")[1].split(" or ")
    assert name in found and set(found) <= {name, *(x for x in COUNTS if x[:6] == name[:6])}
    converted = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(ours)}
    assert "converted already" in other_files.described(other, converted)
    assert other_files.described(name, {k: x for k, x in theirs.items() if k != key}) == ""
    assert "seems" not in other_files.described(name, {"mine": np.zeros(1)})


def test_every_network_with_other_names_is_listed():
    assert set(OTHER_NAMES) == {name for name, one in frozen.NETWORKS.items() if one.also}


@pytest.mark.parametrize("name", sorted(OTHER_NAMES))
def test_weights_of_other_names_arrive_and_return_bit_for_bit(name):
    source = frozen.NETWORKS[name]
    ours = random(source.like())
    theirs = to_theirs(source.also, ours)
    assert len(theirs) == TENSORS[name]
    for key, shape in OTHER_NAMES[name].items():
        assert theirs[key].shape == shape
    both = [*source.table, *source.also]
    again = to_ours(both, theirs, source.like(), source.ignored)
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(ours), strict=True):
        np.testing.assert_array_equal(x, y)
    key = next(iter(OTHER_NAMES[name]))
    mixed = theirs | {key.removeprefix("_"): theirs[key]}
    with pytest.raises(InputError, match="is set twice"):
        to_ours(both, mixed, source.like(), source.ignored)
    theirs.pop(key)
    with pytest.raises(InputError, match="is missing"):
        to_ours(both, theirs, source.like(), source.ignored)


def test_a_network_and_its_head_are_the_whole_file_under_either_names():
    trunk, head = (
        frozen.NETWORKS[name] for name in ("efficientnet_lite0", "efficientnet_lite0_head")
    )
    for kind in ("table", "also"):
        parts = [to_theirs(getattr(one, kind), random(one.like())) for one in (trunk, head)]
        whole = parts[0] | parts[1] | {"_blocks.0._bn1.num_batches_tracked": np.zeros(())}
        for one in (trunk, head):
            to_ours([*one.table, *one.also], whole, one.like(), one.ignored)


@pytest.mark.parametrize(
    "name, extra",
    [
        ("efficientnet_lite0", ["conv_head.weight", "bn2.running_mean", "classifier.bias"]),
        ("efficientnet_lite0", ["_conv_head.weight", "_bn1.running_mean", "_fc.bias"]),
        ("efficientnet_lite0_head", ["conv_stem.weight", "bn1.bias", "blocks.0.0.bn1.weight"]),
        ("efficientnet_lite0_head", ["_conv_stem.weight", "_bn0.bias", "_blocks.0._bn1.weight"]),
        ("vgg16", ["classifier.0.weight", "classifier.6.bias"]),
        (
            "inception",
            [
                "AuxLogits.conv0.conv.weight",
                "AuxLogits.fc.bias",
                "Mixed_5b.branch1x1.bn.num_batches_tracked",
            ],
        ),
        ("resnet50", ["bn1.num_batches_tracked", "layer1.0.downsample.1.num_batches_tracked"]),
    ],
)
def test_known_weights_that_nobody_wants_are_left_out(name, extra):
    ignored = frozen.NETWORKS[name].ignored
    assert all(any(re.search(pattern, key) for pattern in ignored) for key in extra)
    source = frozen.NETWORKS[name]
    for table in (source.table, source.also):
        wanted = to_theirs(table, random(source.like())) if table else {}
        assert not [key for key in wanted if any(re.search(pattern, key) for pattern in ignored)]


def test_the_package_of_lpips_is_its_distance():
    image = jnp.zeros((1, 16, 16, 3))
    like = jax.eval_shape(lpips.Distance().init, jax.random.key(0), image, image)["frozen"]
    ours = random(like)
    theirs = to_theirs(lpips_table.LPIPS_PACKAGE, ours)
    for path in files("*lpips*.npz"):
        config, _, _, _ = load(path)
        recorded = {
            k: s for k, (s, _) in config["shapes"].items() if not k.startswith("scaling_layer.")
        }
        assert {key: list(x.shape) for key, x in theirs.items()} == recorded
    aliases = {
        key.replace("lin", "lins.", 1): x for key, x in theirs.items() if key.startswith("lin")
    }
    constants = {
        "scaling_layer.shift": np.zeros((1, 3, 1, 1)),
        "scaling_layer.scale": np.ones((1, 3, 1, 1)),
    }
    again = to_ours(
        lpips_table.LPIPS_PACKAGE,
        {**theirs, **aliases, **constants},
        like,
        lpips_table.LPIPS_PACKAGE_IGNORED,
    )
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(ours), strict=True):
        np.testing.assert_array_equal(x, y)
    trunk, heads = (frozen.NETWORKS[name].like() for name in ("vgg16", "lpips"))
    assert jax.tree.map(lambda x: x.shape, like) == jax.tree.map(
        lambda x: x.shape, {"trunk": trunk, "heads": heads}
    )
