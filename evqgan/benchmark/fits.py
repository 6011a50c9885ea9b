"""Which configs fit on which accelerators: `evqgan.main --compile_only` of each, as a table.

Every row is compiled in a process of its own: one that crashes or takes too long loses itself
alone. With --json=FILE each row is written as it comes, and rows that FILE has are not compiled
again, but for those that were given up after --minutes. A generator takes stored ids where it can,
as long trainings do. A training step takes a TPU's compiler one to ten minutes on two quiet cores,
a few of them up to an hour.
"""

import json
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from evqgan.aot import programs, report, topology
from evqgan.core import files, schema, scratch
from evqgan.core.cli import CONFIG_KEYS, TEXT, Flag, choice, whole
from evqgan.core.config_files import override, read_file
from evqgan.core.errors import InputError
from evqgan.core.progress import heartbeat
from evqgan.core.space import GIB

# Ours: a choice of accelerators, for each takes hours of compiling.
TOPOLOGIES = ("v4-8", "v5e-8", "v5e-16", "v5e-256", "v6e-8")
CONFIGS = (
    "imagenet_stage2",
    "imagenet_stage2:512",
    "imagenet_stage2:vqgan",
    "ffhq_stage2",
    "ffhq_stage2:1024",
    "ffhq_stage2:vqgan",
    "celebahq_stage2",
    "maskgit_imagenet_stage2",
    "maskgit_imagenet_stage2:512",
    "vqgan_ffhq_stage2",
    "vqgan_ffhq_stage2:1024",
    "vqgan_imagenet_stage2",
    "vim_imagenet_stage2",
    "vim_imagenet_stage2:large",
    "vim_ffhq_stage2",
    "rqtransformer_ffhq_stage2",
    "rqtransformer_imagenet_stage2",
    "rqtransformer_imagenet_stage2:800m",
    "rqtransformer_imagenet_stage2:1400m",
    "rqtransformer_imagenet_stage2:3800m",
    "imagenet_stage1",
    "imagenet_stage1:f8",
    "imagenet_stage1:512",
    "imagenet_stage1:plus",
    "ffhq_stage1",
    "ffhq_stage1:f8",
    "ffhq_stage1:1024",
    "celebahq_stage1",
    "maskgit_imagenet_stage1",
    "maskgit_imagenet_stage1:512",
    "rqvae_imagenet_stage1",
    "rqvae_ffhq_stage1",
    "vitvqgan_imagenet_stage1",
    "vitvqgan_imagenet_stage1:small",
    "vitvqgan_imagenet_stage1:large",
    "vitvqgan_ffhq_stage1",
    "vqgan_imagenet_stage1",
    "vqgan_imagenet_stage1:1024",
    "vqgan_imagenet_stage1:gumbel",
    "vqgan_ffhq_stage1",
)

FLAGS = (
    Flag("topology", TEXT, (), f"several times ({', '.join(TOPOLOGIES)})", repeated=True),
    Flag("config", TEXT, (), "FILE[:variant]; several times (all of full size)", repeated=True),
    CONFIG_KEYS,
    Flag("mode", choice("train", "sample", "evaluate"), (), "whose programs (train)", "train"),
    Flag("minutes", whole(1), (), "after which a row is given up (60)", 60),
)

# Stored ids instead of images; the folder need not be there, as nothing is read.
STORED_IDS = "--config.dataset.codes=IDS"

# How the note of a row begins that took longer than --minutes, or whose process was ended.
GIVEN_UP, CRASHED = "given up", "crashed"


class Row(NamedTuple):
    """What was asked, and what came of it: a program in the columns of the table.

    Sizes, TFLOP, collectives and their GB are of a device and of one call; None: not known.
    """

    config: str  # FILE[:variant]
    changes: str  # its keys that were given, as on a command line
    topology: str
    mode: str
    program: str | None = None
    images: int | None = None
    mesh: str | None = None  # such as "data 2 x fsdp 4"
    fits: bool | None = None
    peak_gib: float | None = None
    state_gib: float | None = None
    memory_gib: float | None = None
    tflop: float | None = None
    ms: float | None = None
    ms_by: str | None = None  # see `report.Row.seconds_by`
    mfu: float | None = None
    collectives: int | None = None
    gb: float | None = None
    compile_seconds: float | None = None
    note: str = ""  # why it does not fit, or was not compiled; and what to change

    @property
    def asked(self) -> tuple[str, str, str, str]:
        """What was asked."""
        return self.config, self.changes, self.topology, self.mode


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows, those of --json among them.

    Raises InputError, before anything is compiled, for accelerators, configs or keys that there are
    not: they would be rows that are never tried again.
    """
    rows = earlier(given.json)
    names, configs = given.topology or TOPOLOGIES, given.config or CONFIGS
    for name in names:
        topology.prepare(name, "--topology")
    changes = {config: changes_of(config, overrides) for config in configs}
    for config in configs:
        for name in names:
            row = Row(config, shlex.join(changes[config]), name, given.mode)
            if row.asked in [known.asked for known in rows]:
                continue
            print(f"{config} on {name}", flush=True)
            with heartbeat(f"compiling {config} on {name}"):
                rows += compiled(row, changes[config], 60 * given.minutes)
            if given.json:
                files.save_json(given.json, {"name": "fits", "rows": as_json(rows)})
            verdict = {True: "it fits", False: "it does not fit", None: "not compiled"}
            said = verdict[rows[-1].fits], rows[-1].note
            print(f"  {'; '.join(filter(None, said))}", flush=True)
    return "which programs fit, as compilers say; nothing was run", as_json(rows)


def changes_of(config: str, overrides: Sequence[str]) -> list[str]:
    """Return the keys that a config is given: `overrides`, and stored ids if it can train on them.

    A generator can, but for one of soft targets, which are drawn of images.

    Raises InputError for a config or keys that there are not, and for a config of several stages or
    systems.
    """
    changed = read_file(config)
    override(changed, overrides)
    programs.check_stage(changed)
    schema.check(changed)
    is_said = any(key.startswith("--config.dataset.codes") for key in overrides)
    can = changed.stage == "stage2" and not changed.tokenizer.get("soft") and not is_said
    return [*([STORED_IDS] if can else []), *overrides]


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as a file has them."""
    return [row._asdict() for row in rows]


def earlier(file: str | None) -> list[Row]:
    """Return the rows of the file of --json, if an earlier run wrote it; InputError for others.

    Those that were given up or crashed are left out, and so tried again: the machine may have more
    time or memory now.
    """
    if not file or not pathlib.Path(file).is_file():
        return []
    what, advice = "what benchmark fits writes", "give another --json"
    rows: Any = files.read_json(pathlib.Path(file), what, advice).get("rows")
    if not isinstance(rows, list):
        raise InputError(f"{file} is not {what}: it has no rows; {advice}")
    try:
        found = [Row(**row) for row in rows]
    except TypeError as error:
        raise InputError(f"{file} is not {what}: its rows have other columns; {advice}") from error
    return [row for row in found if not row.note.startswith((GIVEN_UP, CRASHED))]


def compiled(asked: Row, overrides: Sequence[str], seconds: float) -> list[Row]:
    """Return the rows of what is asked, which is compiled in a process of its own.

    overrides: its changes, as arguments.
    seconds: after which it is given up.
    """
    with scratch.folder() as folder:
        file = folder / "rows.json"
        command = [sys.executable, "-m", "evqgan.main", f"--config={asked.config}", *overrides]
        command += [f"--compile_only={asked.topology}", f"--mode={asked.mode}"]
        try:
            made = subprocess.run(
                [*command, f"--json={file}"],
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return [asked._replace(note=f"{GIVEN_UP} after {seconds / 60:.0f} minutes")]
        if file.is_file():
            found = json.loads(file.read_text())["rows"]
            return [flat(asked, report.Row(**row)) for row in found]
    said = [line for line in made.stderr.splitlines() if line.startswith("error: ")]
    reason = said[-1].removeprefix("error: ") if said else f"{CRASHED} with code {made.returncode}"
    return [asked._replace(note=reason)]


def flat(asked: Row, row: report.Row) -> Row:
    """Return a row of `--compile_only` as a row of the table."""
    collectives = row.collectives or {}
    is_known = row.collectives is not None
    return asked._replace(
        program=row.program,
        images=row.images,
        mesh=" x ".join(f"{name} {n}" for name, n in row.mesh.items() if n > 1) or "one",
        fits=row.fits,
        peak_gib=row.peak_bytes and row.peak_bytes / GIB,
        state_gib=row.state_bytes / GIB,
        memory_gib=row.memory_bytes / GIB,
        tflop=row.tflop,
        ms=row.seconds and 1000 * row.seconds,
        ms_by=row.seconds_by,
        mfu=row.mfu,
        collectives=sum(number for number, _ in collectives.values()) if is_known else None,
        gb=sum(size for _, size in collectives.values()) / 1e9 if is_known else None,
        compile_seconds=row.compile_seconds,
        note="; ".join(filter(None, [row.error, *row.advice])),
    )
