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

    Of a card that is much like the first one, the text says where it differs. Rows of a table
    without cards stay as they are.
    """
    texts = [described(row["card"]) if "card" in row else "" for row in rows]
    cards = {text: row["card"] for row, text in zip(rows, texts, strict=True) if text}
    number = {text: f"[{i}]" for i, text in enumerate(cards, 1)}
    shown = [
        {**row, "card": number[text]} if text else dict(row)
        for row, text in zip(rows, texts, strict=True)
    ]
    lines = [(text, beside(card, next(iter(cards.values())))) for text, card in cards.items()]
    return shown, "".join(f"\n{number[text]} {short or text}" for text, short in lines)


def beside(card: Any, first: Any) -> str:
    """Return where a card differs from the first one of a table, or "" if it is little like it."""
    here, there = places(card), places(first)
    differ = [place for place in {**there, **here} if here.get(place) != there.get(place)]
    words = [f"{place}: {described(here.get(place)) or 'none'}" for place in differ]
    alike = 0 < len(differ) < len(there) / 2
    return f"as [1], but {'; '.join(words)}" if alike else ""


def places(card: Any, name: str = "") -> dict[str, Any]:
    """Return what stands in a card by its place, such as "produced.sampler.steps"."""
    if not isinstance(card, Mapping):
        return {name: card}
    found: dict[str, Any] = {}
    for key, value in card.items():
        found |= places(value, f"{name}.{key}".lstrip("."))
    return found


def described(value: Any) -> str:
    """Return a card as one line."""
    if isinstance(value, Mapping):
        pairs = ((key, described(entry)) for key, entry in value.items())
        return "; ".join(f"{key}: {text}" for key, text in pairs if text)
    if isinstance(value, list | tuple):
        nested = any(isinstance(entry, Mapping) for entry in value)
        return ", ".join(f"({described(x)})" if nested else described(x) for x in value)
    return "" if value is None else str(value)
