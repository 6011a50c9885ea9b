"""Damage at random to any file of any checkpoint: nothing wrong is restored, and the last whole
checkpoint is found."""

import contextlib
import json
import os
import pathlib
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import config_of, metrics_of, state_of

from evqgan.core import checkpoint, integrity, last_good
from evqgan.core.errors import InputError
from evqgan.training import loop

KEPT = pathlib.Path(__file__).parent / "kept"
STEPS = (3, 6)


def state_at(step):
    rng = np.random.default_rng(step)
    params = {"a": jnp.asarray(rng.normal(size=(30, 40)).astype(np.float32)), "b": jnp.ones(3)}
    return {"params": params, "ema": params, "step": jnp.int32(step)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with two checkpoints."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = checkpoint.Checkpoints(workdir, keep=2)
    for step in STEPS:
        checkpoints.save(step, state_at(step))
    checkpoints.close()
    return workdir


def flip(file, other, dice):
    data = bytearray(file.read_bytes())
    for _ in range(dice.choice((1, 1, 5)) if data else 0):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    file.write_bytes(data)


def cut(file, other, dice):
    os.truncate(file, dice.randrange(file.stat().st_size + 1))


def remove(file, other, dice):
    file.unlink()


def swap(file, other, dice):
    """Exchange two files."""
    one, two = file.read_bytes(), other.read_bytes()
    file.write_bytes(two)
    other.write_bytes(one)


def harm(workdir, number):
    """Damage a checkpoint in one of many ways, the same for the same number; say how."""
    dice = random.Random(number)
    files = sorted(path for path in workdir.glob("checkpoints/**/*") if path.is_file())
    file, other, way = (
        dice.choice(files),
        dice.choice(files),
        dice.choice((flip, cut, remove, swap)),
    )
    way(file, other, dice)
    return f"{way.__name__} {file.relative_to(workdir)} {other.relative_to(workdir)}"


def restored(workdir, step):
    """The state that is read, or None if it is refused in one line."""
    try:
        with contextlib.closing(checkpoint.Checkpoints(workdir, create=False)) as checkpoints:
            return checkpoints.restore(state_at(step), step)
    except InputError as error:
        assert "\n" not in str(error) and str(workdir) in str(error)
        return None


def same(one, other):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def check(saved, place, number):
    workdir = place / str(number)
    shutil.copytree(saved, workdir)
    how = harm(workdir, number)
    right = {step: restored(workdir, step) for step in STEPS if is_there(workdir, step)}
    for step, state in right.items():
        assert state is None or same(state, state_at(step)), how
    said = []
    try:
        last_good.set_aside(workdir, last_good.find(workdir, said.append), said.append)
    except InputError as error:
        assert "\n" not in str(error), how
        # A file that readers do without, such as state/_sharding, is damage, too.
        assert all(x is None or f"checkpoints/{n}/" in how for n, x in right.items()), how
        assert sorted(checkpoint.steps_in(workdir)) == sorted(right), how
        return
    step = checkpoint.latest(workdir)
    state = restored(workdir, step)
    assert state is not None and same(state, state_at(step)), how
    gone = [name for name in map(int, os.listdir(workdir / "damaged"))] if len(said) > 1 else []
    assert sorted([*gone, *checkpoint.steps_in(workdir)]) == sorted(right), how
    shutil.rmtree(workdir)


def is_there(workdir, step):
    return step in checkpoint.steps_in(workdir)


def test_a_changed_key_of_orbaxs_own_description_is_damage_of_its_checkpoint(saved, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    *_, step, last = (0, *STEPS)
    file = workdir / "checkpoints" / str(last) / "_CHECKPOINT_METADATA"
    found = json.loads(file.read_text())
    found["commyt_timestamp_nsecs"] = found.pop("commit_timestamp_nsecs")
    found["custom_metadata"] = found.get("custom_metadata") or {"a": 1}  # two are refused
    file.write_text(json.dumps(found))
    with pytest.raises(InputError, match=f"checkpoint .*/{last} is damaged: _CHECKPOINT_METADATA"):
        checkpoint.Checkpoints(workdir, create=False)
    assert checkpoint.parts_of(workdir, step)  # before anything is moved
    last_good.set_aside(workdir, last_good.find(workdir, print), print)
    assert checkpoint.steps_in(workdir) == [step]
    assert same(restored(workdir, step), state_at(step))


@pytest.mark.parametrize("tens", range(20))
def test_nothing_wrong_is_restored_and_the_last_whole_checkpoint_is_found(saved, tmp_path, tens):
    for number in range(10 * tens, 10 * tens + 10):
        check(saved, tmp_path, number)


@pytest.mark.parametrize("relative", [False, True])
def test_whole_checkpoints_stay_where_they_are(saved, tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    workdir = pathlib.Path("w") if relative else tmp_path / "w"
    shutil.copytree(saved, workdir)
    said = []
    assert last_good.find(workdir, said.append) == STEPS[-1]
    last_good.set_aside(workdir, STEPS[-1], said.append)
    assert said == ["reading checkpoint 6, to see whether it is whole"]
    assert checkpoint.steps_in(workdir) == [*STEPS]
    assert last_good.find(tmp_path / "none", said.append) == 0
    last_good.set_aside(tmp_path / "none", 0, said.append)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("stage", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_goes_on_from_the_last_good_checkpoint_to_the_same_bits(stage, tmp_path, capsys):
    """Stage 1 has a critic, its optimizer, and the counts of a codebook that is a moving average.

    Of two checkpoints the later one alone is damaged, and called so.
    """
    lengths = {"duration": "12", "checkpoint_every": "4", "eval_every": "12", "log_every": "2"}
    config = config_of(stage, keep=2, **lengths)
    if stage == 1:
        config.adversarial.start = "0 steps"  # one program, and not one before it
    loop.train(config.copy_and_resolve_references(), tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    assert checkpoint.steps_in(tmp_path / "run") == [8, 12]
    assert [last_good.damage(checkpoints / step) for step in ("8", "12")] == ["", ""]
    of_stage = {"critic", "codebook"} if stage == 1 else set()
    assert checkpoint.parts_of(tmp_path / "run") > {"params", "ema", "opt"} | of_stage
    data = max((checkpoints / "12" / "state" / "d").iterdir())
    data.write_bytes(bytes(byte ^ 1 for byte in data.read_bytes()))
    with pytest.raises(InputError, match=r"12 is damaged: .*config\.resume=last_good"):
        loop.train(config.copy_and_resolve_references(), tmp_path / "run")
    config.resume = "last_good"
    for key, value, message in (
        ("duration", "20", r"12 -> 20: .*first end it with .*\(12\) and config.resume=last_good"),
        ("alarm", {"val/nothing": 0.5}, "no evaluator in config.evals gives"),
    ):
        refused = config.copy_and_resolve_references()
        with refused.unlocked():
            refused[key] = value
        with pytest.raises(InputError, match=message):
            loop.train(refused, tmp_path / "run")
        assert checkpoint.steps_in(tmp_path / "run") == [8, 12], "nothing is moved"
        assert "checkpoint 12 is damaged: " in capsys.readouterr().out
    loop.train(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count(" is damaged: ") == 1 and "checkpoint 12 is damaged: " in said
    assert "going on from step 8, the last good" in said
    assert "4 steps after step 8, " in said and "lost, and taken again" in said
    assert [path.name for path in (tmp_path / "run" / "damaged").iterdir()] == ["12"]
    a, b = state_of(config, tmp_path / "straight"), state_of(config, tmp_path / "run")
    assert same(a, b) and metrics_of(tmp_path / "run") == metrics_of(tmp_path / "straight")


@pytest.mark.parametrize("format", range(1, checkpoint.FORMAT + 1))
def test_a_checkpoint_that_was_kept_of_each_format_is_read_to_the_bit(format, tmp_path):
    """It was written by another machine and another version of the code."""
    shutil.unpack_archive(KEPT / f"checkpoint_format_{format}.zip", tmp_path)
    assert last_good.damage(tmp_path / "checkpoints" / "7") == ""
    checkpoints = checkpoint.Checkpoints(tmp_path, create=False)
    like = {
        "params": {"dense": {"kernel": jnp.zeros((5, 7)), "bias": jnp.zeros(7, jnp.bfloat16)}},
        "rows": jnp.zeros((2, 3), jnp.uint8),
        "step": jnp.int32(0),
    }
    state = checkpoints.restore(like)
    checkpoints.close()
    x = np.arange(35, dtype=np.float32).reshape(5, 7)
    np.testing.assert_array_equal(state["params"]["dense"]["kernel"], np.sqrt(x))
    bias = np.asarray(state["params"]["dense"]["bias"])
    np.testing.assert_array_equal(bias.astype(np.float32), np.arange(7) / 4)
    np.testing.assert_array_equal(state["rows"], [[0, 1, 2], [253, 254, 255]])
    assert int(state["step"]) == 7


def test_a_checkpoint_of_a_format_that_is_not_known_is_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "w")
    file = tmp_path / "w" / "checkpoints" / "6" / "score" / "metadata"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": checkpoint.FORMAT + 1}))
    checkpoints = checkpoint.Checkpoints(tmp_path / "w", create=False)
    with pytest.raises(InputError, match="has format 2, and this code reads 1: "):
        checkpoints.restore(state_at(6))
    checkpoints.close()


def test_arrays_are_found_in_the_database_by_their_paths(saved):
    place = saved / "checkpoints" / "6" / "state"
    np.testing.assert_array_equal(
        integrity.array(place, "params/a").read().result(), state_at(6)["params"]["a"]
    )
