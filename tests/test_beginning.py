"""Runs that begin with other runs' weights, and finished ones that go on.

It is tested what is taken, what is said, and what is refused. No step is compiled but in the one
test that trains.
"""

import contextlib
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import workdirs
from test_train import config_of

from evqgan.core import checkpoint, files, mesh
from evqgan.core.errors import InputError
from evqgan.training import initial_state, loop, optim, resume_rules, stage2
from evqgan.training.run_length import RunLength


def of_generator(classes=10):
    """A config, its stage, and a state of it in which every number is its place.

    No initialization is compiled.
    """
    config = config_of(2)
    config.generator.update({"classes": classes, "layers": 1})
    config = stage2.resolve(config)
    stage = stage2.make(config, 100)
    devices = mesh.make(devices=jax.devices()[:1])
    shapes = jax.eval_shape(stage.init)
    shardings = mesh.shardings(shapes, devices)
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )
    return config, stage, like


def filled(like, number):
    return jax.tree.map(lambda x: jnp.full(x.shape, number, x.dtype, device=x.sharding), like)


def saved(folder, config, state, step=6):
    """A workdir of `config` with a checkpoint."""
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.save(step, state | ({"step": jnp.int32(step)} if "step" in state else {}))
    checkpoints.close()
    files.save_json(folder / "config.json", json.loads(config.to_json()))
    return folder


def begun(folder, config, stage, like, number=0):
    """A new run of `config` in `folder`, its fresh state all `number` -> state, lines."""
    checkpoints = checkpoint.Checkpoints(folder)
    with contextlib.closing(checkpoints), pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage2.GeneratorStage, "load", lambda self, state, saved=(): state)
        compiled = (like, lambda: filled(like, number), None)
        setup = SimpleNamespace(config=config, module=stage2, stage=stage, compiled=compiled)
        return initial_state.state(setup, checkpoints, ())


def test_a_run_begins_with_raw_and_averaged_weights_of_another_and_a_fresh_optimizer(tmp_path):
    config, stage, like = of_generator()
    theirs = filled(like, 1) | {
        "ema": filled(like["ema"], 2),
        "opt": filled(like["opt"], 3),
        "step": jnp.int32(6),
    }
    config.init = str(saved(tmp_path / "old", config, theirs))
    # What may be another.
    config.batch_size, config.optimizer.learning_rate, config.duration = 4, 0.5, "7 steps"
    state, lines = begun(tmp_path / "new", config, stage, like)
    for part, number in {"params": 1, "ema": 2, "opt": 0, "tokenizer": 0, "step": 0}.items():
        assert all((np.asarray(x) == number).all() for x in jax.tree.leaves(state[part])), part
    assert (
        lines[0] == f"begins with the weights of {tmp_path / 'old'}, step 6, and a fresh optimizer"
    )
    assert "the tokenizer is not the one whose codes" in lines[1] and len(lines) == 2
    config.init_optimizer = True
    state, lines = begun(tmp_path / "new", config, stage, like, 1)
    assert all((np.asarray(x) == 3).all() for x in jax.tree.leaves(state["opt"]))
    assert "step 6, and its optimizer" in lines[0] and len(lines) == 1


def test_a_table_of_classes_of_another_size_begins_fresh_and_is_named(tmp_path):
    config, stage, like = of_generator(classes=10)
    old = saved(tmp_path / "old", config, filled(like, 1))
    config, stage, like = of_generator(classes=3)
    config.init = str(old)
    state, lines = begun(tmp_path / "new", config, stage, like)
    fresh = {
        p for p, x in initial_state.named(state, ("params",)).items() if not np.asarray(x).any()
    }
    # Three classes and none.
    assert fresh and all(state_of(state, path).shape[0] == 4 for path in fresh)
    assert any("not as many classes" in line and "ema/label/embedding" in line for line in lines), (
        lines
    )


def state_of(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return tree


def test_weights_alone_begin_a_run_too(tmp_path):
    """Those converted from public files, which are averaged ones."""
    config, stage, like = of_generator()
    config.init = str(saved(tmp_path / "old", config, {"ema": filled(like["ema"], 2)}, step=0))
    state, _ = begun(tmp_path / "new", config, stage, like)
    assert all((np.asarray(x) == 2).all() for x in jax.tree.leaves((state["params"], state["ema"])))
    config.init_optimizer = True
    with pytest.raises(InputError, match="holds weights alone, and no optimizer"):
        begun(tmp_path / "new", config, stage, like)


def test_what_a_run_cannot_begin_with_is_one_line(tmp_path):
    config, stage, like = of_generator()
    old = saved(tmp_path / "old", config, filled(like, 1))
    config.init = str(tmp_path / "nowhere")
    with pytest.raises(
        InputError,
        match=r"config.init = .*nowhere: there is no .*config.json; give the workdir of a run",
    ):
        begun(tmp_path / "new", config, stage, like)
    with pytest.raises(InputError, match=r"there is no .*config.json; give the workdir"):
        initial_state.check_init(config, tmp_path / "new")  # before any data are read
    config.init = "drawingz"
    with pytest.raises(InputError, match="did you mean the model 'drawings'. Or give the workdir"):
        begun(tmp_path / "new", config, stage, like)
    config.init = str(old)
    with pytest.raises(InputError, match="config.init is the run's own workdir"):
        initial_state.check_init(config, tmp_path / "new" / ".." / "old")
    initial_state.check_init(config, tmp_path / "new")
    theirs = json.loads((old / "config.json").read_text())
    files.save_json(tmp_path / "quick" / "tokenizer" / "config.json", theirs)
    config.init = str(tmp_path / "quick")
    with pytest.raises(InputError, match=r"there is no .*config.json; give .*quick/tokenizer"):
        begun(tmp_path / "new", config, stage, like)
    files.save_json(tmp_path / "stage1" / "config.json", theirs | {"stage": "stage1"})
    config.init = str(tmp_path / "stage1")
    with pytest.raises(InputError, match="stage1 is the workdir of stage1, this run is of stage2"):
        begun(tmp_path / "new", config, stage, like)
    config.init = str(old)
    config.generator.width *= 2
    stage = stage2.make(config, 100)
    wide = jax.eval_shape(stage.init)
    with pytest.raises(
        InputError, match=r"ema/\S+ is \[.*\] there, \[.*\] was expected: .* same model alone"
    ):
        begun(tmp_path / "new", config, stage, wide | {"params": {}})


def test_a_finished_run_goes_on_with_a_longer_duration_and_another_one_does_not(tmp_path):
    config = config_of(2)
    resume_rules.claim(tmp_path, config)
    leg = lambda: initial_state.start_of_leg(config, tmp_path, 100)  # noqa: E731
    config.duration = "100 steps"
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    config.began = leg()
    assert config.began == 0
    with pytest.raises(InputError, match="only a finished run goes on with a longer duration"):
        resume_rules.check_claim(tmp_path, config)
    (tmp_path / "checkpoints" / "60").mkdir()
    config.began = leg()
    assert config.began == 60
    resume_rules.claim(tmp_path, config)
    # As it is resumed.
    assert json.loads((tmp_path / "config.json").read_text())["began"] == leg() == 60
    # The checkpoints of the leg are damaged, and the last good one is from before it.
    assert initial_state.start_of_leg(config, tmp_path, 100, last=40) == 40
    config.duration = "100steps"
    resume_rules.check_claim(tmp_path, config)
    config.duration = "60"
    (tmp_path / "checkpoints" / "100").mkdir()
    with pytest.raises(InputError, match="config.duration: 100 steps -> 60") as caught:
        resume_rules.check_claim(tmp_path, config)
    assert str(caught.value).endswith("it has taken 100 steps, and fewer, 60, were asked for")
    config.duration, config.batch_size = "200 steps", 4
    config.began = leg()
    with pytest.raises(InputError, match=f"config.batch_size: 8 -> 4: .*config.init={tmp_path}"):
        resume_rules.check_claim(tmp_path, config)


def test_a_longer_duration_of_which_nothing_was_trained_may_be_changed_and_taken_back(tmp_path):
    config = config_of(2)

    def goes_on(duration, last=None):
        config.duration = duration
        config.began = initial_state.start_of_leg(config, tmp_path, 100, last)
        resume_rules.check_claim(tmp_path, config, last)
        return config.began

    resume_rules.claim(tmp_path, config)
    for step in (40, 60):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    for duration, began in (("3000 steps", 60), ("80 steps", 60), ("60 steps", 0), ("70", 60)):
        assert goes_on(duration) == began
        resume_rules.claim(tmp_path, config)
        assert resume_rules.read_config(tmp_path).duration == duration
    with pytest.raises(InputError, match="it has taken 60 steps, and fewer, 50, were asked for"):
        goes_on("50 steps")
    with pytest.raises(InputError, match="config.seed"):  # nothing else may be another
        config.seed += 1
        goes_on("80 steps")
    config.seed -= 1
    assert goes_on("50 steps", last=40) == 40  # the checkpoint at which the leg began is damaged
    (tmp_path / "checkpoints" / "65").mkdir()
    with pytest.raises(InputError, match=r"first end it with that which it has \(70\)"):
        goes_on("80 steps")
    with pytest.raises(InputError, match="a run of 70 steps is not made one of 66: stop it there"):
        goes_on("66 steps")
    assert goes_on("80 steps", last=60) == 60  # those of the leg are damaged


def test_a_run_that_was_moved_to_where_it_began_from_goes_on(tmp_path):
    config = config_of(2)
    config.init = str(tmp_path)
    with pytest.raises(InputError, match="is the run's own workdir"):
        initial_state.check_init(config, tmp_path)
    resume_rules.claim(tmp_path, config)
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    initial_state.check_init(config, tmp_path)


def test_an_optimizer_of_no_run_is_refused_for_a_new_one(tmp_path):
    config = config_of(2)
    config.init_optimizer = True
    with pytest.raises(InputError, match="config.init_optimizer is that of the run in config.init"):
        initial_state.check_init(config, tmp_path)
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    initial_state.check_init(config, tmp_path)


def test_a_run_without_its_config_goes_on_with_a_warning(tmp_path):
    (line,) = resume_rules.changes(tmp_path, config_of(2))
    assert line.startswith(f"WARNING {tmp_path} has no config.json: nothing says how")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("began", None, "config.began expects"),
        ("began", "2", "config.began expects"),
        ("data", "x", "config.data expects"),
        ("data", {"list": ""}, "config.data needs the key 'examples'"),
        ("data", {"examples": "x"}, "config.data.examples expects"),
        ("dataset", {"folder": "gs://a/b"}, "config.dataset.folder = gs://a/b cannot be read"),
        ("duration", "20 hours", "config.duration expects"),
        ("optimizer", {"lr": 1}, "config.optimizer .*'lr'"),
    ],
)
def test_what_is_wrong_in_the_config_of_a_run_is_said_of_its_file(
    tmp_path, monkeypatch, key, value, message
):
    config = config_of(2)
    resume_rules.claim(tmp_path, config)
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    monkeypatch.setattr(resume_rules, "is_trained", lambda *_: True)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(InputError, match=f"^{file}: {message}"):
        resume_rules.check_before_data(tmp_path, config)


def test_a_key_with_a_dot_in_the_config_of_a_run_is_one_line(tmp_path):
    config, file = config_of(2), tmp_path / "config.json"
    resume_rules.claim(tmp_path, config)
    file.write_text(json.dumps({**json.loads(file.read_text()), "optimizer.decay": 1}))
    for reads in (
        resume_rules.check_claim,
        lambda place, config: resume_rules.settings(config, place),
    ):
        with pytest.raises(
            InputError, match=f"^{file} is not the config .*optimizer.decay"
        ) as said:
            reads(tmp_path, config)
        assert "\n" not in str(said.value)


def test_a_run_of_another_stage_is_refused_before_its_config_is_read(tmp_path, monkeypatch):
    config, file = config_of(2), tmp_path / "config.json"
    resume_rules.claim(tmp_path, config_of(1))
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    monkeypatch.setattr(resume_rules, "is_trained", lambda *_: True)
    file.write_text(json.dumps({**json.loads(file.read_text()), "data": "x", "began": None}))
    with pytest.raises(InputError, match="another config, config.stage: stage1 -> stage2"):
        resume_rules.check_before_data(tmp_path, config)


def test_what_is_wrong_in_the_config_of_a_run_is_said_of_its_file_where_it_is_sampled(tmp_path):
    config, file = config_of(2), tmp_path / "config.json"
    resume_rules.claim(tmp_path, config)
    saved = json.loads(file.read_text())
    saved["tokenizer"]["model"] = "x"
    file.write_text(json.dumps(saved))
    with pytest.raises(InputError, match=f"^{file}: config.tokenizer.model expects"):
        resume_rules.settings(config, tmp_path)


def test_a_run_goes_on_by_a_duration_that_is_as_long_in_other_words(tmp_path):
    config = config_of(2)  # 60 steps of 8 images
    with config.unlocked():
        config.data = {"examples": 32, "list": "x"}
    resume_rules.claim(tmp_path, config)
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    config.duration = "15 epochs"
    resume_rules.check_claim(tmp_path, config)
    config.duration = "16 epochs"
    with pytest.raises(InputError, match="only a finished run goes on with a longer duration"):
        resume_rules.check_claim(tmp_path, config)
    config.duration = "15 epochs"
    with config.unlocked():
        config.data, config.changed_data = {"examples": 30, "list": "y"}, True
    with pytest.raises(InputError, match="is not made one of 56"):
        resume_rules.check_claim(tmp_path, config)


def test_a_refused_change_proposes_weights_only_where_a_new_run_can_begin_with_them(tmp_path):
    for both, key in ((False, "init"), (True, "tokenizer.init")):
        place, config = tmp_path / str(both) / "tokenizer", config_of(1)
        resume_rules.claim(place, config)
        (place.parent / "plan.json").write_text("{}") if both else None
        config.batch_size = 4
        with pytest.raises(InputError, match=f"a new run, with these weights by --config.{key}="):
            resume_rules.check_claim(place, config)
        config.dataset.size = 64
        with pytest.raises(InputError, match="another --workdir, for a new run$"):
            resume_rules.check_claim(place, config)
        config.dataset.size = resume_rules.read_config(place).dataset.size
        config.tokenizer.quantizer.codes = 7
        with pytest.raises(InputError, match="another --workdir, for a new run$"):
            resume_rules.check_claim(place, config)


def test_what_a_run_without_classes_leaves_of_one_with_some_is_said(tmp_path):
    config, stage, like = of_generator()
    config.init = str(saved(tmp_path / "old", config, filled(like, 1)))
    init = config.init
    config, stage, like = of_generator(0)
    config.init = init
    _, notes = begun(tmp_path / "new", config, stage, like)
    assert any(
        "has classes, and this run has none: what has a row a class is left out" in note
        for note in notes
    ), notes


def test_the_rate_of_a_run_that_goes_on_warms_up_and_falls_again():
    run = RunLength(examples=1, batch_size=1, total=300, began=100)
    made = optim.optimizer(1.0, warmup="10%", decay="cosine", run=run).adamw
    rates = [float(made.rate(n)) for n in (0, 100, 110, 120, 210, 300)]
    np.testing.assert_allclose(rates, [0, 0, 0.5, 1, 0.5, 0], atol=1e-6)


def test_averages_that_a_run_begins_with_are_not_forgotten_by_a_kept_optimizer():
    updater = optim.updater({"learning_rate": 0.0}, "", RunLength(1, 1, 10), ema=0.9)
    part = updater.init({"w": jnp.zeros(1)})
    part |= {"ema": {"w": jnp.ones(1)}, "opt": {**part["opt"], "count": jnp.int32(1000)}}
    new, _ = updater.step(part, {"w": jnp.zeros(1)}, jnp.int32(0), jnp.bool_(True))
    np.testing.assert_allclose(new["ema"]["w"], 0.9, rtol=1e-6)


@pytest.mark.slow
def test_a_finished_run_grows_and_another_begins_with_its_weights(tmp_path, capsys):
    first, _ = workdirs.configs(workdirs.trained() / "images")
    workdirs.copy(tmp_path / "all")
    old = tmp_path / "all" / "tokenizer"
    first.optimizer.update({"warmup": "50%"})
    first.update(
        {"init": str(old), "duration": "2 steps", "batch_size": 2, "checkpoint_every": "2 steps"}
    )
    loop.train(first.copy_and_resolve_references(), tmp_path / "new")
    said = capsys.readouterr().out
    assert f"begins with the weights of {old}, step 6, and a fresh optimizer" in said
    first.duration = "4 steps"
    state = loop.train(first, tmp_path / "new")
    assert (
        "goes on from step 2, from where its learning rate warms up again"
        in capsys.readouterr().out
    )
    lines = [
        json.loads(line) for line in (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()
    ]
    rates = {
        line["step"]: line["train/learning_rate"] for line in lines if "train/learning_rate" in line
    }
    assert int(state["step"]) == 4 and rates[3] == 0 < rates[4], rates


def test_averages_that_a_config_leaves_out_are_those_of_its_stage(tmp_path):
    """Not those of another run: whether there are any would change without a word."""
    config = config_of(2)
    del config.optimizer["ema"]
    resume_rules.claim(tmp_path, config)
    config.optimizer.ema = 0.9999
    resume_rules.check_claim(tmp_path, config)
    config.optimizer.ema = 0.0
    with pytest.raises(InputError, match=r"config.optimizer.ema: 0.9999 -> 0.0"):
        resume_rules.check_claim(tmp_path, config)


def test_without_an_average_a_run_takes_none_from_others_and_keeps_none(tmp_path):
    config, _, like = of_generator()
    theirs = filled(like, 1) | {"ema": filled(like["ema"], 2)}
    old = saved(tmp_path / "old", config, theirs)
    converted = saved(tmp_path / "converted", config, {"ema": theirs["ema"]}, step=0)
    config.optimizer.ema = 0.0
    stage = stage2.make(config, 100)
    mine = {key: like[key] for key in jax.eval_shape(stage.init)}
    assert "ema" not in mine and set(like) - set(mine) == {"ema"}
    for folder, number in ((old, 1), (converted, 2)):
        config.init = str(folder)
        state, _ = begun(tmp_path / f"new{number}", config, stage, mine)
        assert set(state) == set(mine)
        assert all((np.asarray(x) == number).all() for x in jax.tree.leaves(state["params"]))
    again = checkpoint.Checkpoints(tmp_path / "again")
    with contextlib.closing(again):
        again.save(1, {**optim.averaged(state), "step": jnp.int32(1)})
        again.wait()
        assert "ema" in again.parts()  # what is used of a workdir, wherever it comes from
        assert set(again.restore(mine)) == set(mine)
