"""Rows as a table in text, and below it what they were measured on."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows, dicts with the same keys, as aligned text."""
    names = list(rows[0])
    cells = [names, *([text(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    pairs = (zip(line, widths, strict=True) for line in cells)
    return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in pairs)


def text(value: Any) -> str:
    """Return a number with four digits, or with all that a whole one has; "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def numbered(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Return rows with numbers in the place of cards, and the text of the cards below a table.

    Rows of a table without cards stay as they are.
    """
    texts = [described(row["card"]) if "card" in row else "" for row in rows]
    of_rows = [text for text in dict.fromkeys(texts) if text]
    number = {text: f"[{i}]" for i, text in enumerate(of_rows, 1)}
    shown = [
        {**row, "card": number[text]} if text else dict(row)
        for row, text in zip(rows, texts, strict=True)
    ]
    return shown, "".join(f"\n{number[text]} {text}" for text in of_rows)


def described(value: Any) -> str:
    """Return a card as one line."""
    if isinstance(value, Mapping):
        pairs = ((key, described(entry)) for key, entry in value.items())
        return "; ".join(f"{key}: {text}" for key, text in pairs if text)
    if isinstance(value, list | tuple):
        nested = any(isinstance(entry, Mapping) for entry in value)
        return ", ".join(f"({described(x)})" if nested else described(x) for x in value)
    return "" if value is None else str(value)
