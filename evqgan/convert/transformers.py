"""Rows of the blocks of a transformer, which are stacked here."""

from collections.abc import Sequence

from evqgan.convert.mapping import Row, norm


def block(
    at: str, norms: Sequence[str], attention: Sequence[str], mlp: Sequence[str]
) -> tuple[Row, ...]:
    """Return the rows of all layers, whose number is "{i}" in their names.

    at: the path of the blocks.
    norms: the names of the norms before attention and before the MLP.
    attention: those of the layers of queries, keys and values, and of the one after them.
    mlp: those of its two layers.
    """
    (query, key, value, out), heads = attention, f"{at}/attention"
    dense = (
        (query, f"{heads}/query", "{i}", "to_heads", "head_bias"),
        (key, f"{heads}/key_value", "{i},:,0", "to_heads", "head_bias"),
        (value, f"{heads}/key_value", "{i},:,1", "to_heads", "head_bias"),
        (out, f"{heads}/out", "{i}", "from_heads", "same"),
        (mlp[0], f"{at}/mlp/hidden", "{i}", "dense", "same"),
        (mlp[1], f"{at}/mlp/out", "{i}", "dense", "same"),
    )
    rows = [*norm(norms[0], f"{at}/norm1", "[{i}]"), *norm(norms[1], f"{at}/norm2", "[{i}]")]
    for theirs, ours, index, weight, bias in dense:
        rows.append(Row(f"{theirs}.weight", f"{ours}/kernel[{index}]", weight))
        # A bias has no axis of inputs.
        rows.append(Row(f"{theirs}.bias", f"{ours}/bias[{index.replace(':,', '')}]", bias))
    return tuple(rows)
