"""Write what `benchmark fits` found as a page: which full-size configs fit on which accelerators.

python -m docs.make.fits_table docs/fits.md
"""

import argparse
import pathlib
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable

from evqgan.benchmark.fits import CONFIGS, TOPOLOGIES, Row, earlier
from evqgan.core import cli

FOUND = pathlib.Path(__file__).parent.parent / "measurements" / "fits.json"
HEAD = """# Which configs fit on which accelerators

Made by `python -m docs.make.fits_table docs/fits.md` from
[measurements/fits.json](measurements/fits.json), to which `python -m evqgan.benchmark fits
--json=docs/measurements/fits.json` adds a row for each full-size config and accelerator that it has
not: compiled, not run. What the columns are: [accelerators.md](accelerators.md).

Keys of `config` that were changed stand behind its name; generators take stored ids
(`--config.dataset.codes`) but for RQ-Transformers, which encode images. Memory is of a device, in
GiB; TFLOP, collectives and their GB are of a step on a device; the time is without collectives.
Hours of whole trainings on v5e-16 and on 8 H100, estimated, stand at the heads of our own configs.
"""
WIDTH = 120  # columns of a line of text
NEEDED = re.compile(r"total memory required for HLO temporaries \(([\d.]+)G\)")
USED = re.compile(r"Used ([\d.]+)G of [\d.]+G hbm")


def page(rows: Iterable[Row]) -> str:
    """Return the page for rows of `benchmark fits`: a table for each accelerator."""
    rows = list(rows)
    parts = [HEAD]
    others = dict.fromkeys(row.topology for row in rows if row.topology not in TOPOLOGIES)
    for topology in (*TOPOLOGIES, *others):
        here = [row for row in rows if row.topology == topology]
        known = sorted((row for row in here if row.fits is not None), key=place)
        refused = [row for row in here if row.fits is None]
        parts.append(f"## {topology}\n")
        if known:
            parts.append(table(known))
        parts += [wrapped(f"`{row.config}` was refused: {row.note}.") for row in refused]
        trained = (row for row in here if row.mode == "train" and not changed(row))
        done = {row.config for row in trained}
        left = ", ".join(f"`{name}`" for name in CONFIGS if name not in done)
        if left and topology not in others:
            which = left if known else "all"
            parts.append(wrapped(f"Training steps that were not compiled yet: {which}."))
    return "\n".join(parts)


def wrapped(text: str) -> str:
    """Return a paragraph in lines of WIDTH columns, and an end of a line."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def place(row: Row) -> tuple[int, bool, int]:
    """Return where a row stands: by its config, as in CONFIGS, with nothing changed in front."""
    order = CONFIGS.index(row.config) if row.config in CONFIGS else len(CONFIGS)
    return order, row.mode != "train", len(changed(row))


def table(rows: Iterable[Row]) -> str:
    """Return the table of rows that were compiled."""
    lines = [[*COLUMNS], ["---"] * len(COLUMNS)]
    lines += [[cell(row) for cell in COLUMNS.values()] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def name(row: Row) -> str:
    """Return the config of a row, with its keys that were changed."""
    return ", ".join(f"`{text}`" for text in (row.config, *changed(row)))


def changed(row: Row) -> list[str]:
    """Return the keys that a row's config was given, but for the stored ids."""
    keys = [key.removeprefix("--config.") for key in shlex.split(row.changes)]
    return [key for key in keys if not key.startswith("dataset.codes=")]


def peak(row: Row) -> str:
    """Return the peak of memory; where the compiler gave up, what it says that it would need."""
    needed, used = NEEDED.search(row.note), USED.search(row.note)
    if needed and row.peak_gib is None:
        return f"{needed[1]} of temporaries"
    return number(row.peak_gib, ",.2f") or (used[1] if used else "")


def time(row: Row) -> str:
    """Return the time of a step."""
    is_long = row.ms is not None and row.ms >= 1000
    return number(row.ms, ",.1f", 1e-3, " s") if is_long else number(row.ms, ",.0f", 1, " ms")


def number(value: float | None, form: str, times: float = 1, unit: str = "") -> str:
    """Return so many times a number in a form such as ",.2f", with its unit; "" for None."""
    return "" if value is None else f"{times * value:{form}}{unit}"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "config": name,
    "mode": lambda row: "train" if row.mode == "train" else str(row.program),
    "mesh": lambda row: str(row.mesh),
    "images": lambda row: number(row.images, ","),
    "fits": lambda row: "yes" if row.fits else "**no**",
    "peak": peak,
    "of": lambda row: number(row.memory_gib, ",.2f"),
    "state": lambda row: number(row.state_gib, ",.2f"),
    "TFLOP": lambda row: number(row.tflop, ",.3g"),
    "time": time,
    "MFU": lambda row: number(row.mfu, ".1%"),
    "collectives": lambda row: number(row.collectives, ","),
    "GB": lambda row: number(row.gb, ",.3g"),
}


def main(argv: list[str]) -> None:
    """Write the page into the file that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=pathlib.Path, help="such as docs/fits.md")
    given = parser.parse_args(argv)
    given.file.write_text(page(earlier(str(FOUND))))


if __name__ == "__main__":
    sys.exit(cli.run_to_code(sys.argv[1:], main))
