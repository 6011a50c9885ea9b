"""Checkpoints: exact, partial, kept by age and score, and never silently wrong."""

import json
import os
import pathlib
import re
import resource
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_cards import evaluation

from evqgan.core import cards, checkpoint, files, manifests, mesh
from evqgan.core.errors import InputError
from evqgan.core.retention import Score


@pytest.fixture
def state():
    params = {
        "layer": {"kernel": jax.random.normal(jax.random.key(0), (300, 40)), "bias": jnp.ones(40)}
    }
    tree = {
        "step": jnp.int32(10),
        "params": params,
        "opt": optax.adamw(1e-3).init(params),
        "codebook": {},
    }
    return jax.device_put(tree, mesh.shardings(tree, mesh.make(devices=jax.devices()[:1])))


def like(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def saved(folder, state, steps=(10,), **keys):
    checkpoints = checkpoint.Checkpoints(folder, **keys)
    for step in steps:
        checkpoints.save(step, {**state, "step": jnp.int32(step)} if "step" in state else state)
    checkpoints.wait()
    return checkpoints


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def test_what_is_restored_is_what_was_saved(tmp_path, state):
    checkpoints = saved(tmp_path, state)
    same(checkpoints.restore(like(state)), state)
    same(checkpoints.restore({"params": like(state)["params"]}), {"params": state["params"]})
    checkpoints.close()


def test_a_saved_state_may_be_donated_at_once(tmp_path, state):
    """The next training step overwrites the buffers while the writing threads still run."""
    expected = jax.tree.map(np.array, state)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(10, state)
    state = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 + 7, s), donate_argnums=0)(state)
    checkpoints.wait()
    same(jax.tree.map(np.asarray, checkpoints.restore(like(state))), expected)
    checkpoints.close()


def test_the_latest_and_the_best_are_kept(tmp_path, state):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    for step, score in ((1, 5.0), (2, 1.0), (3, 4.0), (4, float("inf"))):
        checkpoints.save(step, state, Score(score, "val/mse"))
        checkpoints.wait()
    assert checkpoints.steps() == [2, 4]
    checkpoints.close()


def test_the_best_and_no_more_survive_every_resume(tmp_path, state):
    """Each process leaves one, as a stopped one does: only the latest and the best stay."""
    for step, score in ((6, 5.0), (11, 1.0), (16, float("inf")), (21, 4.0), (26, None)):
        checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
        checkpoints.save(step, state, score and Score(score, "val/mse"))
        checkpoints.close()
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    assert checkpoints.steps() == [11, 26]
    checkpoints.close()


@pytest.mark.parametrize(
    "kinds",
    [[("val/mse",), ("val/psnr",)], [("val/fid", "of 8"), ("val/fid", "of 64")]],
    ids=["another number", "measured otherwise"],
)
def test_scores_of_other_numbers_and_measurements_are_not_compared(kinds, tmp_path, state):
    """As of a run that goes on with others of config.best or config.evals: each has its best."""
    parts = (
        (kinds[0], ((1, 0.5), (2, 0.1), (3, 0.2))),
        (kinds[1], ((4, -20.0), (5, -30.0), (6, -25.0))),
        (kinds[0], ((7, 0.3), (8, 0.05), (9, 0.2))),
    )
    for (kind, scores), steps in zip(parts, ([2, 3], [2, 5, 6], [5, 8, 9]), strict=True):
        checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
        for step, score in scores:
            checkpoints.save(step, state, Score(score, *kind))
            checkpoints.wait()
        assert checkpoints.steps() == steps
        checkpoints.close()


def older(workdir, *lacking):
    """Take from the checkpoints of a workdir what those of older versions did not note."""
    for file in workdir.glob("checkpoints/*/score/metadata"):
        noted = json.loads(file.read_text())
        for name in lacking:
            del noted[name]
        file.write_text(json.dumps(noted))


def test_scores_that_were_saved_without_a_name_still_count_among_each_other(tmp_path, state):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=3)
    for step, score in ((1, 0.5), (2, 0.1), (3, 0.2)):
        checkpoints.save(step, state, Score(score, ""))
        checkpoints.wait()
    checkpoints.close()
    older(tmp_path, "best", "measured")
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    for step, score in ((4, 0.7), (5, 0.9)):
        checkpoints.save(step, state, Score(score, "val/mse", "of 8"))
        checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5]
    checkpoints.close()


def test_how_older_scores_were_measured_is_what_the_cards_of_their_evaluations_say(tmp_path, state):
    """Those of steps 1 and 2 are compared with later ones; step 3 has no card, and stays."""
    noted = evaluation("distribution", {"fid": 1.0}, 8)
    how = cards.measurements(noted)["val/fid"]
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=3)
    for step, score in ((1, 0.5), (2, 0.1), (3, 0.05)):
        checkpoints.save(step, state, Score(score, "val/fid"))
    checkpoints.close()
    older(tmp_path, "measured")
    for step in (1, 2):
        files.save_json(cards.file_of(tmp_path, step), noted)
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    found = {1: (0.5, "val/fid", how), 2: (0.1, "val/fid", how), 3: (0.05, "val/fid", "")}
    assert checkpoints.kept.scores == found
    for step, score in ((4, 0.07), (5, 0.9)):
        checkpoints.save(step, state, Score(score, "val/fid", how))
        checkpoints.wait()
    assert checkpoints.steps() == [3, 4, 5]
    checkpoints.close()


def arrays_of(folder, step):
    return [
        p
        for p in pathlib.Path(folder, "checkpoints", str(step), "state").rglob("*")
        if p.is_file() and p.parent.name == "d"
    ]


def test_a_checkpoint_cut_short_is_named(tmp_path, state):
    saved(tmp_path, state).close()
    for file in arrays_of(tmp_path, 10):
        os.truncate(file, file.stat().st_size // 2)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    with pytest.raises(InputError, match=r"checkpoints/10 is damaged: ") as error:
        checkpoints.restore(like(state))
    assert "\n" not in str(error.value)
    checkpoints.close()


def test_a_checkpoint_with_flipped_bytes_is_named(tmp_path, state):
    """Orbax restores these without a word."""
    saved(tmp_path, state).close()
    refused = 0
    for file in arrays_of(tmp_path, 10):
        before = file.read_bytes()
        changed = bytearray(before)
        for i in range(len(changed) // 2, min(len(changed) // 2 + 64, len(changed))):
            changed[i] ^= 0x10
        file.write_bytes(changed)
        checkpoints = checkpoint.Checkpoints(tmp_path)
        try:
            same(checkpoints.restore(like(state)), state)  # unused bytes may change
        except InputError as error:
            assert "is damaged" in str(error)
            refused += 1
        checkpoints.close()
        file.write_bytes(before)
    assert refused


def held_in_part(array, devices=2):
    """What one process of two sees of an array whose rows lie on `devices` devices.

    Each process holds the rows of those devices in turn.
    """
    halves = [
        slice(i * len(array) // devices, (i + 1) * len(array) // devices) for i in range(devices)
    ]
    indices = {i: (half, *(slice(None) for _ in array.shape[1:])) for i, half in enumerate(halves)}

    def seen(process):
        mine = [
            SimpleNamespace(index=indices[i], data=array[indices[i]])
            for i in range(devices)
            if i % 2 == process
        ]
        sharding = SimpleNamespace(devices_indices_map=lambda shape: indices)
        about = {
            "shape": array.shape,
            "dtype": array.dtype,
            "is_fully_addressable": False,
            "sharding": sharding,
        }
        return SimpleNamespace(**about, addressable_shards=mine)

    return seen


def test_arrays_that_no_process_holds_whole_have_a_checksum_a_part(monkeypatch):
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    seen, sent = held_in_part(array), []
    monkeypatch.setattr(
        manifests.multihost_utils, "process_allgather", lambda x: sent.append(x) or x[None]
    )
    for process in (0, 1):
        manifests.manifest_of({"w": seen(process)})
    monkeypatch.setattr(manifests.multihost_utils, "process_allgather", lambda _: np.stack(sent))
    rows = [manifests.manifest_of({"w": seen(process)}) for process in (0, 1)]
    assert rows[0] == rows[1] and rows[0]["w"][:3] == [[4, 6], None, "float32"]
    assert rows[0]["w"][3] == {
        "0:2,0:6": manifests.crc32(array[:2]),
        "2:4,0:6": manifests.crc32(array[2:]),
    }
    wrong = array.copy()
    wrong[3, 5] += 1  # of the second process' half
    assert [
        manifests.changed({"w": held_in_part(wrong)(process)}, rows[0]) for process in (0, 1)
    ] == [[], ["w"]]
    assert manifests.changed({"w": held_in_part(array)(1)}, rows[0]) == []
    # One process that holds all checks all.
    assert manifests.changed({"w": wrong}, rows[0]) == ["w"]
    # No process holds a part of those saved.
    assert manifests.changed({"w": held_in_part(wrong, 4)(0)}, rows[0]) == []


def test_checkpoints_made_before_dtypes_and_parts_were_noted_are_checked_as_before():
    array = np.ones((2, 3), np.float32)
    rows = {"w": [[2, 3], manifests.crc32(array)], "part": [[2, 3], None]}
    assert manifests.changed({"w": array, "part": array}, rows) == []
    assert manifests.changed({"w": array + 1, "part": array}, rows) == ["w"]


def test_another_dtype_is_named_and_no_damage(tmp_path, state):
    checkpoints = saved(tmp_path, state)
    other = like(state)
    half = jax.ShapeDtypeStruct((300, 40), jnp.bfloat16, sharding=state["step"].sharding)
    other["params"]["layer"]["kernel"] = half
    with pytest.raises(InputError, match="layer/kernel is float32 there, bfloat16 was expected"):
        checkpoints.restore(other)
    checkpoints.close()


@pytest.mark.parametrize(
    "error, said",
    [
        (MemoryError(), "cannot read checkpoint .*/10: not enough memory"),
        (
            PermissionError(13, "Permission denied"),
            "cannot read checkpoint .*/10: .*Permission denied",
        ),
        (TimeoutError("no answer in 300 s"), "cannot read checkpoint .*/10: no answer in 300 s"),
        (
            ValueError("RESOURCE_EXHAUSTED: Out of memory"),
            "cannot read checkpoint .*/10: RESOURCE_EXHAUSTED",
        ),
        (ValueError("DATA_LOSS: Checksum failed"), "checkpoint .*/10 is damaged.*: DATA_LOSS"),
        (FileNotFoundError(2, "No such file"), "checkpoint .*/10 is damaged"),
    ],
)
def test_only_what_is_missing_or_changed_is_damage_and_nobody_is_told_to_delete(
    tmp_path, state, error, said
):
    checkpoints = saved(tmp_path, {"step": state["step"]})

    def fail(*_, **__):
        raise error

    checkpoints.manager.restore = fail
    with pytest.raises(InputError, match=said) as caught:
        checkpoints.restore(like({"step": state["step"]}))
    assert not re.search("remove|delete", str(caught.value))
    checkpoints.manager.close()


def test_a_workdir_that_is_moved_while_it_is_read_is_gone_and_not_damaged(tmp_path, state):
    checkpoints = saved(tmp_path / "run", state)
    read = checkpoints.manager.restore

    def moved(*given, **named):
        if "state" in named["args"]:
            (tmp_path / "run").rename(tmp_path / "moved")
        return read(*given, **named)

    checkpoints.manager.restore = moved
    with pytest.raises(InputError, match="cannot read checkpoint .*/10: its folder is gone"):
        checkpoints.restore(like(state))
    checkpoints.manager.close()
    again = checkpoint.Checkpoints(tmp_path / "moved")
    same(again.restore(like(state)), state)
    again.close()


def test_a_save_that_was_cut_off_does_not_count(tmp_path, state):
    saved(tmp_path, state, steps=(10,)).close()
    (tmp_path / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir()
    checkpoints = checkpoint.Checkpoints(tmp_path)
    assert checkpoints.steps() == [10]
    checkpoints.close()


def test_another_model_and_a_missing_checkpoint_are_named(tmp_path, state):
    with pytest.raises(InputError, match="there is no checkpoint in .*none is no folder: give"):
        checkpoint.Checkpoints(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    checkpoint.Checkpoints(tmp_path / "none").close()
    assert not list((tmp_path / "none").iterdir())  # nothing saved, nothing left
    checkpoints = checkpoint.Checkpoints(tmp_path)
    with pytest.raises(InputError, match="there is no checkpoint in .*has saved nothing yet"):
        checkpoints.restore(like(state))
    checkpoints.save(10, state)
    checkpoints.wait()
    with pytest.raises(
        InputError, match="no checkpoint of step 2 in .*checkpoints: expected one of 10$"
    ):
        checkpoints.restore(like(state), 2)
    other = like({"params": {"layer": {"kernel": jnp.zeros((300, 41)), "bias": jnp.zeros(40)}}})
    with pytest.raises(
        InputError, match=r"params/layer/kernel is \[300, 40\] there, \[300, 41\] was expected"
    ):
        checkpoints.restore(other)
    with pytest.raises(InputError, match="params/head/kernel is nothing there"):
        checkpoints.restore(like({"params": {"head": {"kernel": jnp.zeros((2, 2))}}}))
    checkpoints.close()


def test_a_full_disk_is_named_and_what_was_saved_stays(tmp_path, state):
    checkpoints = saved(tmp_path, state, steps=(10,))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What a full disk does, to this process alone.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        checkpoints.save(20, state)
        with pytest.raises(InputError, match="cannot write checkpoints in") as error:
            checkpoints.save(30, state)  # the next save, or the end of the run, tells
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    again = checkpoint.Checkpoints(tmp_path)
    assert again.steps() == [10]
    same(again.restore(like(state)), state)
    again.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(InputError, match="cannot write .*checkpoints"):
        checkpoint.Checkpoints(tmp_path)


def test_a_renamed_checkpoint_is_named_with_the_step_that_it_holds(tmp_path, state):
    saved(tmp_path, state, (60,)).close()
    (tmp_path / "checkpoints" / "60").rename(tmp_path / "checkpoints" / "99")
    with pytest.raises(InputError, match="checkpoints/99 holds step 60, so its folder was renamed"):
        checkpoint.parts_of(tmp_path)
    checkpoints = checkpoint.Checkpoints(tmp_path, create=False)
    with pytest.raises(InputError, match="give it the name 60 again"):
        checkpoints.restore({"params": like(state)["params"]})
    checkpoints.close()
    (tmp_path / "checkpoints" / "99").rename(tmp_path / "checkpoints" / "60")
    assert "params" in checkpoint.parts_of(tmp_path)
