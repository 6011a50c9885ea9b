"""The paper's tables and figures as commands: its rows beside ours, each number with its card."""

import contextlib
import json
import re
import signal
import types

import numpy as np
import pytest
import workdirs
from ml_collections import ConfigDict
from PIL import Image
from test_configs import load

import evqgan
from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import comparison, printing
from evqgan.benchmark.paper import (
    beside,
    charts,
    choosing,
    fig8,
    fig9,
    generation,
    published,
    quality,
    small,
    table2,
    table5,
)
from evqgan.benchmark.paper import workdirs as given_workdirs
from evqgan.benchmark.paper.charts import Chart, Line
from evqgan.core import cli
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.evals import against_real
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training.stopping import Stopped

TRAINED = {"features": [{"name": "inception", "weights": {"network": "0123456789abcdef"}}]}
UNTRAINED = {"features": [{"name": "inception", "weights": {"network": "random"}}]}
OTHER = {"features": [{"name": "efficientnet", "weights": {"network": "0123456789abcdef"}}]}


def test_the_papers_rows_are_whole():
    for number in range(1, 8):
        table = getattr(published, f"TABLE{number}")
        assert table.name == f"Table {number}" and table.columns[0] == "system"
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert len(set(table.rows)) == len(table.rows)
        assert table.card["section"] and table.card["device"]
        assert "ours" in " ".join(row[0] for row in table.rows)


def test_what_stands_in_several_tables_is_the_same():
    ours = {(data, latent): fid for name, data, _, latent, fid in published.TABLE1.rows}
    for name, _, latent, _, fid in published.TABLE2.rows:
        if name == "ours":
            assert ours["ImageNet", latent] == fid
    of_gpt = {fid for name, _, fid in published.TABLE7.rows if name == "VQGAN"}
    faces = {fid for name, data, fid in published.TABLE3.rows if (name, data) == ("VQGAN", "FFHQ")}
    classes = {row[3] for row in published.TABLE5.rows if row[0] == "VQGAN" and row[2] == 1}
    assert of_gpt == faces | classes


@pytest.mark.parametrize(
    ("file", "table", "row"),
    [
        ("ffhq_stage1", published.TABLE1, ("ours", "FFHQ", 1024, "16x16")),
        ("imagenet_stage1", published.TABLE1, ("ours", "ImageNet", 1024, "16x16")),
        ("imagenet_stage1", published.TABLE1, ("ours", "ImageNet", 1024, "32x32")),
        ("baselines/vqgan_ffhq_stage1", published.TABLE1, ("VQGAN", "FFHQ", 1024, "16x16")),
        ("ffhq_stage2", published.TABLE3, ("ours", "FFHQ")),
        ("celebahq_stage2", published.TABLE3, ("ours", "CelebA-HQ")),
        ("ffhq_stage2", published.TABLE4, ("ours", "FFHQ", 1024)),
        ("imagenet_stage2", published.TABLE5, ("ours", "ImageNet", 1.0)),
        ("ffhq_stage2", published.TABLE7, ("ours on VQGAN's tokenizer", "FFHQ")),
        ("imagenet_stage2", published.TABLE7, ("ours on VQGAN's tokenizer", "ImageNet")),
    ],
)
def test_configs_name_the_numbers_that_the_tables_have(file, table, row):
    (found,) = (entry for entry in table.rows if entry[: len(row)] == row)
    number = found[table.columns.index("fid" if "fid" in table.columns else "rfid")]
    assert str(number) in (small.SHIPPED / "configs" / f"{file}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"system": "ours", "psnr": 20.0}, "without its card"),
        ({"system": "ours", "rfid": 3.0, "card": {"step": 1}}, "not of Inception's"),
        ({"system": "ours", "fid": 3.0, "card": UNTRAINED}, "not of Inception's"),
        ({"system": "ours", "inception_score": 3.0, "card": OTHER}, "not of Inception's"),
    ],
)
def test_no_number_without_its_card_and_no_fid_but_of_inception(row, message):
    with pytest.raises(ValueError, match=message):
        beside.beside(published.TABLE1, [row])
    row = {"system": "ours", "rfid": 3.0, "psnr": None, "card": TRAINED}
    assert beside.beside(published.TABLE1, [row])[-1]["rfid"] == 3.0
    row = {"system": "ours", "rfid": None, "psnr": 20.0, "card": UNTRAINED}
    *paper, ours = beside.beside(published.TABLE1, [row])
    assert [entry["rfid"] for entry in paper] == [row[-1] for row in published.TABLE1.rows]
    assert ours["psnr"] == 20.0 and paper[0]["psnr"] is None
    assert all(list(entry) == list(ours) for entry in paper) and list(ours)[-1] == "card"


def test_cards_are_printed_once_each():
    card = {"step": 3, "size": [32, 32], "features": [{"name": "pixels", "weights": {}}], "a": None}
    rows = [{"x": 1, "card": card}, {"x": 2, "card": {"step": 4}}, {"x": 3, "card": dict(card)}]
    shown, text = printing.numbered(rows)
    assert [row["card"] for row in shown] == ["[1]", "[2]", "[1]"]
    assert text == "\n[1] step: 3; size: 32, 32; features: (name: pixels)\n[2] step: 4"
    assert printing.numbered([{"x": 1}]) == ([{"x": 1}], "")
    other = {**card, "step": 4}
    assert printing.numbered([{"card": card}, {"card": other}])[1].endswith(
        "[2] as [1], but step: 4"
    )


@pytest.mark.parametrize("name", benchmark.PAPER)
def test_every_command_says_what_it_does_with_nothing_given(name, capsys):
    assert benchmark.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--out" in text and "--json" in text and "minutes" in text and "paper" in text
    module = benchmark.named(name)
    given, _ = cli.parse((*module.FLAGS, benchmark.JSON, cli.DEBUG), [])
    assert given.out == "workdirs/paper"
    assert benchmark.main([name, "--workdri=x"]) == 2


def test_small_systems_are_those_of_the_comparison_shorter():
    plain = load("comparison", "digits").systems.efficient_vqgan
    found = small.Small("efficient_vqgan", "digits", window=2, conditional=False).config()
    assert found.generator.generator.window == 2 and plain.generator.generator.window == 4
    # As many supervised tokens an image.
    assert found.generator.loss.targets * 2**2 == plain.generator.loss.targets * 4**2
    assert found.generator.generator.classes == 0 and plain.generator.generator.classes == 10
    assert found.tokenizer.duration == "150 steps" and found.generator.duration == "250 steps"
    assert found.tokenizer.tokenizer.to_json() == plain.tokenizer.tokenizer.to_json()
    large = small.Small("efficient_vqgan", "photographs", 64)
    assert large.config().generator.dataset.size == 64
    assert large.generator("out").parts == ("out", "photographs_64", "efficient_vqgan", "generator")
    shared = small.Small("efficient_vqgan_on_vqgan", "digits")
    assert shared.tokenizer("out").parts == ("out", "digits", "vqgan", "tokenizer")
    second = shared._replace(seed=1)
    assert second.tokenizer("out").parts == ("out", "digits", "vqgan_1", "tokenizer")
    assert second.config().tokenizer.seed == second.config().generator.seed == 1


def test_what_is_trained_is_not_announced_again(tmp_path, capsys, monkeypatch):
    systems = [small.Small(name, "tiny") for name in ("vqgan", "efficient_vqgan_on_vqgan")]
    trained = []
    monkeypatch.setattr(small, "train", lambda config, workdir: trained.append(workdir))
    monkeypatch.setattr(small, "is_done", lambda workdir, config: workdir in trained)
    small.generators(tmp_path, systems)
    said = "training 1 tokenizer and 2 generators, two steps each, as a trial: about 50s on two"
    assert said in capsys.readouterr().out
    assert len(trained) == 3 and trained[0] == tmp_path / "tiny" / "vqgan" / "tokenizer"
    assert small.generators(tmp_path, systems) == trained[1:] and len(trained) == 3
    assert "training" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "given, message",
    [
        (["table7", "--features=efficientnet"], "there are no weights of efficientnet_lite0 in"),
        (["table1", "--features=efficientnet"], "there are no weights of efficientnet_lite0 in"),
        (["table7", "--features=eficientnet"], "names 'eficientnet', .* did you mean"),
        (["table7", "--samples=1"], "--samples"),
        (["table7", "--workdir={place}/generator", "--workdir={place}/tokenizer"], "a tokenizer"),
        (["table1", "--workdir=a=X", "--workdir=a=Y"], "X and Y are both called a: give each"),
        (["table7", "--workdir=X/g", "--workdir=Y/g"], "X/g and Y/g are both called g: give each"),
        (["comparison", "--samples=1"], "--samples"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained_or_loaded(
    given, message, tmp_path, capsys, monkeypatch
):
    given = [text.format(place=workdirs.trained()) for text in given]
    monkeypatch.setenv("EVQGAN_WEIGHTS", str(tmp_path / "weights"))
    for module in (small, comparison):
        monkeypatch.setattr(module, "train", None)
    capsys.readouterr()
    assert benchmark.main([*given, f"--out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr()
    assert not said.out and re.search(message, said.err), said
    assert not (tmp_path / "out").exists()


def test_a_table_that_a_signal_stops_says_what_of_it_is_kept(tmp_path, capsys, monkeypatch):
    trained = []

    def train(config, workdir):
        if trained:
            raise Stopped(1, signal.SIGINT)
        trained.append(workdir)

    monkeypatch.setattr(small, "train", train)
    monkeypatch.setattr(small, "is_done", lambda workdir, config: workdir in trained)
    given = ["table7", "--data=tiny", f"--out={tmp_path}"]
    with pytest.raises(SystemExit) as ended:
        benchmark.main(given)
    assert ended.value.code == 130
    kept = f"kept: 1 of 3 trainings in {tmp_path}"
    go_on = f"go on: python -m evqgan.benchmark {' '.join(given)}"
    assert capsys.readouterr().err == f"stopped by SIGINT in table7; {kept}; {go_on}\n"


def test_a_run_is_done_if_it_is_this_one_to_its_end():
    place, (first, second) = workdirs.trained(), workdirs.configs(workdirs.trained() / "images")
    for config, name in ((first, "tokenizer"), (second, "generator")):
        assert small.is_done(place / name, config)
        config.duration = "7 steps"
        assert not small.is_done(place / name, config)
    assert not small.is_done(place, first)


def test_names_of_workdirs():
    assert quality.named("mine=runs/a=b") == ("mine", "runs/a=b")
    assert quality.named("runs/a=b") == ("a=b", "runs/a=b")
    assert quality.named("runs/a/") == ("a", "runs/a/")


def test_several_networks_are_given_with_commas_or_one_by_one():
    given = types.SimpleNamespace(features=["digits,pixels", "clip"], weights="")
    assert quality.networks(given) == ["digits", "pixels", "clip"]


def test_table5_of_a_workdir(tmp_path, capsys):
    """A real generator, from the flags to the picture: all of it, and the half that is kept."""
    place = workdirs.trained() / "generator"
    flags = [f"--workdir=mine={place}", "--samples=20", f"--out={tmp_path}"]
    assert benchmark.main(["table5", *flags]) == 0
    rows = json.loads((tmp_path / "table5.json").read_text())["rows"]
    every, half, real = rows[len(published.TABLE5.rows) :]
    assert (every["system"], every["acceptance"], half["acceptance"]) == ("mine", 1.0, 0.5)
    assert every["fid"] is None and every["frechet_pixels"] > 0 and 0 <= every["in_class"] <= 1
    assert half["card"]["produced"]["sampler"]["classifier"] == choosing.Chooser.name
    assert every["card"]["produced"]["count"] == 20 and every["card"]["real"]["count"]
    assert real["system"] == "real images, held out" and "model" not in real["card"]
    assert real["card"]["real"] == every["card"]["real"]  # by a hash, too
    assert Image.open(tmp_path / "table5.png").size[0] > 10 * 32
    told = capsys.readouterr().out
    kind = "images 32x32, 8x8 tokens of swin, 10 classes), of other sizes than the paper's 256x256"
    assert "paper, Table 5" in told and f"1 workdir given (mine: {place.parent}/{kind}" in told


def of_kind(size=32, coder="cnn", quantizer="ema", folder="a", weights=0.0, **keys):
    """A generator of a workdir, by what a table looks at."""
    model = {"encoder": {"name": coder, **keys}, "quantizer": {"name": quantizer}}
    data = {"folder": folder, "name": "digits"}
    config = {"stage": "stage2", "tokenizer": {"model": model}, "dataset": data}
    state = {"tokenizer": {"codebook": np.full((2, 2), weights)}}
    given = {"size": (size, size), "grid": (size // 4, size // 4), "classes": 0, "state": state}
    return types.SimpleNamespace(config=ConfigDict(config), **given)


def test_a_title_says_which_workdirs_are_of_other_sizes():
    one, other = ("a", of_kind(1024)), ("b", of_kind(512, folder=""))
    kinds = "a: a 1024x1024, 256x256 tokens of cnn, no classes", "b: digits 512x512, 128x128 tokens"
    table4 = published.TABLE4
    assert given_workdirs.title([one], table4) == f"1 workdir given ({kinds[0]})"
    both = given_workdirs.title([one, other], table4)
    assert both.startswith(f"2 workdirs given ({kinds[0]}; {kinds[1]}")
    assert both.endswith(", of other sizes than the paper's 1024x1024")
    assert "paper" not in given_workdirs.title([other])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"coder": "swin"}, r"VQGAN's tokenizer, b is on another \(swin with the quantizer ema\)"),
        ({"quantizer": "residual"}, "cnn with the quantizer residual"),
        ({"down": "pool"}, "b is on another"),  # MaskGIT's
        ({"weights": 1.0}, "one tokenizer, but those of a and b have other weights"),
        ({"weights": 1.0, "folder": "b"}, ""),  # of another data set
        ({}, ""),
    ],
)
def test_table7_is_of_one_tokenizer_and_of_vqgans(other, message):
    models = [("a", of_kind()), ("b", of_kind(**other))]
    refused = pytest.raises(InputError, match=message) if message else contextlib.nullcontext()
    with refused:
        given_workdirs.check_on_vqgan(models)


@pytest.mark.parametrize("other", [{"size": 64}, {"folder": "b"}, {}])
def test_fig8_is_of_one_data_set_size_and_grid(other):
    models = [("a", of_kind()), ("b", of_kind(**other))]
    wanted = pytest.raises(InputError, match="of one data set, size and token grid: a is of a 32x")
    with wanted if other else contextlib.nullcontext():
        given_workdirs.check_alike(models)


def test_a_chooser_likes_images_of_their_class():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 20, (60, 8, 8, 3)) + 80 * labels[:, None, None, None]
    chooser = choosing.Chooser(images.astype(np.uint8), labels, colour=False)
    right = chooser(images.astype(np.uint8), labels)
    wrong = chooser(images.astype(np.uint8), (labels + 1) % 3)
    assert right.dtype == np.float32 and right.shape == (60,) and (right > wrong).all()
    np.testing.assert_array_equal(chooser(images.astype(np.uint8), labels + 3), 0)
    with pytest.raises(InputError, match="all held-out images are of one class"):
        choosing.Chooser(images.astype(np.uint8), labels * 0, colour=False)


REAL = {"source": "digits", "size": [32, 32]}


def stand_in(window, run=0):
    """A case of fig8 whose model is never asked."""
    config = ConfigDict({"generator": {"name": "multigrained", "window": window}})
    config.dataset = {"name": "generated", "size": 8, "num_examples": 20, "classes": 2}
    state = {"ema": {"w": np.float32([window, run])}, "tokenizer": {}}
    model = types.SimpleNamespace(config=config, step=1, run=run, state=state)
    model.workdir = f"w{window}_{run}"
    return generation.Case("ours", model)


def test_fig8_of_several_runs_has_means_and_one_card(tmp_path, monkeypatch):
    def of_generator(model, given, folder, acceptance, views, colour, steps):
        numbers = {"fid": None, "frechet_pixels": 1.0, "frechet_digits": 3.0 + model.run / steps}
        return (
            numbers,
            {"step": 1, "seed": model.run, "real": REAL},
            np.zeros((20, 8, 8, 3), np.uint8),
        )

    cases = [stand_in(window, run) for window in (2, 4) for run in (0, 2)]
    monkeypatch.setattr(generation, "chosen", lambda given, systems: (cases, "small"))
    monkeypatch.setattr(generation, "real_rows", lambda cases: [])
    monkeypatch.setattr(quality, "of_generator", of_generator)
    drawn = []
    monkeypatch.setattr(
        charts, "draw", lambda chart: drawn.append(chart) or np.zeros((9, 9, 3), np.uint8)
    )
    monkeypatch.setattr(fig8.pictures, "save_png", lambda *_: None)
    command = ["fig8", "--steps=1", "--steps=2", f"--out={tmp_path}", "--seeds=2"]
    assert benchmark.main(command) == 0
    rows = json.loads((tmp_path / "fig8.json").read_text())["rows"]
    assert [(row["window"], row["steps"], row["seeds"]) for row in rows] == [
        (2, 1, 2),
        (2, 2, 2),
        (4, 1, 2),
        (4, 2, 2),
    ]
    assert [row["frechet_digits"] for row in rows] == [4, 3.5, 4, 3.5]
    assert rows[0]["frechet_digits_sd"] == pytest.approx(2**0.5) and rows[0]["fid"] is None
    assert rows[0]["card"] == {"step": 1, "seed": [0, 2], "real": REAL}
    assert (rows[0]["data"], rows[0]["size"]) == ("digits", 32)
    assert [line.name for line in drawn[1].lines] == ["W_s = 2", "W_s = 4"]
    assert drawn[1].lines[0].y == [4, 3.5]  # by a network's features, before colours
    assert drawn[1].lines[0].bars == pytest.approx([2**0.5, 2**0.5 / 2])
    assert fig8.drawn([{"fid": None, "frechet_pixels": None}]) is None  # of a large data set


def test_samples_of_other_weights_are_measured_again(tmp_path, monkeypatch):
    """A workdir may be trained anew, for as many steps."""
    measured = []

    def of_generator(model, *given, **sampler):
        measured.append(model)
        return {"fid": 1.0}, {"real": REAL}, np.zeros((1, 8, 8, 3), np.uint8)

    monkeypatch.setattr(quality, "of_generator", of_generator)
    monkeypatch.setattr(quality, "networks", lambda given: [])
    given = types.SimpleNamespace(out=str(tmp_path), samples=1, weights="", features=[])
    case = stand_in(2)
    for _ in range(2):
        generation.measured(given, case)
    case.model.state["ema"]["w"] += 1
    generation.measured(given, case)
    assert len(measured) == 2


def test_samples_beside_other_images_or_by_other_networks_are_measured_again(tmp_path, monkeypatch):
    measured, card = [], {"name": "mine", "weights": {"mine": "abc"}}

    def of_generator(model, *given, **sampler):
        measured.append(model)
        return {"fid": 1.0}, {"real": REAL}, np.zeros((1, 8, 8, 3), np.uint8)

    monkeypatch.setattr(quality, "of_generator", of_generator)
    monkeypatch.setattr(generation.extractor, "card_of", lambda *_: dict(card))
    monkeypatch.setattr(generation.choosing, "is_resnet", lambda model: False)
    given = types.SimpleNamespace(out=str(tmp_path), samples=1, weights="", features=["mine"])
    case = stand_in(2)
    generation.measured(given, case, 0.5)
    card["weights"] = {"mine": "abd"}  # another file at the same path
    generation.measured(given, case, 0.5)
    case.model.config.dataset.num_examples = 30
    generation.measured(given, case, 0.5)
    generation.measured(given, case._replace(colour=True), 0.5)
    monkeypatch.setattr(generation.choosing.Chooser, "name", "another one")
    generation.measured(given, case, 0.5)
    assert len(measured) == 5
    generation.measured(given, case, 0.5)
    assert len(measured) == 5


def test_images_that_are_not_held_are_counted_once_for_all_networks(monkeypatch):
    class Network(against_real.Colours):
        def __init__(self, name):
            self.name = name

        def name_of(self, number):
            return f"{number}_{self.name}"

    monkeypatch.setattr(against_real, "MOST", 1000)
    monkeypatch.setattr(quality, "extractors", lambda names, *_: [Network(x) for x in names])
    data = '{"name": "generated", "size": 8, "num_examples": 20, "classes": 2}'
    dataset = Dataset(**json.loads(data))
    sets = []
    for names in (("a",), ("a", "b")):
        real, networks, beside, held = quality._read.__wrapped__(data, 1, False, names, "")
        assert held is None and len(beside.cards) == len(networks) == len(names)
        sets.append(real.image_set(dataset.train))
    assert sets[0] == sets[1] and sets[0].count == len(pipeline.open_split(dataset, dataset.train))
    assert quality._read.__wrapped__(data, 1, False, (), "")[1:] == ([], None, None)


def test_fig8_asks_for_each_block_size_and_t_once(tmp_path, monkeypatch, capsys):
    asked = []

    def of_generator(model, given, folder, acceptance, views, colour, steps):
        asked.append((model.config.generator.window, steps))
        numbers = {"fid": None, "frechet_pixels": 1 / steps}
        return numbers, {"step": 1, "real": REAL}, np.zeros((20, 8, 8, 3), np.uint8)

    cases = [stand_in(2), stand_in(4)], "small scale"
    monkeypatch.setattr(generation, "chosen", lambda given, systems: cases)
    monkeypatch.setattr(generation, "real_rows", lambda cases: [])
    monkeypatch.setattr(quality, "of_generator", of_generator)
    command = ["fig8", "--steps=1", "--steps=4", "--steps=8", f"--out={tmp_path}"]
    assert benchmark.main(command) == 0
    assert asked == [(2, 1), (2, 4), (4, 1), (4, 4), (4, 8)]  # a block of 2x2 has four tokens
    assert Image.open(tmp_path / "fig8.png").size[0] > 2 * 400
    assert benchmark.main(["fig8", "--steps=1000", f"--out={tmp_path}"]) == 2
    assert "--steps=1000: T is at most a block's tokens, here" in capsys.readouterr().err
    assert benchmark.main(command) == 0 and len(asked) == 5  # what is kept is not made again
    rows = json.loads((tmp_path / "fig8.json").read_text())["rows"]
    assert [row["frechet_pixels"] for row in rows] == [1, 0.25, 1, 0.25, 0.125]


def test_fig9_times_all_of_a_resolution_in_turn(tmp_path, monkeypatch):
    asked = []

    def drawing(name, config, images, **settings):
        keys = config.generator
        asked.append((keys.name, config.dataset.size, keys.get("window"), settings.get("steps")))
        return name

    timed = [{"seconds": 4.0}, {"seconds": 2.0}, {"seconds": 8.0}, {"seconds": 1.0}]
    monkeypatch.setattr(fig9.device, "drawing", drawing)
    monkeypatch.setattr(fig9.timing, "rows_of", lambda programs, *_: timed)
    flags = ["--latent=16", "--window=2", "--window=8", "--batch=2", f"--out={tmp_path}"]
    assert benchmark.main(["fig9", *flags]) == 0
    multigrained = [("multigrained", 256, 2, 4), ("multigrained", 256, 8, 8)]
    assert asked == [*multigrained, ("gpt", 256, None, None), ("maskgit", 256, None, None)]
    rows = json.loads((tmp_path / "fig9.json").read_text())["rows"]
    assert [row["seconds_per_image"] for row in rows] == [2.0, 1.0, 4.0, 0.5]
    assert all(row["card"]["run"]["device"] and row["card"]["batch"] == 2 for row in rows)
    assert Image.open(tmp_path / "fig9.png").size[0] > 400


def test_the_full_size_models_of_table2_are_the_papers(monkeypatch):
    monkeypatch.setattr(table2.device, "reconstructing", lambda config, images, small: config)
    monkeypatch.setattr(
        table2.timing, "rows_of", lambda programs, *_: [{"images_per_second": 1.0}] * len(programs)
    )
    rows = table2.full_size(images=1, rounds=1)
    columns = ("system", "factor", "latent")
    paper = [row[:3] for row in published.TABLE2.rows]
    assert [tuple(row[name] for name in columns) for row in rows] == paper
    for row in rows:
        file, _, variant = row["card"]["config"].partition(":")
        config = load(file.split("/")[-1], variant)
        network = tokenizers.make(config.tokenizer)
        assert network.factor == row["factor"] and row["card"]["weights"] == "untrained"


def test_a_speed_is_of_the_model_itself():
    model = evqgan.load(workdirs.trained() / "tokenizer")
    program = table2.reconstructing(model, images=2)
    assert program.call().shape == (2, 32, 32, 3) and program.images == 2


def test_what_is_wrong_is_one_line(tmp_path, capsys):
    place = workdirs.trained() / "tokenizer"
    for flags, message in (
        (["table3", f"--workdir={place}"], "holds a tokenizer: give the workdir of a generator"),
        (["table1", "--workdir=a=nowhere"], "nowhere is no workdir"),
        (["table7", "--data=digit"], "digit"),
        (["table5", "--samples=0"], "--samples=0"),
        (["table7", f"--workdir={place.parent}"], " is on another (swin with"),
        (["fig9", "--latent=16", "--window=3"], "--window=3 divides no token grid's side, here 16"),
        (["fig9", "--width=50"], "expected --width as a multiple of 128, got 50"),
        (["fig8", "--features=inceptoin", f"--workdir={place}"], "holds a tokenizer"),
        (["fig8", "--seeds=2", f"--workdir={place}"], "--seeds is of small models: with --workdir"),
        (["table1", "--data=tiny", f"--workdir={place}"], "--data is of small models"),
    ):
        assert benchmark.main([*flags, f"--out={tmp_path / 'out'}"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (0.12, 0.9, True, [0.1, 0.2, 0.5, 1]),
        (1, 100, True, [1, 2, 5, 10, 20, 50, 100]),
        (0.6, 2.3, False, [0.5, 1, 1.5, 2, 2.5]),
        (3, 3, False, [3]),
    ],
)
def test_ticks_are_round_and_hold_all_values(low, high, log, ticks):
    assert charts.y_ticks(low, high, log) == pytest.approx(ticks)


def test_a_line_is_drawn_where_its_points_are():
    axis = charts.Axis(1, 16, 0, 100, log=True)
    assert [axis.at(x) for x in (1, 4, 16)] == pytest.approx([0, 50, 100])
    lines = [Line("a", [1, 2], [1.0, 2.0]), Line("b", [1, 2], [3.0, 3.0], 1, "dashed")]
    image = charts.draw(Chart("title", "x", "y", lines))
    blue = np.abs(image.astype(int) - (0x00, 0x72, 0xB2)).sum(-1) < 12
    rows = np.nonzero(blue[: (charts.HEIGHT - charts.BOTTOM) * charts.SCALE])[0]
    # From y = 1, at the axis, to y = 2, half the way up.
    middle = (charts.TOP + charts.HEIGHT - charts.BOTTOM) / 2 * charts.SCALE
    assert rows.min() == pytest.approx(middle, abs=10) and rows.max() > middle * 1.6
    plain = charts.pieces([(0, 0), (9, 0)], "solid")
    assert plain == [[(0, 0), (9, 0)]] and len(charts.pieces([(0, 0), (18, 0)], "dashed")) == 2


@pytest.mark.slow
def test_with_nothing_given_small_systems_are_trained(tmp_path, capsys):
    flags = ["--data=tiny", "--samples=20", f"--out={tmp_path}"]
    assert benchmark.main(["table7", *flags]) == 0
    text = capsys.readouterr().out
    assert "a trial, two steps on generated images" in text
    assert text.count("compiling the training step") == 3
    assert benchmark.main(["table7", *flags]) == 0
    assert "compiling the training step" not in capsys.readouterr().out
    rows = json.loads((tmp_path / "table7.json").read_text())["rows"]
    systems = [row["system"] for row in rows if row["from"] == beside.OURS]
    assert systems == ["ours on VQGAN's tokenizer", "VQGAN", "real images, held out"]
    assert table5.ACCEPTED.keys() <= {row[0] for row in published.TABLE5.rows}


def test_samples_of_a_table_go_on_where_they_were_stopped_and_are_never_whole_in_memory(tmp_path):
    model = evqgan.load(workdirs.trained() / "generator", batch_size=2)
    made, new_ids = [], model.new_ids

    def counted(labels, numbers, *rest, **keys):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(numbers.tolist())
        return new_ids(labels, numbers, *rest, **keys)

    model.new_ids = counted
    with pytest.raises(KeyboardInterrupt):
        quality.sampled(model, 5, tmp_path / "kept", 1.0, None, {"steps": 2})
    first, made[:] = list(made), []
    images, labels = quality.sampled(model, 5, tmp_path / "kept", 1.0, None, {"steps": 2})
    assert first == [[0, 1], [2, 3]] and made == [[4, 4]]
    pieces = list(images.pieces)
    assert [len(piece) for piece in pieces] == [2, 2, 1] and images.shape == (5, 32, 32, 3)
    model.new_ids = new_ids
    expected = model.sample(5, steps=2)
    np.testing.assert_array_equal(np.concatenate(pieces), expected["images"])
    np.testing.assert_array_equal(labels, expected["labels"])
