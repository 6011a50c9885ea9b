"""timm's tf_efficientnet_lite0 -> `evqgan.nn.efficientnet.Network`."""

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


def table(stem: Sequence[str], groups: Sequence[str], at: str = "") -> list[Row]:
    """Return the rows of a whole network but its head.

    stem: the names of the stem's convolution and norm.
    groups: the names of the seven groups of blocks, such as "blocks.0" or "layer1.0"; a block is
        one number more.
    at: what the paths begin with, such as "frozen/x/".
    """
    rows = [
        Row(f"{stem[0]}.weight", f"{at}params/stem/conv/kernel", "conv"),
        *norm(stem[1], "stem/norm", at),
    ]
    for i, (group, prefix) in enumerate(zip(GROUPS, groups, strict=True)):
        # timm counts a block's batch norms. Its name of the last convolution tells whether there
        # is a first one.
        parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if group.expansion == 1:
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for number, (ours, theirs) in enumerate(parts.items(), 1):
            path = f"group{i}_block{{j}}/{ours}"
            kernel = f"{at}params/{path}/conv/kernel"
            rows.append(Row(f"{prefix}.{{j}}.{theirs}.weight", kernel, "conv"))
            rows += norm(f"{prefix}.{{j}}.bn{number}", f"{path}/norm", at)
    return rows


TABLE = table(("conv_stem", "bn1"), [f"blocks.{i}" for i in range(len(GROUPS))])
IGNORED = (r"^conv_head\.", r"^bn2\.", r"^classifier\.", r"\.num_batches_tracked$")
