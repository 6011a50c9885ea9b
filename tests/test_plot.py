"""Learning curves of metrics.jsonl, and the picture of who attends to whom."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_cards import evaluation

from evqgan.core import cards, files, ticks
from evqgan.core.errors import InputError
from evqgan.generators.blocks import NOWHERE, decoding_order, ring_and_target
from evqgan.generators.multigrained_network import Model
from evqgan.plot import __main__ as plot
from evqgan.plot import attention, charts, curves
from evqgan.plot.canvas import Canvas, pale


def line(step, **values):
    return json.dumps({"step": step, **{k.replace("_", "/", 1): x for k, x in values.items()}})


def write(folder, lines, **config):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(f"{x}\n" for x in lines))
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def trained(folder, stage="stage1", number=40, **config):
    """A run whose loss is 100 / step, of steps 10, 20, ...; held out is 1 at every fourth."""
    lines = []
    for step in range(10, 10 * number + 1, 10):
        lines.append(line(step, train_loss=100 / step, train_skipped=0, perf_step_seconds=0.5))
        if step % 40 == 0:
            lines.append(line(step, val_mse=1 + step, **{"val_accuracy@0.50": 0.5}))
    return write(folder, lines, stage=stage, batch_size=8, **config)


def test_a_step_that_was_done_again_counts_once(tmp_path):
    lines = [line(10, train_loss=1), line(20, train_loss=2), line(20, val_mse=7)]
    lines += [line(30, train_loss=3), line(40, train_loss=4), line(40, val_mse=8)]
    again = [line(20, train_loss=5), line(30, train_loss=None), line(40, train_loss=6)]
    found = curves.read([write(tmp_path / "w", [*lines, *again])])[0].values
    # Of step 40 what was held out belongs to weights that are no more.
    assert found == {"train/loss": {10: 1, 20: 5, 40: 6}, "val/mse": {20: 7}}


WRONG = ["{", "3", '{"train/loss": 1}', '{"step": null}', "\x00", '{"step": 1e999}', "[" * 10**5]
WRONG.append('{"step": 15, "train/loss": "1"}')


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    cut = write(tmp_path / "cut", [line(10, train_loss=1), line(20, train_loss=2)])
    with open(f"{cut}/metrics.jsonl", "a") as file:
        file.write('{"step": 30, "train/lo')
    (run,) = curves.read([cut])
    assert list(run.values["train/loss"]) == [10, 20] and not run.damage


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_damaged_lines_are_counted_and_the_others_are_drawn(wrong, tmp_path, capsys):
    lines = [line(10, train_loss=1), wrong, line(20, train_loss=2, train_l1=None), wrong]
    place = write(tmp_path / "w", lines)
    (run,) = curves.read([place])
    assert run.values == {"train/loss": {10: 1, 20: 2}}
    assert plot.main([place, f"--out={tmp_path}/curves.png"]) == 0
    assert (
        f"WARNING 2 of 4 lines of {place}/metrics.jsonl are damaged (number 2, 4): no JSON object "
        "of numbers with a step; left out\n"
    ) in capsys.readouterr().out
    nothing = write(tmp_path / "nothing", [wrong])
    assert plot.main([nothing, f"--out={tmp_path}/none.png"]) == 2
    said = capsys.readouterr().err
    assert f"nothing can be drawn: 1 of 1 line of {nothing}/metrics.jsonl is damaged" in said
    assert said.count("\n") == 1 and not (tmp_path / "none.png").exists()


def test_numbers_of_which_some_were_not_finite_are_no_damage(tmp_path):
    lines = [line(10, train_loss=1), '{"step": 20, "train/loss": null, "errors": {"l": "nan"}}']
    (run,) = curves.read([write(tmp_path / "w", lines)])
    assert run.values == {"train/loss": {10: 1}} and not run.damage


def test_workdirs_are_told_apart_by_the_ends_of_their_paths(tmp_path):
    places = [trained(tmp_path / name, number=1) for name in ("a/x", "b/x", "b/y")]
    assert [run.name for run in curves.read(places)] == ["a/x", "b/x", "b/y"]
    assert [run.name for run in curves.read([*places[1:], places[1]])] == ["x", "y"]
    for part, stage in (("tokenizer", "stage1"), ("generator", "stage2")):
        trained(tmp_path / "q" / part, stage, 1)
    found = curves.read([str(tmp_path / "q")])
    assert [(run.name, run.stage) for run in found] == [
        ("q/tokenizer", "stage1"),
        ("q/generator", "stage2"),
    ]
    for wrong in (tmp_path, tmp_path / "no"):
        with pytest.raises(InputError, match=r"has no metrics\.jsonl: expected the workdir"):
            curves.read([str(wrong)])
    with pytest.raises(InputError, match="is a file: give the folder"):
        curves.read([f"{places[0]}/metrics.jsonl"])


def test_keys_are_chosen_by_name_or_pattern(tmp_path):
    runs = curves.read([trained(tmp_path / "w")])
    assert curves.chosen(runs, ()) == ["train/loss", "val/mse"]
    assert curves.chosen(runs, ["accuracy", "perf/*"]) == ["val/accuracy@0.50", "perf/step_seconds"]
    assert curves.chosen(runs, ["mse", "val/*"]) == ["val/mse", "val/accuracy@0.50"]
    for wrong, meant in (("train/los", "train/loss"), ("losss", "loss")):
        with pytest.raises(InputError, match=f"no run has '{wrong}': did you mean '{meant}'"):
            curves.chosen(runs, [wrong])


def test_steps_become_images_or_hours(tmp_path):
    (run,) = curves.read([trained(tmp_path / "w")])
    np.testing.assert_array_equal(curves.positions(run, [10, 400], "steps"), [10, 400])
    np.testing.assert_array_equal(curves.positions(run, [10, 400], "images"), [80, 3200])
    hours = curves.positions(run, [10, 15, 400, 440], "hours")
    np.testing.assert_allclose(hours * 3600, [5, 7.5, 200, 220])
    bare = curves.read([write(tmp_path / "bare", [line(10, train_loss=1)])])[0]
    for axis in ("images", "hours"):
        with pytest.raises(InputError, match=f"--x={axis}: "):
            curves.positions(bare, [10], axis)


def test_smoothing_moves_nothing():
    straight = np.arange(50.0)
    np.testing.assert_allclose(curves.smoothed(straight), straight)
    noisy = np.random.default_rng(0).normal(size=300)
    assert curves.smoothed(noisy)[20:-20].std() < noisy.std() / 3
    assert (
        curves.smoothed(noisy[:5]) is not None and (curves.smoothed(noisy[:5]) == noisy[:5]).all()
    )


def test_a_picture_has_a_panel_a_key_and_a_colour_a_run(tmp_path):
    places = [trained(tmp_path / "a"), trained(tmp_path / "b", number=20)]
    places.append(trained(tmp_path / "g", "stage2"))
    picture = charts.picture(curves.read(places), ())
    colours = {tuple(x) for x in picture.reshape(-1, 3)}
    assert {*charts.COLOURS[:2]} <= colours and charts.COLOURS[2] not in colours
    # Two panels beside each other, of tokenizers and, below, of generators.
    heads = picture.shape[0] - 2 * (charts.HEIGHT + charts.HEAD)
    assert picture.shape[1] == 2 * charts.WIDTH and 0 <= heads <= 2 * charts.LINE
    alone = charts.picture(curves.read(places[:1]), ("train/loss",), "hours")
    assert alone.shape[1] == charts.WIDTH and pale(charts.COLOURS[0]) in {
        tuple(x) for x in alone.reshape(-1, 3)
    }
    for lines, message in (([], "no numbers yet"), ([line(10, train_loss=1)], "too few numbers")):
        with pytest.raises(InputError, match=message):
            charts.picture(curves.read([write(tmp_path / message[:3], lines)]), ())


def test_a_curve_breaks_where_its_number_was_measured_otherwise(tmp_path):
    """Of the evaluation at step 120 there is no card: it counts as measured like that before."""
    place = trained(tmp_path / "w", number=24)
    for step, count in ((40, 8), (80, 8), (160, 64), (200, 64), (240, 8)):
        noted = evaluation("reconstruction", {"mse": 1 + step}, count)
        files.save_json(cards.file_of(place, step), noted)
    (run,) = curves.read([place])
    assert run.breaks == {"val/mse": [160, 240]}
    (panel,) = charts.panels([run], ["val/mse"], "steps")
    assert panel.lines[0].breaks == [3, 5]
    drawn = []

    class Pen(Canvas):
        def line(self, points, colour, width=1):
            drawn.append((len(points), colour))
            super().line(points, colour, width)

    charts.draw(Pen(charts.WIDTH, charts.HEIGHT), panel, 0, 0, "steps")
    lengths = [number for number, colour in drawn if colour == charts.COLOURS[0]]
    assert lengths == [3, 2, 1]  # no line from one measurement to the next
    assert [colour for _, colour in drawn].count(pale(charts.COLOURS[0])) == 2  # but a bar
    whole = curves.read([trained(tmp_path / "whole", number=24)])
    assert not whole[0].breaks
    narrow = [charts.legend(None, "stage1", runs, "steps", 300, 0) for runs in (whole, [run])]
    assert narrow[1] > narrow[0]  # as it says what a bar is


def test_scales_are_logarithmic_where_values_span_much():
    def scale(name, *values):
        y = np.array(values, float)
        return charts.extent(charts.Panel(name, [charts.Line(y, y, y, True, (0, 0, 0))]))

    assert scale("loss", 1, 30)[2] and not scale("loss", 1, 3)[2]
    assert not scale("loss", 0, 30)[2] and not scale("loss", -1, 30)[2]
    assert not scale("critic_learning_rate", 1e-9, 1e-3)[2]
    assert scale("loss", 0.1, 1)[0] == 0 and scale("psnr", 20, 30)[0] > 0
    low, high, _ = scale("usage", 1, 1)
    assert low < 1 < high


def test_numbers_of_axes_are_short():
    given = (0, 0.05, 8000, 20_000, 1_500_000, 3e9, -4)
    assert [*map(ticks.number, given)] == ["0", "0.05", "8,000", "20k", "1.5M", "3G", "-4"]
    assert ticks.log_ticks(1e-9, 1, 5) == pytest.approx([10.0**k for k in range(-9, 1)])


def test_what_is_drawn_inside_a_box_stays_there():
    canvas = Canvas(30, 30)
    with canvas.inside((10, 10, 20, 20)):
        canvas.box((0, 0, 30, 30), (9, 9, 9))
    is_drawn = (canvas.picture() == 9).all(axis=-1)
    assert is_drawn[10:20, 10:20].all() and is_drawn.sum() == 100


def test_the_command_writes_a_picture_or_says_why_not(tmp_path, capsys):
    place, out = trained(tmp_path / "w"), tmp_path / "new" / "curves.png"
    assert plot.main([place, "--keys=train/loss,val/mse", f"--out={out}"]) == 0
    assert Image.open(out).size[0] == 2 * charts.WIDTH
    for arguments, message in (
        ([], "Draws what runs wrote"),
        ([f"--out={out}"], "expected WORKDIR, one or several"),
        ([place, "--out=curves.svg"], "--out=curves.svg: expected the name of a PNG file"),
        ([place, "--x=days"], "--x=days: value should be one of <steps|images|hours>"),
        ([place, "--key=loss"], "there is no flag --key: did you mean '--keys'"),
        ([str(tmp_path / "no")], "no has no metrics.jsonl"),
        (["attention", place], "expected flags as --name=value"),
        (["attention", f"--workdir={tmp_path}"], "is no workdir"),
        (["attention", "--block=16"], "--block is a number from 0 to 15 of this generator, not 16"),
        (["attention", "--tokens=30"], "generator.window = 8 does not divide"),
    ):
        assert plot.main([*arguments]) == 2
        said = capsys.readouterr()
        assert message in said.out + said.err


MODELS = (
    {"latent": (16, 16), "window": 4, "extend": 2, "global_tokens": "ordered", "classes": 3},
    {"latent": (8, 12), "window": 4, "extend": 3, "global_tokens": "ordered"},
    {"latent": (8, 8), "window": 4, "extend": 1, "classes": 2},
    {"latent": (8, 8), "window": 2, "extend": 1, "own": "dropped"},
    {"latent": (8, 8), "window": 4, "extend": 1, "attention": "joint", "own": "dropped"},
)


def masks_of(model, block):
    """Which token attends to which by the network's own masks, bool [S,S]."""
    given = {"grid": jnp.zeros((1, 1, *model.latent), jnp.int32), "block": jnp.array([[block]])}
    given["ring"] = jnp.zeros((1, 1, ring_and_target(*model.layout)[0].shape[1]))
    given["ring"] = given["ring"].astype(jnp.int32)
    order = decoding_order(*model.layout)
    given["rank"] = jnp.argmax(order == np.arange(model.blocks)[:, None, None], axis=1).T + 1
    given["label"] = jnp.zeros(1, jnp.int32) if model.classes else None
    target = jnp.zeros((1, 1, model.window**2), jnp.int32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), target=target, **given))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    segments, masks = model.apply(params, **given, method=Model._context)
    segments, masks = [*segments, target[..., None]], [*masks, (None, None)]
    sizes = [x.shape[2] for x in segments]

    def wide(mask, rows, columns):
        return (
            np.ones((rows, columns), bool)
            if mask is None
            else np.broadcast_to(np.asarray(mask)[0, 0, 0], (rows, columns))
        )

    rows = []
    for n, size in enumerate(sizes):
        parts = [wide(masks[k][0], size, sizes[k]) for k in range(n)]
        parts.append(wide(masks[n][1], size, size))
        parts += [np.zeros((size, later), bool) for later in sizes[n + 1 :]]
        if model.attention == "joint":
            parts = [wide(right, size, k) for (right, _), k in zip(masks, sizes, strict=True)]
        rows.append(np.concatenate(parts, axis=1))
    is_there = np.ones(sum(sizes), bool)
    ring = ring_and_target(*model.layout)[0][block]
    is_there[sizes[0] : sizes[0] + sizes[1]] = ring != NOWHERE
    return np.concatenate(rows)[is_there][:, is_there]


@pytest.mark.parametrize("keys", MODELS)
def test_the_attention_that_is_drawn_is_the_networks(keys):
    model = Model(codes=5, layers=1, width=4, heads=1, code_width=2, **keys)
    for block in {0, model.blocks // 2, model.blocks - 1}:
        sight = attention.Sight(model, block)
        np.testing.assert_array_equal(sight.matrix(), masks_of(model, block))
        ring, target = ring_and_target(*model.layout)
        assert sight.sizes[1:] == ((ring[block] != NOWHERE).sum(), target.shape[1])
        assert sight.sizes[0] == bool(model.classes) + model.blocks
        said = " ".join(text for _, text in attention.texts(sight))
        assert f"ring: {sight.sizes[1]} tokens" in said and f"the {target.shape[1]} tokens" in said
        assert f"{sight.globals_seen.sum()} of {model.blocks} are seen" in said


def test_the_picture_of_attention_counts_what_it_shows(tmp_path):
    out = tmp_path / "attention.png"
    assert plot.main(["attention", f"--out={out}"]) == 0
    assert out.stat().st_size < 100_000
    image = np.asarray(Image.open(out))
    # In the middle of the cells of the grid: 32 x 32 tokens, of which block 9 is the target.
    cell = attention.SIDE // 32
    grid = image[attention.TOP + cell // 2 :: cell, attention.LEFT + cell // 2 :: cell][:32, :32]
    for colour, number in ((attention.BLUE, 64), (attention.ORANGE, 96), (attention.MASKED, 96)):
        assert (grid == colour).all(axis=-1).sum() == number
    assert plot.main([f"--out={out}", "attention", "--workdir=drawings"]) == 0  # in any order
    assert plot.main(["attention", "workdirs/a"]) == 2
