"""The form of a table of the paper: its rows beside ours, and each row with its card."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evqgan.benchmark.paper.published import Table
from evqgan.evals import provenance

Row = dict[str, Any]
OURS = "measured here"
FID = ("fid", "rfid", "inception_score")  # what these names say is of Inception's features


def beside(table: Table, measured: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of the paper's table, and below them those that were measured here.

    measured: rows; their columns come after the paper's, and all rows have all of them.

    Raises ValueError for a row without a card, and for a FID that is not of Inception's features.
    """
    card = {"source": f"paper, {table.name}", **table.card}
    printed = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    rows = [{"from": f"paper, {table.name}", **row, "card": card} for row in printed]
    return aligned([*rows, *({"from": OURS, **row} for row in measured)])


def aligned(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return rows that all have the same columns, the card last; ValueError as of `beside`."""
    names = dict.fromkeys(name for row in rows for name in row if name != "card")
    for row in rows:
        check(row)
    return [{**{name: row.get(name) for name in names}, "card": row["card"]} for row in rows]


def check(row: Mapping[str, Any]) -> None:
    """Raise ValueError for a row without a card, and for a FID that is not of Inception's."""
    card = row.get("card")
    if not card:
        raise ValueError(f"a row without its card: {dict(row)}")
    if row.get("from") != OURS or all(row.get(name) is None for name in FID):
        return
    networks = {entry["name"]: entry["weights"] for entry in card.get("features", ())}
    weights = networks.get("inception")
    if not weights or "random" in weights.values():
        raise ValueError(f"a FID that is not of Inception's trained features: {dict(row)}")


def card_of(dtype: str, **more: Any) -> dict[str, Any]:
    """Return the card of numbers that no trained model is behind. dtype: of the computation."""
    return {**more, "run": dataclasses.asdict(provenance.run_card(dtype))}
