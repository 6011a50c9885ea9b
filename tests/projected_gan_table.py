"""Projected GAN's discriminator, by its PyTorch names -> `evqgan.losses.projected.Critic`."""

from evqgan.convert import efficientnet
from evqgan.convert.efficientnet import norm
from evqgan.convert.mapping import Row

STEM = ("layer0.0", "layer0.1")
GROUPS = ("layer0.3", "layer0.4", "layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer3.1")
IGNORED = (r"\.num_batches_tracked$",)


def spectral(theirs, ours):
    """Rows of a convolution with spectral norm (torch.nn.utils.spectral_norm)."""
    return [
        Row(f"{theirs}.weight_orig", f"params/{ours}/kernel", "conv"),
        Row(f"{theirs}.bias", f"params/{ours}/bias"),
        Row(f"{theirs}.weight_u", f"batch_stats/{ours}/u"),
        Row(f"{theirs}.weight_v", f"batch_stats/{ours}/v"),
    ]


def table(critic):
    """critic: a `Critic` -> rows for the names that it has there, and some that others have."""
    stem, groups = (
        [f"feature_network.pretrained.{name}" for name in names] for names in (STEM, GROUPS)
    )
    rows = efficientnet.table(stem, groups, "frozen/backbone/")
    for theirs, ours in (("layer{i}_ccm", "ccm{i}"), ("layer{i}_csm.out_conv", "csm{i}")):
        rows.append(
            Row(
                f"feature_network.scratch.{theirs}.weight",
                f"frozen/projections/{ours}/kernel",
                "conv",
            )
        )
        rows.append(
            Row(f"feature_network.scratch.{theirs}.bias", f"frozen/projections/{ours}/bias")
        )
    for i, widths in enumerate(critic.widths()):
        theirs, ours = f"discriminator.mini_discs.{i}", f"head_{i}"
        rows += down(
            f"{theirs}.main.{{j}}.main", f"{ours}/down{{j}}", critic.separable, critic.patch
        )
        rows += spectral(
            f"{theirs}.cls" if critic.cond else f"{theirs}.main.{len(widths)}", f"{ours}/out"
        )
        rows.append(Row(f"{theirs}.embed.weight", f"params/{ours}/embedding/embedding"))
        rows.append(Row(f"{theirs}.embed_proj.0.weight", f"params/{ours}/weight/kernel", "dense"))
        rows.append(Row(f"{theirs}.embed_proj.0.bias", f"params/{ours}/weight/bias"))
    return rows


def down(theirs, ours, separable, patch):
    """Rows of one `Down`."""
    rows = []
    if patch:
        rows += spectral(f"{theirs}.1", f"{ours}/conv2") + norm(f"{theirs}.2", f"{ours}/norm2")
        theirs = f"{theirs}.0.main"
    if separable:
        rows += spectral(f"{theirs}.0.depthwise", f"{ours}/depthwise")
        rows += spectral(f"{theirs}.0.pointwise", f"{ours}/pointwise")
    else:
        rows += spectral(f"{theirs}.0", f"{ours}/conv")
    return rows + norm(f"{theirs}.1", f"{ours}/norm")
