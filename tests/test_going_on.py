"""What may be another when a run goes on, what advice says of it, and what is tried before a run.

Advice is a key that a message writes as a flag, --config.KEY, or that it names after a verb such as
"raise" or "give".
"""

import ast
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import workdirs
from test_train import config_of

from evqgan.core import build, checkpoint, config_files, errors, space
from evqgan.core.errors import InputError
from evqgan.training import disk, loop, optim, resume_rules, stage1, stage2

PACKAGE = pathlib.Path(resume_rules.__file__).parents[1]
VERBS = "raise|lower|take|give|set|train|read|encode|drop|use|by|try|with|also"
ADVICE = re.compile(rf"\b(?:{VERBS})\b[^;:]*|--config\.[^;:]*")
KEY = re.compile(r"config\.([a-z_0-9]+(?:\.[a-z_0-9]+)*)(?! = \{|[a-z_0-9.])")  # not "... = {}"
# Keys of which a message speaks before a run has begun: what is wrong there is wrong from the
# first step on.
BEFORE = {
    "init": "with which a new run begins",
    "init_optimizer": "of a run that begins with init",
    "tokenizer.init": "of own images",
    "tokenizer.model": "of a generator, which is compared with its tokenizer",
    "generator.init": "of own images",
    "dataset.size": "which a model can be built of, or not",
    "dataset": "with which the stored ids were made",
}
# Files that put together flags of commands for new runs and for programs that are only compiled.
COMMANDS = (
    "aot/advice.py",
    "benchmark/device.py",
    "benchmark/fits.py",
    "data/written.py",
    "next_steps.py",
)


def texts(node):
    """The strings of a module, but docstrings, each whole, with {} for what is filled in."""
    if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
        node.body = node.body[1:]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = node.values
        yield "".join(x.value if isinstance(x, ast.Constant) else "{}" for x in parts)
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def advised(text):
    """The keys of the config that a message advises to change."""
    clauses = " ; ".join(ADVICE.findall(text))
    return [key for key in KEY.findall(clauses) if key not in ("json", "py")]


def messages():
    """(file, message) of all that the package may say."""
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        for text in texts(ast.parse(file.read_text())) if name not in COMMANDS else ():
            yield name, text


# A value of each key that changes no learning: of those that messages advise, every one, and more.
CHANGES = [
    (1, "best", "val/psnr"),
    (1, "dataset.data_dir", "elsewhere"),
    (1, "dataset.folder", "elsewhere"),
    (1, "dataset.max_bad", 0.5),
    (1, "dataset.workers", 3),
    (1, "eval_batch_size", 3),
    (1, "resume", "last_good"),
    (1, "changed_data", True),
    (1, "mesh", {"fsdp": 2}),
    (1, "mesh", {"tensor": 2}),
    (1, "tokenizer.encoder.remat", True),
    (1, "tokenizer.decoder.unroll", 0),
    (2, "dataset.max_bad", 0.5),
    (2, "generator.remat", True),
    (2, "generator.unroll", 0),
    (2, "generator.chunk", 1),
    (2, "tokenizer.model.encoder.remat", True),
]


def changed(config, key, value):
    """Give a key of a config another value."""
    *names, last = key.split(".")
    with config.unlocked():
        config_files.at(config, names)[last] = value


def dotted(key, value):
    """The keys that a change is of: of a section those in it."""
    return [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]


# Of the keys that may change those that bring another with them, which training adds and which may
# not: so they are for a new run, but in messages of these files, on ids that a run has had already.
BRING = {"dataset.codes": ("data/stored_ids.py",)}
# That of another tokenizer is refused by its weights.
COMPARED = {"tokenizer.weights": "of the benchmarks that train both"}


def test_what_messages_advise_may_change_when_a_run_goes_on_or_is_said_to_be_for_a_new_one():
    tried = {name for _, key, value in CHANGES for name in dotted(key, value)}
    found = {}
    for file, text in messages():
        for key in advised(text):
            found.setdefault(key, []).append((file, text))
    # Those that were meant, so that the search does find what there is.
    known = {"dataset.max_bad", "resume", "mesh.fsdp", "mesh.tensor", "generator.remat"}
    assert known | {"batch_size", "optimizer.accumulate"} <= {*found}
    for key, said in found.items():
        if key in BEFORE or key in COMPARED:
            continue
        if resume_rules.may_change(key) and key not in BRING:
            assert key in tried, f"{key} is advised, and that it may change is not tried"
            continue
        for file, text in said:
            if file in BRING.get(key, ()):
                continue
            assert "new run" in text, f"{file}: a run that goes on cannot change {key}: {text}"
    assert {*BEFORE} <= {*found}


def test_advice_is_found():
    assert advised("it broke: repair it, or raise config.dataset.max_bad") == ["dataset.max_bad"]
    assert advised("config.batch_size = {} is wrong") == []
    assert advised(errors.LESS_MEMORY)[
        0
    ] == "eval_batch_size" and "optimizer.accumulate" in advised(errors.LESS_MEMORY)


def test_a_full_memory_tells_what_gives_more_of_a_gpu():
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.9" in errors.out_of_memory("no room")
    assert "\n" not in errors.out_of_memory()


@pytest.mark.parametrize("stage, key, value", CHANGES)
def test_what_changes_no_learning_may_change(stage, key, value, tmp_path):
    config = config_of(stage)
    if key == "dataset.folder":
        config.dataset.update({"name": "", "folder": "pictures"})
    resume_rules.claim(tmp_path, config)
    changed(config, key, value)
    assert resume_rules.may_change(key)
    resume_rules.check_claim(tmp_path, config)
    assert build.differences(resume_rules.read_config(tmp_path).to_dict(), config.to_dict())


def test_a_run_on_images_does_not_go_on_from_stored_ids(tmp_path, monkeypatch):
    """The key itself may change, as the folder may move, but not what is trained on."""
    monkeypatch.setattr(stage2, "stored_info", lambda config: {"splits": {"train": {"views": 1}}})
    images = stage2.resolve(config_of(2))
    resume_rules.claim(tmp_path, images)
    ids = images.copy_and_resolve_references()
    changed(ids, "dataset.codes", "ids")
    ids = stage2.resolve(ids)
    with pytest.raises(InputError, match=r"config\.stored_ids: .*, for a new run"):
        resume_rules.check_claim(tmp_path, ids)
    resume_rules.claim(tmp_path, ids, fresh=True)
    changed(ids, "dataset.codes", "moved")
    resume_rules.check_claim(tmp_path, stage2.resolve(ids))
    assert {*BRING} == {"dataset.codes"}


@pytest.mark.parametrize(
    "stage, key, value",
    [(1, "optimizer.accumulate", 4), (2, "optimizer.accumulate", 4), (2, "batch_size", 2)],
)
def test_what_changes_learning_is_for_a_new_run(stage, key, value, tmp_path):
    config = config_of(stage)
    resume_rules.claim(tmp_path, config)
    changed(config, key, value)
    with pytest.raises(InputError, match=rf"config.{key}: .*, for a new run, with these weights"):
        resume_rules.check_claim(tmp_path, config)


def stepped(config, module):
    """The state after a step on random images, and the metrics."""
    stage = module.make(config, 8)
    rng = np.random.default_rng(0)
    size = config.dataset.size
    image = rng.integers(0, 256, (config.batch_size, size, size, 3), np.uint8)
    batch = {"image": image, "label": np.zeros(config.batch_size, np.int32)}
    return jax.jit(stage.update)(jax.jit(stage.init)(), batch)


def test_a_step_of_a_generator_is_the_same_whatever_is_kept_and_compiled():
    """But for rounding; in parts of a batch, masks are drawn anew for each."""
    config = config_of(2)
    assert config.generator.get("dropout", 0.0) == 0 and config.batch_size % 4 == 0
    _, plain = stepped(config, stage2)
    config.generator.update({"remat": True, "unroll": 0, "chunk": 1})
    _, other = stepped(config, stage2)
    for name in ("loss", "gradient_norm"):
        assert float(other[name]) == pytest.approx(float(plain[name]), rel=1e-4)
    config.optimizer.accumulate = 4
    _, parts = stepped(config, stage2)
    assert float(parts["loss"]) != pytest.approx(float(plain["loss"]), rel=1e-3)


def test_parts_of_a_batch_move_a_codebook_of_averages_further():
    """So config.optimizer.accumulate is no key that a run may change: each part takes a decay."""
    usage = {}
    for parts in (1, 4):
        config = config_of(1)
        config.adversarial.weight = 0.0
        config.tokenizer.quantizer = {"name": "ema", "codes": 8, "width": 8, "decay": 0.5}
        config.optimizer.accumulate = parts
        state, _ = stepped(config, stage1)
        usage[parts] = np.asarray(state["codebook"]["quantizer"]["usage"])
    assert not np.allclose(usage[1], usage[4], rtol=0.05)


def test_a_run_whose_checkpoint_does_not_fit_the_disk_takes_no_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(space, "free", lambda place: 1000)
    with pytest.raises(
        InputError, match="a checkpoint takes about .*, and there are 1,000 bytes free"
    ):
        loop.train(config_of(1), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert "WARNING" not in capsys.readouterr().out


def of_stage(stage):
    """The shapes of a stage's state, of a tiny model."""
    config = config_of(stage)
    made = {1: stage1, 2: stage2}[stage].make(config, 64, 10)
    return jax.eval_shape(made.init)


def wide():
    """The shapes of a model with few large arrays, and the first moments in bfloat16."""
    params = {"a": jax.ShapeDtypeStruct((1024, 1024), np.float32)}
    moments = {"mu": jax.ShapeDtypeStruct((1024, 1024), jax.numpy.bfloat16), "nu": params["a"]}
    return {"params": params, "opt": moments, "step": jax.ShapeDtypeStruct((), np.int32)}


@pytest.mark.parametrize(
    "shapes, within", [(lambda: of_stage(1), 0.35), (lambda: of_stage(2), 0.35), (wide, 0.05)]
)
def test_a_checkpoint_takes_about_what_is_said_of_it(shapes, within, tmp_path):
    """Of numbers as weights have them: drawn from a normal distribution.

    Of small arrays orbax writes a fifth more or less, by which of its threads come first.
    """
    shapes, rng = shapes(), np.random.default_rng(0)

    def drawn(x):
        return jax.numpy.asarray(rng.normal(size=x.shape).astype(x.dtype))

    state = jax.tree.map(drawn, optim.averaged(shapes))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(3, state)
    checkpoints.close()
    files = [file for file in (tmp_path / "checkpoints" / "3").rglob("*") if file.is_file()]
    taken = sum(file.stat().st_size for file in files)
    assert disk.need(shapes, config_of(1), tmp_path).each == pytest.approx(taken, rel=within)


@pytest.mark.parametrize("share, warned", [(1.5, 1), (10.0, 0)])
def test_a_disk_that_may_get_full_is_a_warning(share, warned, monkeypatch, tmp_path, capsys):
    class Setup:
        config, workdir = config_of(1), tmp_path
        length = type("Length", (), {"total": 10})
        compiled = type("Compiled", (), {"abstract_state": {"params": np.zeros(1000, np.float32)}})

    each = disk.need(Setup.compiled.abstract_state, Setup.config, tmp_path).each
    monkeypatch.setattr(space, "free", lambda place: int(share * each))
    disk.check(Setup, 0)
    assert capsys.readouterr().out.count("WARNING the disk may get full: 3 checkpoints") == warned
    disk.check(Setup, 10)  # it is finished: nothing is saved
    assert "WARNING" not in capsys.readouterr().out


def test_broken_images_are_forgiven_by_what_is_given_with_the_config_of_a_workdir(tmp_path):
    config = config_of(1)
    resume_rules.claim(tmp_path, config)
    with config.unlocked():
        config.dataset.max_bad, config.eval_batch_size = 0.0, 3
    found = resume_rules.settings(config, tmp_path)
    assert (found.dataset.max_bad, found.eval_batch_size) == (0.0, 3)


def test_what_a_run_was_trained_on_is_noted_when_a_step_is_taken(tmp_path):
    place, images = workdirs.copy(tmp_path / "run") / "tokenizer", tmp_path / "images"
    shutil.copytree(workdirs.trained() / "images", images)
    noted = lambda: resume_rules.read_config(place).data.examples  # noqa: E731
    (config, _), before = workdirs.configs(images), noted()
    for path in (images / "ant").iterdir():
        shutil.copyfile(path, images / "bee" / f"{path.name[0]}_.png")
    with pytest.raises(InputError, match="and .* are there now"):
        loop.train(config, place)
    config.changed_data = True
    loop.train(config, place)  # it is finished
    assert noted() == before and not resume_rules.read_config(place).get("changed_data")
    config.duration = "7 steps"
    loop.train(config, place)
    assert noted() > before and "changed_data" not in resume_rules.read_config(place)


def test_a_command_that_takes_no_step_says_which_other_keys_the_run_goes_by_then(tmp_path, capsys):
    place = workdirs.copy(tmp_path / "run") / "tokenizer"
    config, _ = workdirs.configs(workdirs.trained() / "images")

    def said(**keys):
        given = config.copy_and_resolve_references()
        for key, value in keys.items():
            changed(given, key.replace("__", "."), value)
        loop.train(given, place)
        return [line for line in capsys.readouterr().out.splitlines() if "config." in line]

    assert said() == []
    line = f"config.dataset.max_bad: {{}} -> {{}}: {place} goes by this from now on"
    assert said(dataset__max_bad=0.2) == [line.format(0.01, 0.2)]
    assert said(dataset__max_bad=0.2) == []
    assert said() == [line.format(0.2, 0.01)]  # left out, it has its default again
    assert said(dataset__max_bad=0.01) == []
    (found,) = said(eval_batch_size=3)
    assert re.fullmatch(r"config\.eval_batch_size: \S+ -> 3: numbers that this changes .*", found)
