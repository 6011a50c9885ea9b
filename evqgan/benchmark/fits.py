"""Which configs fit on which accelerators: `evqgan.main --compile_only` of each, as a table.

Every row is compiled in a process of its own: one that crashes or takes too long loses itself
alone. With --json=FILE each row is written as it comes, and rows that FILE has are not compiled
again. A training step of stage 2 takes a TPU's compiler one to three minutes.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from evqgan.aot import topology
from evqgan.core import files
from evqgan.core.cli import CONFIG_KEYS, TEXT, Flag, choice, whole
from evqgan.core.errors import InputError
from evqgan.core.space import GIB

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
    Flag("topology", TEXT, (), "of the devices; several times (five from v4-8)", repeated=True),
    Flag("config", TEXT, (), "FILE[:variant]; several times (all of full size)", repeated=True),
    CONFIG_KEYS,
    Flag("mode", choice("train", "sample", "evaluate"), (), "whose programs (train)", "train"),
    Flag("minutes", whole(1), (), "after which a row is given up (60)", 60),
)
ASKED = ("config", "changes", "topology", "mode")
FOUND = (
    *("program", "images", "mesh", "fits", "peak_gib", "state_gib", "memory_gib", "tflop", "ms"),
    *("ms_by", "mfu", "collectives", "gb", "compile_seconds", "note"),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows, those of --json among them."""
    rows = earlier(given.json)
    for config in given.config or CONFIGS:
        for name in given.topology or TOPOLOGIES:
            topology.prepare(name)
            asked = dict(zip(ASKED, (config, " ".join(overrides), name, given.mode), strict=True))
            if any(asked.items() <= row.items() for row in rows):
                continue
            print(f"{config} on {name}", flush=True)
            rows += [{**asked, **row} for row in compiled(asked, overrides, 60 * given.minutes)]
            if given.json:
                files.save_json(given.json, {"name": "fits", "rows": rows})
            print(f"  {rows[-1]['fits']}, {rows[-1]['note']}", flush=True)
    return "which programs fit, as compilers say; nothing was run", rows


def earlier(file: str | None) -> list[dict[str, Any]]:
    """Return the rows of the file of --json, if an earlier run wrote it."""
    if not file or not pathlib.Path(file).is_file():
        return []
    what, advice = "what benchmark fits writes", "give another --json"
    rows: Any = files.read_json(pathlib.Path(file), what, advice).get("rows")
    if not isinstance(rows, list):
        raise InputError(f"{file} is not {what}: it has no rows; {advice}")
    return rows


def compiled(asked: dict[str, str], overrides: Sequence[str], seconds: float) -> list[dict]:
    """Return the rows of a config on a topology, compiled in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "rows.json"
        command = [sys.executable, "-m", "evqgan.main", f"--config={asked['config']}", *overrides]
        command += [f"--compile_only={asked['topology']}", f"--mode={asked['mode']}"]
        try:
            made = subprocess.run(
                [*command, f"--json={file}"],
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return [lost(f"given up after {seconds / 60:.0f} minutes")]
        if file.is_file():
            return [flat(row) for row in json.loads(file.read_text())["rows"]]
    said = [line for line in made.stderr.splitlines() if line.startswith("error: ")]
    reason = said[-1].removeprefix("error: ") if said else f"crashed with code {made.returncode}"
    return [lost(reason)]


def lost(reason: str) -> dict[str, Any]:
    """Return the row of what was not compiled, with the reason."""
    return {**dict.fromkeys(FOUND), "note": reason}


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `--compile_only` as a row of the table.

    Sizes are of a device, GB are of collectives of a call.
    """
    collectives = row["collectives"]
    sizes = {name: row[f"{name}_bytes"] for name in ("peak", "state", "memory")}
    return {
        "program": row["program"],
        "images": row["images"],
        "mesh": " x ".join(f"{name} {n}" for name, n in row["mesh"].items() if n > 1) or "one",
        "fits": row["fits"],
        **{f"{name}_gib": size and size / GIB for name, size in sizes.items()},
        "tflop": row["tflop"],
        "ms": row["seconds"] and 1000 * row["seconds"],
        "ms_by": row["seconds_by"],
        "mfu": row["mfu"],
        "collectives": collectives and sum(number for number, _ in collectives.values()),
        "gb": collectives and sum(size for _, size in collectives.values()) / 1e9,
        "compile_seconds": row["compile_seconds"],
        "note": "; ".join([row["error"] or "", *row["advice"]]).strip("; "),
    }
