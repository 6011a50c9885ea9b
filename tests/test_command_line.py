"""Several hundred command lines that are wrong.

Each ends in one line, with exit code 2, and no folder is changed.
"""

import os
import pathlib
import re
import signal

import numpy as np
import pytest
import workdirs
from PIL import Image

from evqgan import main

pytestmark = pytest.mark.slow

# Ours: a command line that has not been refused after these hangs, or has begun its work.
SECONDS = 120
WHOLE = ("x", "", "-1", "1.5", "nan", "inf", "1e3", "0x10", "999999999999999999999999")
HUGE = "1000000000000"
PLACE = re.compile(r"=\{\w+\}")
FOUR = ("", "1", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,0,4,4", "nan,0,4,4", f"0,0,{HUGE},{HUGE}")
CLASSES = ("10", "-1", "nobody", "1.5", "nan", HUGE, "cat;dog", "CAT", " cat")


def sample():
    """Wrong flags of --mode=sample."""
    yield from (f"--num={x}" for x in (*WHOLE, "0", HUGE))
    yield from (f"--seed={x}" for x in (*WHOLE, str(2**64)))
    yield from (f"--batch_size={x}" for x in (*WHOLE, "0"))
    yield from (f"--labels={x}" for x in (*CLASSES[:-1], "cat,nobody", "1,,2", ",", "3,10"))
    yield from (
        f"--acceptance={x}"
        for x in ("x", "", "-1", "2", "nan", "inf", "0", "1e-300", "1e-9", "1,5")
    )
    yield from (
        ["--acceptance=0.5", f"--classifier={x}"]
        for x in ("resnet", "os:nothing", "nowhere:f", ":", "a:b:c")
    )
    yield from (
        "--classifier=resnet101",
        "--classifier_weights=/nowhere",
        "--steps_strip=perhaps",
        "--force=7",
    )
    for key in (
        "steps",
        "temperature",
        "choice_temperature",
        "top_k",
        "top_p",
        "guidance",
        "schedule",
        "order",
        "choice",
        "remask",
        "remask_schedule",
    ):
        yield from (
            f"--config.sample.{key}={x}"
            for x in ("nan", "-1", "[]", "{}", "None", "nothing", f"-{HUGE}")
        )
    yield from (
        "--config.sample.steps=0",
        "--config.sample.top_p=2",
        "--config.sample.temprature=1",
        "--config.smaple=1",
    )


def edit():
    """Wrong flags of --mode=edit, beside --image={picture} where there is no other one."""
    yield from ([], "--mask={picture}", ["--box=0,0,8,8", "--outpaint=1,1,1,1"])
    yield from (f"--box={x}" for x in (*FOUR, "0,0,0,0", "8,8,4,4", "-4,0,8,8", "0,0,33,32"))
    yield from (f"--outpaint={x}" for x in (*FOUR, "0,0,0,0", "-1,0,0,0"))
    for image in (
        "",
        "{place}/nothing.png",
        "{place}",
        "{text}",
        "{cut}",
        "{fifo}",
        "/dev/null",
        "/dev/zero",
        "{empty}",
    ):
        yield [f"--image={image}", "--box=0,0,8,8"]
        yield [f"--mask={image}"]
    yield from (["--mask={black}"], ["--mask={other_size}"])
    for name in ("margin", "feather", "num", "seed"):
        yield from ([f"--{name}={x}", "--box=0,0,8,8"] for x in WHOLE)
    yield from ([f"--{name}={HUGE}", "--box=0,0,8,8"] for name in ("margin", "feather", "num"))
    yield from ([f"--label={x}", "--box=0,0,8,8"] for x in CLASSES)


def reconstruct():
    """Wrong flags of --mode=reconstruct."""
    yield []
    for image in (
        "",
        "{place}/nothing.png",
        "{nothing}",
        "{text}",
        "{cut}",
        "{fifo}",
        "/dev/null",
        "{tiny}",
    ):
        yield f"--image={image}"
    yield from ([f"--batch_size={x}", "--image={picture}"] for x in (*WHOLE, "0"))


def evaluate():
    """Wrong flags of --mode=evaluate."""
    yield from (
        f"--metrics={x}"
        for x in ("nothing", "samples", "recontsruction", "generation,nothing", ",")
    )
    yield from (f"--batch_size={x}" for x in (*WHOLE, "0"))
    yield from (
        f"--config.dataset.{x}"
        for x in ("size=0", "folder=/nowhere", "validation=nothing", "validation=train[", "x=1")
    )


def encode():
    """Wrong flags of --mode=encode."""
    yield from (f"--views={x}" for x in (*WHOLE, "0", HUGE))
    yield from (f"--seed={x}" for x in WHOLE)
    yield from (
        f"--config.dataset.{x}"
        for x in (
            "size=0",
            "size=31",
            "folder=/nowhere",
            "crop=none",
            "train=nothing",
            "min_scale=2",
        )
    )


def train():
    """Wrong flags of --mode=train, with the config of the workdir."""
    yield from (f"--config.batch_size={x}" for x in (*WHOLE, "0", HUGE))
    yield from (
        f"--config.duration={x}"
        for x in ("", "x", "-1 steps", "nan epochs", "3 hours", "5%", "0 steps", "1 2 3")
    )
    yield from (
        f"--config.optimizer.{x}"
        for x in (
            "learning_rate=nan",
            "learning_rate=-1",
            "b1=1",
            "ema=1.5",
            "clip=-1",
            "accumulate=3",
            "x=1",
        )
    )
    yield from (
        f"--config.{x}"
        for x in (
            "stage=main",
            "stage=stage3",
            "seed=-1",
            "seed=4294967296",
            "dtype=float16",
            "keep=0",
            "mesh.data=3",
            "mesh.x=1",
            "init=/nowhere",
            "nothing=1",
            "=1",
            "tokenizer=3",
        )
    )
    yield from (
        f"--config.{every}_every={x}"
        for every in ("log", "eval", "checkpoint")
        for x in ("0", "-1", "nan", "often")
    )
    yield from (
        f"--config={x}"
        for x in (
            "",
            "configs/nothing.py",
            "configs",
            "{text}",
            "{raises}",
            "configs/quickstart.py:nothing",
            "quikstart",
        )
    )


MODES = {f.__name__: f for f in (sample, edit, reconstruct, evaluate, encode, train)}
ANYWHERE = (
    *("--mode=samples", "--mod=sample", "--nothing", "--config.", "word"),
    *("--workdir=", "--workdir={text}", "--workdir={place}", "--workdir=/nowhere"),
    *("--workdir={broken}", "--workdir={cut_config}"),
    *("--out={text}", "--out={text}/below", "--out=/proc/x"),
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Places by name: a trained workdir, and files and folders that are not what they seem."""
    place = tmp_path_factory.mktemp("wrong")
    workdir = workdirs.copy(place / "run")
    found = {
        name: place / f"{name}.png"
        for name in ("picture", "black", "other_size", "tiny", "cut", "fifo", "empty")
    }
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for name, image in (
        ("picture", pixels),
        ("black", pixels * 0),
        ("other_size", pixels[:16]),
        ("tiny", pixels[:2, :2]),
    ):
        Image.fromarray(image).save(found[name])
    found["cut"].write_bytes(found["picture"].read_bytes()[:900])
    os.mkfifo(found["fifo"])
    found["empty"].touch()
    found |= {
        name: place / name for name in ("text", "nothing", "broken", "cut_config", "raises.py")
    }
    found["text"].write_text("words")
    found["raises.py"].write_text("def get_config():\n    return 1 / 0\n")
    for name, text in (
        ("nothing", None),
        ("broken", "[" * 1000),
        ("cut_config", '{"stage": "stage2"'),
    ):
        found[name].mkdir()
        if text:
            (found[name] / "config.json").write_text(text)
    (place / "here").mkdir()
    return {name.removesuffix(".py"): str(path) for name, path in found.items()} | {
        "place": str(place),
        "run": str(workdir),
    }


def inventory(place):
    """{path: (size, time of the last change)} of all below a folder."""
    found = {path: path.lstat() for path in pathlib.Path(place).rglob("*")}
    return {
        str(path): (stat.st_size, stat.st_mtime_ns)
        for path, stat in found.items()
        if not path.is_dir()
    } | {str(path): None for path in found if path.is_dir()}


def refused(arguments, place, capsys):
    """Runs a command line -> what is wrong with how it ended, "" if nothing is."""

    def hangs(*_):
        raise TimeoutError(f"still at work after {SECONDS} s")

    before = inventory(place)
    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        code = main.main(["main", *arguments])
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    said = capsys.readouterr().err
    after = inventory(place)
    if after != before:
        changed = [path for path in {*before, *after} if before.get(path, 0) != after.get(path, 0)]
        return f"changed {changed[:3]}"
    return (
        ""
        if code == 2 and said.startswith("error: ") and said.count("\n") == 1
        else f"exit code {code}, {said!r}"
    )


@pytest.mark.parametrize("mode", MODES)
def test_every_wrong_command_line_is_refused_in_one_line(mode, places, capsys, monkeypatch):
    monkeypatch.chdir(pathlib.Path(places["place"]) / "here")
    run = pathlib.Path(places["run"])
    workdir = {"encode": run / "tokenizer", "train": run / "generator"}.get(mode, run)
    base = {
        "--mode": mode,
        "--workdir": str(workdir),
        **({"--image": places["picture"]} if mode == "edit" else {}),
    }
    right = {
        "sample": "--num=1",
        "edit": "--box=0,0,8,8",
        "reconstruct": f"--image={places['picture']}",
    }.get(mode)
    faults, number = {}, 0
    lines = [
        *MODES[mode](),
        *([x, *([right] if right else [])] for x in ANYWHERE if mode != "train" or "out" not in x),
    ]
    for given in lines:
        given = [given] if isinstance(given, str) else given
        given = [
            text.format(**places) if "={" in text and "}" in text[3:] and "{}" not in text else text
            for text in given
        ]
        names = {text.split("=")[0] for text in given}
        arguments = [
            *(f"{name}={value}" for name, value in base.items() if name not in names),
            *given,
        ]
        number += 1
        if said := refused(arguments, places["place"], capsys):
            faults[" ".join(given)] = said
    assert not faults, f"{len(faults)} of {number}: " + "\n".join(
        f"{given}\n    {said}" for given, said in faults.items()
    )
