"""What can be done next with what a command has made: the command lines that it ends with."""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from evqgan.core import build, config_files, exported
from evqgan.core.errors import InputError
from evqgan.core.quickstart_record import LENGTH
from evqgan.data.dataset import Dataset

PROGRAM = "python -m evqgan.main"
# Keys of dataset that are not which images they are: a generator has its own.
OF_STAGE1 = ("codes", "flip", "crop", "min_scale", "workers", "classes")


def after_training(
    file: str, config: ConfigDict, workdir: pathlib.Path, keys: Sequence[str]
) -> str:
    """Return the command lines for a workdir that was trained by the config of --config=`file`.

    keys: those of the config that were given, "--config.KEY=VALUE".
    """
    place = shlex.quote(str(workdir))
    if config.stage == "quickstart":
        return after_both(file, config, workdir, keys)
    if config.stage == "stage2":
        return f"{PROGRAM} --mode=sample --workdir={place}"
    second = file.replace("stage1", "stage2")
    words, beside = [f"--config={shlex.quote(second)}"], of_stage2(second)
    if not beside:
        words = ["--config=STAGE2_FILE"]
    words += [f"--config.tokenizer.weights={place}"]
    if beside.get("tokenizer", {}).get("model"):  # of :tiny, an untrained one
        words += ["--config.tokenizer.model={}"]
    words += map(shlex.quote, same_images(config.dataset, beside.get("dataset", {})))
    names = class_names(workdir)
    if names and beside.get("generator", {}).get("classes") not in (None, 0, len(names)):
        words += [f"--config.generator.classes={len(names)}"]
    seen = f"{PROGRAM} --mode=reconstruct --workdir={place} --image=PICTURE"
    return f"{seen}, or a generator on it: {PROGRAM} {' '.join(words)}"


def class_names(workdir: pathlib.Path) -> Sequence[str]:
    """Return the names of the classes of a run's data, as training has noted them; () for none."""
    if not (workdir / "config.json").is_file():
        return ()
    return config_files.of_workdir(workdir)[0].get("class_names") or ()


def of_stage2(file: str) -> ConfigDict:
    """Return the config in a file, or an empty one where there is none of stage 2."""
    try:
        config = config_files.read_file(file)
    except InputError:
        return ConfigDict()
    return config if config.stage == "stage2" else ConfigDict()


def same_images(dataset: Mapping[str, Any], beside: Mapping[str, Any]) -> list[str]:
    """Return the keys, as they are typed, by which a config has the images of `dataset`.

    beside: what its own config.dataset says; what that does not say is as in `Dataset`.
    """
    usual = {field.name: field.default for field in dataclasses.fields(Dataset)}
    of_images = [name for name in usual if name not in OF_STAGE1]
    here, there = ({**usual, **build.plain(keys)} for keys in (dataset, beside))
    return [f"--config.dataset.{x}={here[x]}" for x in of_images if here[x] != there[x]]


def after_both(file: str, config: ConfigDict, workdir: pathlib.Path, keys: Sequence[str]) -> str:
    """Return `after_training` of both stages in one run."""
    place = shlex.quote(str(workdir))
    own = f"{PROGRAM} --config=configs/folder.py --config.dataset.folder=FOLDER"
    more = f"{PROGRAM} --mode=sample --workdir={place} --num=64 --out={place}/more"
    if folder := config.generator.dataset.get("folder"):
        again = [key for key in keys if not LENGTH.match(key)]  # or it is another run
        words = [f"--config={file}", *again, f"--workdir={workdir}"]
        own = f'{PROGRAM} {shlex.join(words)} --config.duration="NUMBER steps"'
    what = "longer training" if folder else "your own pictures"
    return f"see {place}/edits.png; more samples: {more}; {what}: {own}"


def after_samples(
    config: ConfigDict, workdir: pathlib.Path, out: pathlib.Path | None, step: Any = None
) -> str:
    """Return what to look at, and what can be done next, once there are samples in `out`.

    step: of the checkpoint, as it was given.
    """
    at = "" if step is None else f" --step={step}"
    place, there = shlex.quote(str(workdir)), out or exported.results(workdir) / "samples"
    label = " --label=CLASS" if config.generator.get("classes", 0) else ""
    fills = build.module("generators", config.generator.name, "config.generator.name").TRAITS.fills
    where = "--box=LEFT,TOP,RIGHT,BOTTOM" if fills == "any" else "--outpaint=0,0,0,BOTTOM"
    edit = f"--mode=edit --workdir={place}{at} --image=PICTURE {where}{label}"
    measured = out or exported.is_one(exported.find(workdir))  # whose data may not be here
    numbers = "" if measured else f"; numbers: {PROGRAM} --mode=evaluate --workdir={place}{at}"
    grid = shlex.quote(str(there / "grid.png"))
    return f"see {grid}{numbers}; edits: {PROGRAM} {edit}"
