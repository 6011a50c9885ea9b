"""Own images in one go: what is proposed, what is given, kept, gone on with, and refused."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image
from test_configs import load

from evqgan import main, quickstart
from evqgan.core import (
    build,
    config_files,
    exported,
    exported_weights,
    files,
    mesh,
    quickstart_record,
)
from evqgan.core.errors import InputError
from evqgan.core.space import GIB
from evqgan.own_images import config as own
from evqgan.own_images import proposal
from evqgan.own_images.proposal import Asked, Device
from evqgan.training import initial_state, stage1, stage2

CPU = Device("CPU", False, 16 * GIB)
# GiB of a GPU, of which JAX leaves three quarters to programs.
GPU = {gib: Device("H100", True, 0.75 * gib * GIB) for gib in (8, 16, 24, 80)}

# (images, shorter side of a tenth, device): (size, tokens a side, codes, layers, batches, steps)
PROPOSED = [
    ((8, 300, CPU), (64, 8, 128, 4, (8, 8), (500, 500))),
    ((50, 300, CPU), (64, 8, 128, 4, (16, 32), (700, 500))),
    ((300, 300, CPU), (64, 8, 256, 4, (16, 32), (3_800, 1_900))),
    ((300, 40, CPU), (32, 8, 256, 4, (16, 32), (3_800, 1_900))),
    ((300, 10, CPU), (32, 8, 256, 4, (16, 32), (3_800, 1_900))),
    ((20_000, 64, CPU), (64, 8, 512, 4, (16, 32), (4_000, 6_000))),
    ((300, 300, GPU[80]), (128, 16, 512, 6, (32, 64), (3_000, 2_000))),
    ((2_000, 300, GPU[80]), (256, 16, 512, 12, (32, 64), (12_500, 6_300))),
    ((2_000, 300, GPU[24]), (256, 16, 512, 12, (16, 64), (25_000, 6_300))),
    ((2_000, 300, GPU[16]), (256, 16, 512, 12, (16, 32), (25_000, 12_500))),
    ((2_000, 300, GPU[8]), (128, 16, 512, 12, (16, 16), (25_000, 25_000))),
    ((300, 300, GPU[8]), (128, 16, 512, 6, (16, 64), (3_800, 2_000))),
    ((50_000, 100, GPU[80]), (64, 16, 1024, 12, (32, 64), (60_000, 60_000))),
]


@pytest.mark.parametrize("given, expected", PROPOSED)
def test_proposals_are_those_of_the_table(given, expected):
    made = proposal.propose(*given, Asked())
    first, second = made.tokenizer, made.generator
    size = first["dataset.size"]
    factor = 2 * 2 ** len(first["tokenizer.encoder.depths"])
    assert expected == (
        size,
        size // factor,
        first["tokenizer.quantizer.codes"],
        second["generator.layers"],
        (first["batch_size"], second["batch_size"]),
        tuple(int(part["duration"].split()[0]) for part in (first, second)),
    )
    assert size // factor % second["generator.window"] == 0 and len(made.reasons) == 4
    assert all(reason and "\n" not in reason for reason in made.reasons)
    often = "2000 steps" if given[-1].accelerator else "250 steps"
    assert [part["checkpoint_every"] for part in (first, second)] == [often] * 2


def test_what_is_asked_decides_what_hangs_on_it():
    made = proposal.propose(300, 300, CPU, Asked(size=128, factor=8))
    assert made.generator["generator.window"] == 8  # 16 tokens a side
    assert "as given" in made.reasons[0] and not made.critic
    assert proposal.propose(300, 300, CPU, Asked(critic=True)).critic
    assert proposal.propose(300, 300, GPU[80], Asked(), has=True).critic
    lost = proposal.propose(9, 9, GPU[8], Asked()).reasons[-1]
    assert "will be soft, for good" in lost and "efficientnet_lite0 --package" in lost
    assert "config.critic=True and another --workdir" in lost
    assert proposal.propose(300, 300, CPU, Asked(), grid=16).generator["generator.extend"] == 2
    four = Device("T4", True, 80 * GIB, 4)
    assert proposal.propose(9, 300, four, Asked()).tokenizer["batch_size"] % 4 == 0


def test_memory_is_that_which_programs_may_take_and_decides_batches_of_each_size():
    def batches(gib, *asked):
        made = proposal.propose(20_000, 300, GPU[gib], Asked(*asked))
        return made.tokenizer["batch_size"], made.generator["batch_size"]

    assert batches(24, 256) == batches(24) == (16, 64)
    assert batches(24, 512) == (4, 16)  # 32 tokens a side of 16 pixels
    assert batches(80, 512) == (16, 32)
    assert batches(80, 64, 4) == (32, 64)
    said = proposal.propose(20_000, 600, GPU[8], Asked()).reasons[0]
    assert said.startswith("size 128: as the 6 GiB that programs may take allow")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two classes of eight pictures."""
    place, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for k in range(16):
        path = place / ("cat", "dog")[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), np.uint8)).save(path)
    return place


@pytest.fixture
def completed(pictures, tmp_path, monkeypatch):
    """A function of overrides and a workdir's name: what `own.begin` makes of configs/folder.py."""
    monkeypatch.setattr(own, "estimate", lambda *given: 0.0)
    checked = []

    def complete(*keys, run="run", check=checked.append):
        config = load("folder")
        given = [f"--config.{key}" for key in (f"dataset.folder={pictures}", *keys)]
        config_files.override(config, given)
        return own.begin(config, tmp_path / run, check)

    return complete


def begun(workdir, config, part):
    """Save the config of a part as its training does."""
    files.save_json(workdir / part / "config.json", json.loads(config[part].to_json()))


def test_a_folder_alone_makes_both_stages(completed, tmp_path, capsys, pictures):
    config = completed()
    said = capsys.readouterr().out
    for words in (
        "16 images in",
        "2 classes",
        "size 64: ",
        "WARNING 14 images to train on",
        "image is seen",
    ):
        assert words in said, words
    quickstart.check_all(config, tmp_path / "new")  # nothing is open any more
    for part in own.PARTS:
        assert build.plain(config[part].dataset) == {"size": 64, "folder": str(pictures)}
    assert json.loads((tmp_path / "run" / "survey.json").read_text())["images"] == 16
    assert build.plain(config.tokenizer.evals) == {"reconstruction": {}}


def test_what_is_given_for_both_and_for_one_comes_first(completed):
    config = completed(
        "duration=7 steps",
        "batch_size=2",
        "learning_rate=0.5",
        "seed=3",
        "generator.seed=4",
        "factor=4",
        "dataset.size=32",
        "dataset.flip=False",
        "generator.duration=9 steps",
        "generator.generator.layers=1",
    )
    first, second = config.tokenizer, config.generator
    assert (first.duration, second.duration) == ("7 steps", "9 steps")
    assert (first.seed, second.seed) == (3, 4)
    for part in (first, second):
        assert (part.batch_size, part.optimizer.learning_rate) == (2, 0.5)
        assert part.dataset.size == 32 and part.dataset.flip is False
    assert len(first.tokenizer.encoder.depths) == 1 and second.generator.layers == 1


def test_a_run_goes_on_as_it_was_proposed_whatever_the_folder_holds_now(
    completed, tmp_path, monkeypatch
):
    before = completed()
    begun(tmp_path / "run", before, "tokenizer")
    monkeypatch.setattr(own, "survey", None)
    monkeypatch.setattr(proposal, "propose", None)
    assert completed() == before
    assert completed("dataset.size=32").generator.dataset.size == 32  # which is refused then
    with pytest.raises(InputError, match="begun with config.factor = None, now it is 4"):
        completed("factor=4")
    with pytest.raises(TypeError):  # the folder is looked through again
        completed("changed_data=True")


def test_how_often_it_saves_is_for_both_or_for_one_and_older_plans_do_not_say_it(
    completed, tmp_path
):
    def often(config):
        return [config[part].checkpoint_every for part in own.PARTS]

    assert often(completed()) == ["250 steps"] * 2
    keys = "checkpoint_every=90 steps", "generator.checkpoint_every=7 steps"
    assert often(completed(*keys)) == ["90 steps", "7 steps"]  # of a run that goes on
    file = tmp_path / "run" / "plan.json"
    plan = json.loads(file.read_text())
    for part in own.PARTS:
        del plan[part]["checkpoint_every"]
    file.write_text(json.dumps(plan))
    assert often(completed()) == ["250 steps"] * 2


def test_a_longer_duration_is_of_both_until_the_generator_knows_the_codes(completed, tmp_path):
    def durations(config):
        return [config[part].duration for part in own.PARTS]

    config = completed("duration=4 steps")
    begun(tmp_path / "run", config, "tokenizer")
    assert durations(completed("duration=8 steps")) == ["8 steps", "8 steps"]
    begun(tmp_path / "run", config, "generator")
    longer = completed("duration=8 steps")
    assert durations(longer) == ["4 steps", "8 steps"]
    begun(tmp_path / "run", longer, "generator")
    assert durations(completed()) == ["4 steps", "8 steps"]  # it is remembered


def test_a_longer_run_that_is_stopped_before_its_generator_goes_on_by_its_workdir_alone(
    completed, pictures, tmp_path, monkeypatch
):
    def stopped(*given):
        raise InputError("stopped")

    def trained(duration):
        keys = f"--config.dataset.folder={pictures}", f"--config.duration={duration}"
        with pytest.raises(InputError, match="^stopped$"):
            quickstart.run(
                completed(f"duration={duration}"), run, quickstart_record.Command("folder", keys)
            )
        return main.parse([f"--workdir={run}"])[1].duration

    run = tmp_path / "run"
    monkeypatch.setattr(quickstart, "check_all", lambda *given: None)
    monkeypatch.setattr(quickstart, "train", stopped)
    assert trained("4 steps") == "4 steps"
    begun(run, completed("duration=4 steps"), "tokenizer")
    assert trained("8 steps") == "8 steps"
    monkeypatch.setattr(quickstart.resume_rules, "check_before_data", stopped)
    assert trained("9 steps") == "8 steps"  # it may be refused, and is noted when both have trained


def test_nothing_is_written_for_what_cannot_be_trained(completed, tmp_path):
    def refuse(config):
        raise InputError("no")

    with pytest.raises(InputError, match="^no$"):
        completed(check=refuse)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "key, message",
    [
        ("dataset.name=digits", "a folder of images is expected, got config.dataset.name"),
        ("dataset.folder=", "a folder of images is expected, got none: give --config.dataset.fol"),
        ("tokenizer.dataset.size=32", "give --config.dataset.size instead"),
        ("dataset.sizes=32", "config.dataset has no key 'sizes': did you mean 'size'"),
        ("init=nowhere", "expected the workdir of both stages, or an exported model"),
        ("optimizer.learning_rate=1", "mean 'generator.optimizer' or 'tokenizer.optimizer'"),
    ],
)
def test_what_makes_no_sense_for_both_is_refused_in_a_line(completed, key, message):
    with pytest.raises(InputError) as caught:
        completed(key)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [".", "cat", "runs/first"])
def test_a_workdir_among_the_images_is_refused_before_anything_is_written(
    completed, tmp_path, pictures, place
):
    before = sorted(pictures.rglob("*"))
    with pytest.raises(InputError, match="lies in the folder of images"):
        completed(run=pictures / place)
    assert sorted(pictures.rglob("*")) == before


def test_a_workdir_that_cannot_be_written_is_refused_before_the_folder_is_looked_through(
    completed, tmp_path, capsys
):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*file/run"):
        completed(run="file/run")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("key", ["batch_size", "generator.batch_size"])
def test_a_batch_of_more_images_than_there_are_is_refused(completed, tmp_path, key):
    with pytest.raises(InputError, match=rf"config.{key} = 20,000 is more than the 14 images to"):
        completed(f"{key}=20000")
    assert not (tmp_path / "run").exists()
    assert completed(f"{key}=12").generator.batch_size == 12


@pytest.mark.parametrize("factor", [0, 3, 64])
def test_a_factor_that_cannot_be_proposed_is_refused(completed, factor):
    with pytest.raises(InputError, match=f"config.factor = {factor}: expected one of 4, 8, 16"):
        completed(f"factor={factor}")


@pytest.mark.parametrize(
    "key, message",
    [
        ("duration=5%", "config.duration expects more than 0: a number of steps, "),
        ("duration=banana steps", "config.duration expects more than 0: a number of steps"),
        ("generator.duration=5%", '"1000 steps" or "20 epochs", got \'5%\''),
        ("tokenizer.duration=0 steps", "config.tokenizer.duration expects more than 0"),
        ("batch_size=0", "config.batch_size expects a whole number from 1, got 0"),
        ("learning_rate=-1.0", "config.learning_rate expects a number from 0, got -1.0"),
        ("generator.seed=-1", "config.generator.seed expects a whole number from 0 to"),
        ("generator.generator.layrs=2", "config.generator.generator has no key 'layrs': did you"),
        ("tokenizer.learning_rate=3e-4", "or 'optimizer.learning_rate'"),
        ("tokenizer.factor=4", "no key 'factor': did you mean 'config.factor' or"),
        ("generator.critic=True", "no key 'critic': did you mean 'config.critic'"),
        ("generator.sample.stepps=2", "config.generator.sample has no key 'stepps': did you mean"),
        ("generator.loss.target=2", "config.generator.loss has no key 'target': did you mean 'tar"),
        ("tokenizer.tokenizer.quantizer.codez=2", "tokenizer.quantizer has no key 'codez': did"),
        ("tokenizer.tokenizer.encoder.window=0", "encoder.window expects a whole number from 1"),
        ("tokenizer.adversarial.critic.name=none", "config.tokenizer.adversarial.critic names"),
    ],
)
def test_what_no_folder_makes_right_is_refused_before_it_is_looked_through(
    completed, monkeypatch, key, message
):
    monkeypatch.setattr(own, "survey", None)
    with pytest.raises(InputError) as caught:
        completed(key)
    assert message in str(caught.value)


def test_a_value_of_another_kind_names_the_kind_of_what_is_proposed(completed):
    with pytest.raises(InputError, match="learning_rate expects a value of type float, got 'fast'"):
        completed("learning_rate=fast")


def test_a_size_beside_a_model_of_another_is_refused(completed):
    with pytest.raises(InputError, match="dataset.size = 32 is given beside config.init"):
        completed("init=drawings", "dataset.size=32")


@pytest.mark.parametrize("parts", [("tokenizer",), ("tokenizer", "generator")])
@pytest.mark.parametrize(
    "keys", [(), ("dataset.size=32", "critic=False"), ("init=drawings",), ("factor=8",)]
)
def test_a_plan_that_is_damaged_is_made_again_by_the_command_that_made_the_run(
    completed, tmp_path, monkeypatch, parts, keys
):
    """Its parts stay as they were begun, though by now another device proposes otherwise."""
    plan, run = tmp_path / "run" / "plan.json", tmp_path / "run"
    first = completed(*keys, "generator.optimizer.learning_rate=0.01")
    there = first.copy_and_resolve_references()
    with there.unlocked(), there.ignore_type():  # what training adds
        first_stage = {"model": there.tokenizer.tokenizer, "dtype": there.tokenizer.dtype}
        there.generator.tokenizer = {"weights": str(run / "tokenizer"), **first_stage}
        there.generator.generator.classes = 2
    for part in parts:
        begun(run, there, part)
    plan.write_bytes(plan.read_bytes()[:100])
    with pytest.raises(InputError, match=r"plan.json is not what .* move it away and give the com"):
        completed(*keys, "generator.optimizer.learning_rate=0.01")
    plan.unlink()
    if len(parts) == 2 or keys:
        monkeypatch.setattr(proposal, "here", lambda: Device("T4", True, 80 * proposal.GIB))
    with pytest.raises(InputError, match="config.optimizer.ema: .*give another --workdir"):
        completed(*keys, "generator.optimizer.learning_rate=0.01", "tokenizer.optimizer.ema=0.5")
    assert not plan.exists()
    again = completed(*keys, "generator.optimizer.learning_rate=0.01")
    for part in parts:
        assert build.plain(again[part]) == build.plain(first[part])
    size = first.tokenizer.dataset.size
    assert size == again.tokenizer.dataset.size == again.generator.dataset.size and plan.is_file()
    assert completed(*keys, "generator.optimizer.learning_rate=0.01").to_json() == again.to_json()


def test_a_workdir_without_its_plan_is_none_of_the_config(tmp_path):
    with pytest.raises(InputError, match="is no workdir of this config"):
        own.saved(load("folder"), tmp_path / "other")


def test_a_shipped_model_is_fine_tuned_by_one_key(completed, tmp_path):
    config = completed("init=drawings", "duration=2 steps")
    for part, stage in own.PARTS.items():
        theirs = initial_state.config_of(exported.find("drawings"), stage)
        assert config[part].init == "drawings" and config[part].dataset.size == 64
        same = {**theirs[part], "classes": None} if part == "generator" else theirs[part]
        assert build.plain(config[part][part]) == build.plain(same)
    for key in ("factor=8", "tokenizer.tokenizer.encoder.width=8", "generator.generator.layers=1"):
        with pytest.raises(InputError, match=rf"{key.split('=')[0]} is given beside config.init"):
            completed("init=drawings", key, run="other")


def test_what_says_how_a_model_is_computed_goes_beside_one_that_ships(completed):
    """All else of a model is refused, a 0 too: it would be lost without a word."""
    config = completed("init=drawings", "generator.generator.remat=True")
    theirs = initial_state.config_of(exported.find("drawings"), "stage2")["generator"]
    assert config.generator.generator.remat is True and not theirs["remat"]
    for key in ("dropout=0", "class_dropout=0.3"):
        with pytest.raises(InputError, match=f"generator.{key.split('=')[0]} is given beside con"):
            completed("init=drawings", f"generator.generator.{key}", run="other")


@pytest.mark.parametrize("key", ["tokenizer", "critic"])
def test_a_plan_of_other_values_is_damaged(completed, tmp_path, key):
    completed()
    file = tmp_path / "run" / "plan.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: "x"}))
    with pytest.raises(InputError, match=f"plan.json is damaged, its '{key}' is not as it was"):
        completed()


def test_both_stages_begin_with_the_weights_of_a_shipped_model(completed):
    """The classes are others: their table begins untrained. No step is compiled."""
    config = completed("init=drawings")
    folder = exported.find("drawings")
    arrays = exported_weights.read(folder)
    for part, module in (("tokenizer", stage1), ("generator", stage2)):
        one = config[part]
        if part == "generator":
            with one.unlocked():
                one.tokenizer = {"weights": "drawings", "model": {}}
            one = module.resolve(one, 2)
        shapes = jax.eval_shape(module.make(one, 16, 2).init)
        places = mesh.shardings(shapes, mesh.make(devices=jax.devices()[:1]))
        like = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
        )
        new = jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), shapes)
        state, lines = initial_state.inherited(new, like, one, module)
        assert f"begins with the weights of {folder}, step " in lines[0]
        found = initial_state.named(state, ("params", "ema", "codebook"))
        fresh = {name for name, x in found.items() if (np.asarray(x) == 7).all()}
        classes = {name for name in found if "label/embedding" in name}
        assert fresh == classes and (classes or part == "tokenizer")
        for name, x in arrays.items():
            name = name.replace(f"{part}/params", "ema")
            if name.startswith("ema") and name not in classes:
                np.testing.assert_array_equal(x, found[name])
                np.testing.assert_array_equal(x, found[name.replace("ema", "params", 1)])
        others = any("the tokenizer is not the one" in line for line in lines)
        assert others == (part == "generator")  # here filled with 7


def test_an_exported_tokenizer_begins_no_generator(tmp_path):
    config = json.loads((exported.find("drawings") / "config.json").read_text())
    files.save_json(tmp_path / "config.json", {**config, "generator": None})
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match="is an exported tokenizer, without a gen"):
        initial_state.config_of(tmp_path, "stage2")


def test_the_command_trains_what_was_completed_and_other_modes_find_it(
    completed, pictures, tmp_path, monkeypatch, capsys
):
    trained = []
    monkeypatch.setattr(quickstart, "run", lambda *given: trained.append(given))
    command = ["evqgan", "--config=folder", f"--config.dataset.folder={pictures}"]
    command += [f"--workdir={tmp_path / 'new'}", "--config.duration=3 steps"]
    command += ["--config.generator.generator.layers", "1", "--config.generator.duration=4 steps"]
    assert main.main(command) == 0
    (config, workdir, command), said = trained[0], capsys.readouterr().out
    assert workdir == pathlib.Path(tmp_path / "new") and config.generator.duration == "4 steps"
    assert "longer training: python -m evqgan.main --config=folder --config.dataset.fo" in said
    assert f"layers=1 --workdir={workdir} --config.duration=" in said  # all that was given
    kept = "given, and so not as proposed: duration = '3 steps', generator.generator.layers = 1"
    assert kept in json.loads((workdir / "plan.json").read_text())["reasons"][-1]
    (workdir / "tokenizer").mkdir()
    (workdir / "tokenizer" / "config.json").write_text("{}")
    assert main.main(["evqgan", f"--workdir={workdir}", "--config.duration=9 steps"]) == 2
    assert "that which both stages in" in capsys.readouterr().err
    (workdir / "tokenizer" / "config.json").unlink()
    # By what it was begun with, it goes on by its workdir alone, with the durations that it has.
    quickstart_record.save(workdir, command)
    _, again = main.parse([f"--workdir={workdir}", "--config.samples=3"])
    assert (again.duration, again.generator.duration, again.samples) == ("3 steps", "4 steps", 3)
    for part in exported.PARTS:
        (workdir / part).mkdir(exist_ok=True)
        (workdir / part / "config.json").write_text('{"duration": "7 steps"}')
    _, again = main.parse([f"--workdir={workdir}"])
    again = own.saved(again, workdir)
    assert (again.tokenizer.duration, again.generator.duration) == ("7 steps", "7 steps")
    assert again.generator.generator.layers == 1
    for part in exported.PARTS:
        (workdir / part / "config.json").unlink()
    given = load("folder")
    given.dataset.folder, given.duration = str(pictures), "3 steps"
    given.generator.generator.layers, given.generator.duration = 1, "4 steps"
    assert own.saved(given, workdir).to_json() == config.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("init", ["", "drawings"])
def test_a_folder_is_trained_sampled_and_evaluated_in_one_go(pictures, tmp_path, init):
    command = ["evqgan", "--config=folder", f"--config.dataset.folder={pictures}"]
    command += [f"--workdir={tmp_path / 'run'}", "--config.duration=2 steps"]
    command += ["--config.batch_size=2"]
    if init:
        command += [f"--config.init={init}"]
    else:
        command += ["--config.dataset.size=32", "--config.generator.generator.layers=1"]
    for _ in range(2):  # the second time nothing is made again
        assert main.main([*command, "--config.samples=4"]) == 0
    for name in ("survey.json", "plan.json", "evaluation.json", "edits.png", "samples/grid.png"):
        assert (tmp_path / "run" / name).is_file()
    assert main.main([*command, "--mode=sample", "--num=2", f"--out={tmp_path / 'more'}"]) == 0
