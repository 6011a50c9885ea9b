"""timm's tf_efficientnet_lite0 -> `evqgan.nn.efficientnet.Network`."""

from collections.abc import Sequence

from evqgan.convert.mapping import Row
from evqgan.nn.efficientnet import GROUPS


def norm(theirs: str, ours: str, at: str = "") -> list[Row]:
    """Rows of a batch norm with running statistics: names below `theirs`, paths below `at`params/`ours`."""
    return [
        Row(f"{theirs}.weight", f"{at}params/{ours}/scale"),
        Row(f"{theirs}.bias", f"{at}params/{ours}/bias"),
        Row(f"{theirs}.running_mean", f"{at}batch_stats/{ours}/mean"),
        Row(f"{theirs}.running_var", f"{at}batch_stats/{ours}/var"),
    ]


def table(stem: Sequence[str], groups: Sequence[str], at: str = "") -> list[Row]:
    """Rows for the names of the stem's convolution and norm, and of each of the seven groups of blocks.

    groups: such as "blocks.0" or "layer1.0"; a block is one number more. at: the paths begin with it ("frozen/x/").
    """
    rows = [
        Row(f"{stem[0]}.weight", f"{at}params/stem/conv/kernel", "conv"),
        *norm(stem[1], "stem/norm", at),
    ]
    for i, (group, prefix) in enumerate(zip(GROUPS, groups, strict=True)):
        # timm counts a block's batch norms, and names the last convolution by whether there is a first one.
        parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if group.expansion == 1:
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for number, (ours, theirs) in enumerate(parts.items(), 1):
            path = f"group{i}_block{{j}}/{ours}"
            rows.append(
                Row(f"{prefix}.{{j}}.{theirs}.weight", f"{at}params/{path}/conv/kernel", "conv")
            )
            rows += norm(f"{prefix}.{{j}}.bn{number}", f"{path}/norm", at)
    return rows


TABLE = table(("conv_stem", "bn1"), [f"blocks.{i}" for i in range(len(GROUPS))])
IGNORED = (r"^conv_head\.", r"^bn2\.", r"^classifier\.", r"\.num_batches_tracked$")
