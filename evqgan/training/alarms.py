"""What the numbers of a run warn of: steps that were skipped, and a number that falls."""

import math
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from evqgan.core import cards, stores
from evqgan.core.errors import NonFinite
from evqgan.core.metric_lines import parsed


def check_skipped(step: int, metrics: Mapping[str, Any], last_reported: int, limit: int) -> str:
    """Return a one-line warning if steps were skipped since the last report, otherwise "".

    Steps are skipped as not finite (`training.skipping`).

    metrics: host scalars {name: scalar} of `step`.
    last_reported: the number of skipped steps that were reported already.
    limit: how many in a row end the run.

    Raises NonFinite, one line that says what was not finite and what to do, when at any time
    `limit` steps in a row were.
    """
    now, total, longest = (
        int(metrics[f"train/skipped{name}"]) for name in ("_in_a_row", "", "_longest")
    )
    if total <= last_reported:
        return ""
    wrong = [f"{name} = {value}" for name, value in metrics.items() if not math.isfinite(value)]
    what = ", ".join(wrong) if now else "a step before this one was not finite"
    counts = (
        f"{total - last_reported:,} since the last line, {longest:,} in a row, {total:,} in all"
    )
    what = f"step {step:,}: {what}; skipped {counts}"
    if longest >= limit:
        raise NonFinite(
            f"stopped at {what}. Weights are as before these steps, checkpoints untouched: begin a "
            "new run in another --workdir, by --config.init=WORKDIR from the last one of these, "
            "with a lower learning rate, a longer warm-up, stronger gradient clipping or dtype "
            "float32"
        )
    return what


# {(a number's name, how it was measured): its largest value so far}; see `cards.measurements`, ""
# where that is not known.
Highest = dict[tuple[str, str], float]


def highest(workdir: str | os.PathLike[str], names: Collection[str]) -> Highest:
    """Return the highest of these metrics in a workdir's metrics.jsonl.

    Metrics that the file has not are left out, and so are damaged lines, which a Writer refuses.
    """
    path = stores.path(workdir) / "metrics.jsonl"
    found: Highest = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        values = parsed(line) or {}
        watched = {name: x for name, x in values.items() if name in names and is_number(x)}
        how = cards.measurements(cards.of_step(workdir, values["step"])) if watched else {}
        for name, value in watched.items():
            kind = name, how.get(name, "")
            found[kind] = max(value, found.get(kind, value))
    return found


def is_number(value: Any) -> bool:
    """Return whether a value of metrics.jsonl is a number, and not null."""
    return isinstance(value, int | float)


def alarms(
    step: int,
    numbers: Mapping[str, float],
    measured: Mapping[str, str],
    best: Highest,
    shares: Mapping[str, float],
) -> Iterator[str]:
    """Yield a line for each number that fell below its share of its best: a codebook collapses.

    It is compared with numbers that were measured alike.

    numbers: {name: value}.
    measured: {name: how it was}, of `cards.measurements`.
    best: it is brought up to date.
    shares: {name: share}, which numbers to watch.
    """
    for name, share in shares.items():
        if name not in numbers:
            continue
        kind, value = (name, measured.get(name, "")), numbers[name]
        if value < share * best.get(kind, 0):
            yield f"ALARM at step {step:,}: {name} fell to {value:.4g}, it was {best[kind]:.4g}"
        best[kind] = max(best.get(kind, value), value)
