"""Exported models: what a folder holds, that it is the model it was made of, and all modes on it.

The models that ship are read by their names.
"""

import ast
import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import workdirs
import yaml
from PIL import Image

import evqgan
from evqgan import main
from evqgan.core import exported, exported_weights, pictures
from evqgan.core.errors import InputError
from evqgan.evals import provenance
from evqgan.export import __main__ as export
from evqgan.export import card as cards_of
from evqgan.export import check, gathered, programs, pushing, sources
from evqgan.export import folder as folders
from evqgan.inference.evaluation import subject_of
from evqgan.training import initial_state, stage2

ROOT = pathlib.Path(__file__).parent.parent
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `run`, a trained workdir, its exports in both dtypes, and `examples`.

    examples/small is the one that ships.
    """
    place = tmp_path_factory.mktemp("export")
    shutil.copytree(workdirs.trained(), place / "run")
    for dtype in exported_weights.DTYPES:
        run = str(place / "run"), str(place / dtype)
        more = [] if dtype == "float16" else ["--noprograms"]
        assert export.main([*run, f"--dtype={dtype}", *more]) == 0
    shutil.copytree(place / "float32", place / "examples" / "small")
    return place


@pytest.fixture(scope="module")
def models(place):
    return {name: evqgan.load(place / name) for name in ("run", *exported_weights.DTYPES)}


@pytest.fixture
def shipped(place, monkeypatch, tmp_path):
    """The folder of a model that ships as `small`; the current folder is an empty one."""
    monkeypatch.setattr(exported, "EXAMPLES", place / "examples")
    monkeypatch.chdir(tmp_path)
    return place / "examples" / "small"


def arrays(folder):
    return safetensors.numpy.load_file(folder / exported.WEIGHTS)


def texts(value):
    """All texts in a tree of JSON."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [text for x in inner for text in texts(x)]
    return [value] if isinstance(value, str) else []


def test_in_float32_it_is_the_model_of_the_workdir(models):
    run, ours = models["run"], models["float32"]
    ids = run.encode(IMAGES)
    np.testing.assert_array_equal(ours.encode(IMAGES), ids)
    np.testing.assert_array_equal(ours.decode(ids), run.decode(ids))
    np.testing.assert_array_equal(ours.generate(3, "cat", 1), run.generate(3, "cat", 1))
    assert ours.class_names == run.class_names == workdirs.NAMES
    assert (ours.step, ours.size, ours.sampler) == (run.step, run.size, run.sampler)
    with pytest.raises(TypeError):
        ours.sampler["temperature"] = 0.5
    with pytest.raises(AttributeError, match="read-only: give changes to a call"):
        ours.sampler = {}
    assert subject_of(ours).model.fingerprint == subject_of(run).model.fingerprint


def test_in_float16_it_is_that_model_but_for_rounding(models, place):
    run, ours = models["run"], models["float16"]
    ids = run.encode(IMAGES)
    assert np.mean(ours.encode(IMAGES) == ids) > 0.98
    assert np.abs(ours.decode(ids).astype(int) - run.decode(ids)).max() <= 2
    assert ours.generate(3, "cat", 1).shape == (3, 32, 32, 3)
    whole, half = (
        (place / name / exported.WEIGHTS).stat().st_size for name in ("float32", "float16")
    )
    assert half < 0.55 * whole


def test_a_folder_holds_the_weights_of_inference_alone(place, models):
    found = arrays(place / "float16")
    parts = {"/".join(name.split("/")[:2]) for name in found}
    assert parts == {"tokenizer/params", "tokenizer/codebook", "generator/params"}
    like = gathered.blank(models["run"].config)
    assert len(found) == len(jax.tree.leaves(like))
    whole = {name for name, x in found.items() if x.dtype == np.float32}
    assert whole == {name for name in found if name.startswith("tokenizer/codebook")}
    assert {x.dtype.name for x in found.values()} == {"float16", "float32"}


def test_no_place_of_this_machine_is_in_it(place):
    assert str(workdirs.trained()) in (place / "run" / "generator" / "config.json").read_text()
    found = json.loads((place / "float32" / "config.json").read_text())
    assert {text for text in texts(found) if "/" in text} == {"val/mse", "val/cross_entropy"}
    assert found["generator"]["dataset"]["folder"] == "images"
    assert found["steps"] == {"tokenizer": 6, "generator": 6}
    for file in ("README.md", "LICENSE.txt"):
        assert str(place.parent) not in (place / "float32" / file).read_text()


def test_numbers_of_these_weights_come_with_their_cards(place, models, tmp_path):
    about = subject_of(models["run"])
    card = {
        "numbers": ["fid", "sample_accuracy@cat"],
        "model": {"fingerprint": about.model.fingerprint},
    }
    card["real"] = {"source": str(place / "run" / "images"), "split": "train", "count": 60}
    other = {"numbers": ["psnr"], "model": {"fingerprint": "0123"}}
    numbers = {"fid": 12.5, "sample_accuracy@cat": 0.5, "psnr": 20.0}
    run = shutil.copytree(place / "run", tmp_path / "run")
    protocols = {"distribution": card, "reconstruction": other}
    (run / "evaluation.json").write_text(json.dumps({"numbers": numbers, "protocols": protocols}))
    said = []
    found = gathered.gather(str(run), say=said.append)
    assert found.evaluation["numbers"] == {"fid": 12.5, "sample_accuracy@cat": 0.5}
    assert found.evaluation["protocols"]["distribution"]["real"]["source"] == "images"
    assert len(said) == 1 and "reconstruction" in said[0] and "of other weights" in said[0]
    assert export.main([str(run), str(tmp_path / "out"), "--noprograms"]) == 0
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "fid", "name": "fid", "value": 12.5}]
    assert result["dataset"] == {"type": "images", "name": "images", "split": "train"}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == found.evaluation


def test_numbers_of_other_weights_are_left_out_unless_another_file_has_these(models, tmp_path):
    mark = subject_of(models["run"]).model.tokenizer

    def kept(folder, names, mark):
        folder.mkdir()
        cards = {"reconstruction": {"numbers": names, "model": {"fingerprint": mark}}}
        found = {"numbers": dict.fromkeys(names, 1.0), "protocols": cards}
        (folder / "evaluation.json").write_text(json.dumps(found))
        return folder

    def said(*places):
        lines = []
        found = gathered.evaluation_of([*places], models["run"].state, lines.append)
        assert found["numbers"] == {"mse": 1.0, "psnr": 1.0}
        return lines

    right = kept(tmp_path / "q", ["mse", "psnr"], mark)
    assert not said(kept(tmp_path / "same", ["psnr"], "0123"), right)
    for names, which in ((["psnr", "lpips"], ": lpips"), (["lpips"], "")):
        other = kept(tmp_path / "-".join(names), names, "0123")
        of = f"the numbers of reconstruction in {other / 'evaluation.json'} are of other weights"
        assert said(right, other) == said(other, right) == [f"{of}, and are left out{which}"]


@pytest.mark.parametrize("part, others", [("tokenizer", 1), ("generator", 0)])
def test_a_part_of_a_quickstart_has_its_numbers_from_where_both_were_measured(
    place, models, tmp_path, part, others
):
    about = subject_of(models["run"]).model
    of_tokenizer = {"numbers": ["psnr"], "model": {"fingerprint": about.tokenizer, "tokenizer": ""}}
    model = {"fingerprint": about.fingerprint, "tokenizer": about.tokenizer}
    of_generator = {"numbers": ["fid"], "model": model}
    run, said = shutil.copytree(place / "run", tmp_path / "run"), []
    protocols = {"reconstruction": of_tokenizer, "distribution": of_generator}
    numbers = {"psnr": 20.0, "fid": 12.5}
    (run / "evaluation.json").write_text(json.dumps({"numbers": numbers, "protocols": protocols}))
    found = gathered.gather(str(run / part), say=said.append).evaluation["numbers"]
    assert found == dict([*numbers.items()][: 2 - others])
    assert len(said) == others and all("are of a generator, and are left out" in x for x in said)


def test_a_card_says_what_it_is_and_what_is_not_known(place):
    text = (place / "float16" / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "other" and "model-index" not in head
    for part in ("| pictures | 32x32 pixels", "ant, bee, cat", "float16", "None were measured"):
        assert part in text
    lines = "images = model.generate(8, labels=", "mask[8:24, 8:24] = True", "edit(images[0], "
    for line in lines:
        assert line in text
    assert "6 steps of 4 images, of 50 training images" in text
    assert "images: A folder of pictures." in text and "has to say it here" in text
    assert not (place / "float16" / "evaluation.json").exists()


def test_the_current_folder_is_refused_in_a_line(tmp_path, monkeypatch, capsys):
    """It would be replaced below the shell that is in it."""
    monkeypatch.chdir(tmp_path)
    for arguments in (["drawings", "."], ["drawings", f"../{tmp_path.name}"]):
        assert export.main(arguments) == 2
        assert "is the current folder: give the name of a new one" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_card_holds_classes_and_a_folder_of_any_name(models, place):
    found = gathered.gather(str(place / "run" / "generator"), say=lambda line: None)
    names = found.configs["generator"]["class_names"]
    found.configs["generator"]["class_names"] = ['a|"b"', "Blätter\nund", *names[2:]]
    source = sources.Source("my | pictures")
    text = cards_of.Card('mine "x"', found, source, "float32", 1).text()
    table = text.partition("| | |\n")[2].partition("\n\n")[0].splitlines()
    assert all(line.replace("\\|", "").count("|") == 3 for line in table)
    assert "Blätter und" in text and "my \\| pictures" in text
    python = text.partition("```python\n")[2].partition("```")[0]
    calls = [node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Call)]
    load = next(call for call in calls if call.func.attr == "load")
    assert load.args[0].value == 'mine "x"'


@pytest.mark.parametrize(
    "averages, steps, line",
    [
        ((0.9, 0.9), (6, 6), "averaged ones (EMA)"),
        ((0, 0), (6, 6), "those of the last step"),
        ((0.9, 0), (6, 6), "tokenizer: averaged ones (EMA); generator: those of the last step"),
        ((0.9, 0.9), (0, None), "as they came, converted or of unknown training"),
    ],
)
def test_a_card_says_which_weights_it_is_of(place, averages, steps, line):
    found = gathered.gather(str(place / "run" / "generator"), say=lambda line: None)
    assert [*found.configs] == ["tokenizer", "generator"]
    for config, average in zip(found.configs.values(), averages, strict=True):
        config["optimizer"]["ema"] = average
    found = dataclasses.replace(found, steps=dict(zip(found.configs, steps, strict=True)))
    text = cards_of.Card("x", found, sources.Source("images"), "float32", 1).text()
    assert f"| weights | {line}, float32, " in text


def test_a_card_says_of_real_images_what_is_known(place):
    found = gathered.gather(str(place / "run" / "generator"), say=lambda line: None)
    real = {"source": "ref.npz", "split": "", "count": None}
    card = {"numbers": ["fid"], "real": real}
    evaluation = {"numbers": {"fid": 12.5}, "protocols": {"distribution": card}}
    found = dataclasses.replace(found, evaluation=evaluation)
    made = cards_of.Card("x", found, sources.Source("images"), "float32", 1)
    assert "| fid | 12.5 | distribution | ref.npz |" in made.text()
    real |= {"split": "train", "count": 1}
    assert "| fid | 12.5 | distribution | ref.npz train, 1 image |" in made.text()


@pytest.mark.parametrize(
    "part, classes, pipeline, task",
    [
        ("generator", 3, None, "conditional-image-generation"),  # of which the Hub has no pipeline
        ("generator", 0, *["unconditional-image-generation"] * 2),
        ("tokenizer", 0, *["image-to-image"] * 2),
    ],
)
def test_a_card_is_found_under_what_the_model_does(models, place, part, classes, pipeline, task):
    found = gathered.gather(str(place / "run" / part), say=lambda line: None)
    if part == "generator":
        found.configs["generator"]["generator"]["classes"] = classes
    card = {"numbers": ["fid"], "real": {"source": "images", "split": "train", "count": 60}}
    evaluation = {"numbers": {"fid": 12.5, "psnr": 20.0}}
    evaluation["protocols"] = {
        "distribution": card,
        "reconstruction": {**card, "numbers": ["psnr"]},
    }
    found = dataclasses.replace(found, evaluation=evaluation)
    head = cards_of.Card("x", found, sources.Source("images"), "float32", 1).head()
    assert head.get("pipeline_tag") == pipeline
    assert ("conditional-image-generation" in head["tags"]) == (classes > 0)
    tasks = [result["task"] for result in head["model-index"][0]["results"]]
    assert tasks == [
        {"type": task, "name": "distribution"},
        {"type": "image-to-image", "name": "reconstruction"},
    ]


@pytest.mark.parametrize(
    "name, identifier",
    [("drawings", "cc-by-sa-4.0"), ("digits", "cc-by-4.0"), ("photographs", "other")],
)
def test_the_licence_is_that_of_the_data(name, identifier):
    found = sources.source_of({"dataset": {"name": name, "size": 64}})
    assert found.identifier == identifier and found.homepage.startswith("https://")


def test_a_tokenizer_is_found_where_it_was_moved_and_may_be_gone(place, tmp_path, capsys):
    run = shutil.copytree(place / "run", tmp_path / "run")
    file = run / "generator" / "config.json"
    file.write_text(file.read_text().replace(str(workdirs.trained()), "/nowhere"))
    steps = gathered.gather(str(run)).steps  # beside the generator
    assert steps["tokenizer"] and steps["generator"]
    moved = (run / "tokenizer").rename(tmp_path / "moved")
    assert gathered.gather(str(run / "generator"), str(moved)).steps == steps
    assert export.main([str(run / "generator"), str(tmp_path / "out"), "--noprograms"]) == 0
    assert "how it was trained" in capsys.readouterr().out
    assert "how it was trained is not known" in (tmp_path / "out" / "README.md").read_text()
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["steps"] == {**steps, "tokenizer": None}
    assert exported.step_of(tmp_path / "out", "tokenizer") == 0  # not known
    tokenizer, _ = main.config_files.of_tokenizer(tmp_path / "out")
    assert evqgan.load(tmp_path / "out", tokenizer).encode(IMAGES[:1]).shape == (1, 8, 8, 1)
    file = moved / "config.json"
    file.write_text(file.read_text().replace('"revive": 0.1', '"revive": 0.2'))
    with pytest.raises(InputError, match="--tokenizer=.*moved holds another tokenizer than"):
        gathered.gather(str(run / "generator"), str(moved))


def test_a_tokenizer_alone_is_a_model(place, tmp_path, models):
    assert export.main([str(place / "run" / "tokenizer"), str(tmp_path / "out")]) == 0
    assert not [name for name in arrays(tmp_path / "out") if name.startswith("generator")]
    text = (tmp_path / "out" / "README.md").read_text()
    assert "pictures to ids, and back" in text and "--mode=sample" not in text
    model = evqgan.load(tmp_path / "out")
    np.testing.assert_array_equal(model.encode(IMAGES), models["float16"].encode(IMAGES))
    with pytest.raises(InputError, match="holds a tokenizer: generate needs"):
        model.generate(1)


@pytest.mark.parametrize(
    "args, message",
    [
        (["RUN"], "expected WORKDIR and DEST, got RUN; see --help"),
        (["RUN", "FULL"], "expected a new or empty folder, FULL holds files: give another DEST"),
        (["RUN", "FILE"], "expected a new or empty folder, FILE is a file: give another DEST"),
        (["nowhere", "new"], "nowhere is no workdir: there is no nowhere/config.json"),
        (["FULL", "new", "--dtype=float32"], "FULL is an exported model, whose weights stay as"),
        (["FULL", "new", "--noprograms"], "whose weights stay as they are: leave --programs out"),
        (["RUN", "new", "--public"], "--public is of --push=hf://USER/NAME: give both"),
        (["FULL"], "expected WORKDIR and DEST, got FULL; see --help"),
        (["RUN", "new", "--dtype=float8"], "--dtype=float8: value should be one of"),
        (["RUN/tokenizer", "new", "--check=9"], "--check is of samples, RUN/tokenizer holds"),
        (["RUN/tokenizer", "new", "--tokenizer=x"], "--tokenizer is for a generator's workdir"),
        (["RUN", "new", "--tokenizer=nowhere"], "nowhere is no workdir"),
        (["RUN", "FILE/new"], "cannot write FILE"),
        (["RUN", "new", "--check=1"], "--check=1: a distance needs two samples or more"),
    ],
)
def test_what_is_wrong_is_one_line(shipped, place, tmp_path, capsys, args, message):
    names = {"RUN": place / "run", "FULL": shipped, "FILE": tmp_path / "file"}
    (tmp_path / "file").write_text("x")
    for name, path in names.items():
        args = [arg.replace(name, str(path)) for arg in args]
        message = message.replace(name, str(path))
    assert export.main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_export_that_ends_midway_leaves_nothing(place, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    args = [str(place / "run"), str(tmp_path / "out")]
    (tmp_path / ".out.part").mkdir()  # of one that was killed
    (tmp_path / ".out.part" / "README.md").write_text("half")
    with monkeypatch.context() as patched:
        patched.setattr(sources, "source_of", stopped)
        patched.setattr(programs, "write", lambda *folders: "")
        assert export.main(args) == 130
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    assert export.main(args) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = {"config.json", "model.safetensors", "README.md", "LICENSE.txt", *exported.PROGRAMS}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_a_weight_beyond_float16_is_refused(tmp_path):
    state = {"ema": {"a": np.float32([1e6])}, "codebook": {}}
    with pytest.raises(InputError, match="tokenizer/params/a has numbers beyond float16"):
        exported_weights.save(tmp_path, state, "float16")
    state = {"ema": {"a": np.float32([1, np.inf])}, "codebook": {"steps": np.int32(70_000)}}
    exported_weights.save(tmp_path, state, "float16")
    assert arrays(tmp_path)["tokenizer/codebook/steps"] == 70_000


def test_damage_is_one_line(place, tmp_path):
    folder = shutil.copytree(place / "float16", tmp_path / "copy")
    file = folder / exported.WEIGHTS
    whole = file.read_bytes()

    def message():
        with pytest.raises(InputError) as caught:
            evqgan.load(folder)
        return str(caught.value)

    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    assert "damaged: its bytes are not those that were written" in message()
    file.write_bytes(whole[:-9])
    assert "damaged or unreadable" in message()
    with pytest.raises(InputError) as caught:
        folders.copy(folder, tmp_path / "another")
    assert str(file) in str(caught.value) and ".part" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
    safetensors.numpy.save_file({"a": np.zeros(3)}, file)
    assert "model.safetensors is not the model of config.json" in message()
    file.unlink()
    assert "holds an exported model, but no model.safetensors" in message()
    file.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config)[:-9])
    cut = "config.json is not the config of an exported model: it is cut short or changed at line 1"
    advice = "copy the whole folder again, or export the model again"
    assert cut in message() and message().endswith(advice)
    for reads in (lambda: initial_state.config_of(folder, "stage1"), lambda: pushing.whole(folder)):
        with pytest.raises(InputError, match=f"{cut}.*; {advice}$"):
            reads()
    (folder / "config.json").write_text(json.dumps({**config, "steps": 3}))
    assert "it has no steps" in message()
    (folder / "config.json").write_text(json.dumps({"stage": "exported", "generator": {}}))
    assert "it has no tokenizer" in message()


def test_a_model_that_ships_is_loaded_by_its_name(shipped, place, models):
    assert exported.names() == ["small"]
    assert evqgan.load("small").workdir == shipped
    assert exported.results("small") == exported.results(shipped) == pathlib.Path("workdirs/small")
    assert exported.results(place / "run") == place / "run"
    with pytest.raises(InputError, match="of step 6, not of step 5"):
        evqgan.load("small", step=5)
    with pytest.raises(InputError, match="smal is no workdir: .*a model that ships: small"):
        evqgan.load("smal")
    with pytest.raises(InputError, match=r"no ./small/config.json: the model that ships is small,"):
        evqgan.load("./small")
    pathlib.Path("small/generator").mkdir(parents=True)  # a folder of pictures
    assert evqgan.load("small").workdir == shipped
    shutil.rmtree("small")
    shutil.copytree(place / "float16", "small")
    assert evqgan.load("small").workdir == pathlib.Path("small")


def listed(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_every_mode_takes_it_and_writes_elsewhere(shipped, place, tmp_path, capsys):
    before = listed(shipped)
    pictures.save_png(tmp_path / "in.png", IMAGES[0])

    def call(mode, *flags):
        assert main.main(["main", "--workdir=small", f"--mode={mode}", *flags]) == 0

    call("sample", "--num=2", "--labels=cat")
    out = capsys.readouterr().out
    assert "see workdirs/small/samples/grid.png" in out and "--workdir=small" in out
    call("sample", "--num=2", "--labels=cat")
    assert "they are made already" in capsys.readouterr().out
    call("edit", "--image=in.png", "--box=8,8,24,24", "--label=cat", "--num=1")
    call("reconstruct", "--image=in.png")
    folder = f"--config.dataset.folder={place / 'run' / 'images'}"
    call("evaluate", folder)
    call("encode", folder)
    results = tmp_path / "workdirs" / "small"
    names = {path.name for path in results.iterdir()}
    assert names == {"samples", "edits", "reconstructions", "evaluation.json", "codes"}
    found = json.loads((results / "evaluation.json").read_text())
    assert set(found["protocols"]) == {"reconstruction", "generation", "samples"}
    assert found["protocols"]["reconstruction"]["model"]["step"] == 6
    assert Image.open(results / "edits" / "edit_000.png").size == (32, 32)
    assert listed(shipped) == before


def test_data_that_are_not_there_are_one_line(shipped, capsys):
    assert main.main(["main", "--workdir=small", "--mode=evaluate"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "got 'images', which is no folder in " in line and "set --config.dataset.folder=" in line


def test_it_is_not_trained_in_place_and_a_generator_can_be_trained_on_it(shipped, place, capsys):
    assert main.main(["main", f"--workdir={shipped}"]) == 2
    assert "is an exported model, which nothing is written into" in capsys.readouterr().err
    _, config = workdirs.configs(place / "run" / "images")
    config.tokenizer.weights = "small"
    found = stage2.with_model(config)
    whole = json.loads((place / "run" / "tokenizer" / "config.json").read_text())
    assert found.tokenizer.model.encoder.width == whole["tokenizer"]["encoder"]["width"]
    weights, step = stage2.models.of_stage2(found).tokenizer.restored("small")
    theirs, _ = stage2.models.of_stage2(found).tokenizer.restored(place / "run" / "tokenizer")
    assert step == 6 and provenance.fingerprint(weights) == provenance.fingerprint(theirs)


class Painter:
    """A model whose samples are real images, or paler; of any ids it makes noise."""

    grid, codes, depth = (8, 8), 64, 1

    def __init__(self, images):
        self.images = images

    def generate(self, num, seed):
        return self.images[:num]

    def decode(self, ids):
        return np.random.default_rng(0).integers(0, 256, (len(ids), 32, 32, 3)).astype(np.uint8)


def test_a_check_tells_samples_from_noise(place, tmp_path):
    dataset = {"folder": str(place / "run" / "images"), "size": 32}
    paths = sorted((place / "run" / "images").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    found = check.write(tmp_path, Painter(images), dataset, 50)
    assert 2 * found["frechet"] < found["random_ids"] and found["held_out"] > 0
    num, seed, bound = check.bound(tmp_path)
    assert (num, seed) == (50, 0)
    assert check.distance(tmp_path, images[:num]) <= bound
    assert check.distance(tmp_path, 255 - images[:num]) > bound
    broken = Painter(Painter(images).decode(images))
    with pytest.raises(InputError, match="a check cannot tell them apart; leave --check out"):
        check.write(tmp_path, broken, dataset, 50)
    with pytest.raises(InputError, match="there is no .*check.json; export the model again"):
        check.bound(tmp_path / "nowhere")


def test_an_export_keeps_a_check(place, tmp_path, monkeypatch):
    paths = sorted((place / "run" / "images").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    monkeypatch.setattr(check, "samples", lambda model, num, seed: images[:num])
    out = tmp_path / "out"
    assert export.main([str(place / "run"), str(out), "--check=54", "--noprograms"]) == 0
    assert check.bound(out)[:2] == (54, 0) and (out / check.REFERENCE).is_file()
    text = (out / "README.md").read_text()
    assert "54 images of random ids, colours averaged to 4x4" in text
    assert "(10 held-out images, colours" in text  # all that there are
