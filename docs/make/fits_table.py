"""Write what `benchmark fits` found as a page: which full-size configs fit on which accelerators.

python -m docs.make.fits_table docs/fits.md
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from evqgan.benchmark.fits import CONFIGS, TOPOLOGIES

FOUND = pathlib.Path(__file__).parent.parent / "measurements" / "fits.json"
HEAD = """# Which configs fit on which accelerators

Made by `python -m docs.make.fits_table docs/fits.md` from
[measurements/fits.json](measurements/fits.json), to which `python -m evqgan.benchmark fits
--json=docs/measurements/fits.json` adds a row for each full-size config and accelerator that it has
not: compiled, not run. What the columns are: [accelerators.md](accelerators.md).

Keys of `config` that were changed stand behind its name; generators take stored ids
(`--config.dataset.codes`) but for RQ-Transformers, which encode images. Memory is of a device, in
GiB; TFLOP, collectives and their GB are of a step on a device; the time is without collectives.
"""
COLUMNS = (
    *("config", "mode", "mesh", "images", "fits", "peak", "of", "state", "TFLOP", "time", "MFU"),
    *("collectives", "GB"),
)
NEEDED = re.compile(r"total memory required for HLO temporaries \(([\d.]+)G\)")


def page(rows: Iterable[dict[str, Any]]) -> str:
    """Return the page for rows of `benchmark fits`: a table for each accelerator."""
    rows = list(rows)
    known = [row for row in rows if row["fits"] is not None]
    parts = [HEAD]
    for topology in TOPOLOGIES:
        here = sorted((row for row in known if row["topology"] == topology), key=place)
        done = {row["config"] for row in here if row["mode"] == "train"}
        parts.append(f"## {topology}\n")
        if here:
            lines = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, here)]
            parts.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
        for row in rows:
            if row["topology"] == topology and row["fits"] is None:
                parts.append(f"`{row['config']}` was refused: {row['note']}.\n")
                done.add(row["config"])
        left = ", ".join(f"`{name}`" for name in CONFIGS if name not in done)
        if left:
            which = left if here else "all"
            parts.append(f"Training steps that were not compiled yet: {which}.\n")
    return "\n".join(parts)


def place(row: dict[str, Any]) -> tuple:
    """Return where a row stands: by its config, as in CONFIGS, with nothing changed in front."""
    order = CONFIGS.index(row["config"]) if row["config"] in CONFIGS else len(CONFIGS)
    return order, row["mode"] != "train", len(changed(row))


def changed(row: dict[str, Any]) -> list[str]:
    """Return the keys that a row's config was given, but for the stored ids."""
    keys = [key.removeprefix("--config.") for key in row["changes"].split()]
    return [key for key in keys if not key.startswith("dataset.codes=")]


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a row; empty where the compiler gave up."""
    name = ", ".join(f"`{text}`" for text in (row["config"], *changed(row)))
    needed, peak = NEEDED.search(row["note"]), number(row["peak_gib"], 2)
    time = row["ms"] and (
        f"{row['ms']:,.0f} ms" if row["ms"] < 1000 else f"{row['ms'] / 1e3:.1f} s"
    )
    return (
        *(name, row["program"] if row["mode"] != "train" else "train", row["mesh"]),
        *(f"{row['images']:,}", "yes" if row["fits"] else "**no**"),
        peak or (f"{needed[1]} of temporaries" if needed else ""),
        *(number(row["memory_gib"], 2), number(row["state_gib"], 2), f"{row['tflop']:,.3g}"),
        *(time or "", f"{row['mfu']:.1%}" if row["mfu"] else "", number(row["collectives"], 0)),
        f"{row['gb']:,.3g}" if row["gb"] is not None else "",
    )


def number(value: float | None, digits: int) -> str:
    """Return a number with so many digits behind the point; "" for None."""
    return "" if value is None else f"{value:,.{digits}f}"


def main(argv: list[str] | None = None) -> None:
    """Write the page into the file that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=pathlib.Path, help="such as docs/fits.md")
    given = parser.parse_args(argv)
    given.file.write_text(page(json.loads(FOUND.read_text())["rows"]))


if __name__ == "__main__":
    sys.exit(main())
