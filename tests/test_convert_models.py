"""Whole models of the compared systems: their files into workdirs for every mode, and back."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict
from test_convert import call, checkpoint, fails
from test_torch_files import zipped

import evqgan
from evqgan import main, models
from evqgan.convert import systems, workdirs
from evqgan.core import exported
from evqgan.core.checkpoint import Checkpoints
from evqgan.export import __main__ as export

CNN = {
    "name": "cnn",
    "width": 32,
    "multipliers": (1, 1),
    "blocks": 1,
    "attention": (2,),
    "z_width": 8,
}
MASKGIT = {
    **CNN,
    "attention": (),
    "middle": 1,
    "middle_attention": False,
    "z_width": 0,
    "bias": False,
} | {"shortcut_of_output": True}
VIT = {
    "name": "vit",
    "size": 16,
    "patch": 2,
    "width": 32,
    "layers": 2,
    "heads": 2,
    "head_dim": 64,
    "mlp_width": 64,
}
RQ = {"name": "rqvae", "codes": 12, "width": 8, "depth": 2, "decay": 0.99, "revive": 1.0}
PLAIN = {"name": "vq", "codes": 12, "width": 8}
SMALL = {"layers": 2, "width": 32}
# System: config.tokenizer, config.generator, and what the weights do not tell; images of 16 x 16.
MODELS = {
    "taming": (
        {"encoder": CNN, "decoder": {**CNN, "blocks": 2}, "quantizer": PLAIN},
        {"name": "gpt", **SMALL, "heads": 4, "classes": 3},
        ["--size=16", "--heads=4", "--classes=3"],
    ),
    "maskgit": (
        {
            "encoder": {**MASKGIT, "down": "pool"},
            "decoder": MASKGIT,
            "quantizer": PLAIN,
            "pixels": "unit",
        },
        {"name": "maskgit", **SMALL, "heads": 4, "classes": 3},
        ["--size=16"],
    ),
    "rqvae": (
        {"encoder": CNN, "decoder": {**CNN, "blocks": 2}, "quantizer": RQ},
        {"name": "rqtransformer", **SMALL, "heads": 4, "head_layers": 1, "classes": 3},
        ["--size=16", "--heads=4"],
    ),
    "vitvqgan": (
        {
            "encoder": VIT,
            "decoder": VIT,
            "quantizer": {**PLAIN, "l2_normalize": True},
            "pixels": "unit",
        },
        {
            "name": "gpt",
            **SMALL,
            "heads": 4,
            "classes": 3,
            "tables": "separate",
            "time_shift": True,
            "unmasked": 1,
            "activation": "squared_relu",
        },
        ["--heads=4"],
    ),
}
NAMES = list(MODELS)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def drawn(like, seed=0):
    """A tree of the shapes `like`, random but for the counters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), like)


def theirs(name):
    """Return {name: array} of a system's tokenizer, and of its generator.

    The trees that they are made from come with them.
    """
    system, (tokenizer, generator, _) = systems.SYSTEMS[name], MODELS[name]
    tokenizer = ConfigDict(tokenizer)
    first = drawn(workdirs.blank_tokenizer(tokenizer))
    model = models.token_generator(
        generator, workdirs.image_tokenizer(tokenizer, 16), "float32"
    ).network
    generators = __import__(f"evqgan.generators.{generator['name']}", fromlist=["init"])
    like = jax.eval_shape(
        lambda: {"params": generators.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32))}
    )
    second = drawn(like, 1)
    return (
        system.tokenizer_to_theirs(first, workdirs.complete(tokenizer)),
        system.generator_to_theirs(second, model),
        first,
        second,
    )


def save(name, path, arrays):
    """A file as the system has it."""
    if name == "maskgit":
        systems.write_msgpack(path, arrays)
    else:
        checkpoint(
            path, {key: np.ascontiguousarray(x, np.float32) for key, x in arrays.items()}, zipped
        )


def load(name, path):
    """{name: array} of a file of the way back."""
    return systems.read_msgpack(path) if name == "maskgit" else safetensors.numpy.load_file(path)


def equal(a, b):
    assert sorted(a) == sorted(b)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def state_of(workdir):
    """What its checkpoint holds."""
    checkpoints = Checkpoints(workdir, create=False)
    like = {}
    for path, shape in checkpoints.shapes().items():
        *above, last = path.split("/")
        node = like
        for key in above:
            node = node.setdefault(key, {})
        node[last] = np.zeros(shape, np.int32 if last == "step" else np.float32)
    state = checkpoints.restore(like)
    checkpoints.close()
    return state


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


ALWAYS = ("taming", "rqvae")  # in every mode; the others, which are read alike, in the slow run


@pytest.fixture(scope="module", params=NAMES)
def converted(request, tmp_path_factory):
    """Return the name of a system, a folder with its files, and the workdirs made from them.

    The workdirs are those of tokenizer and generator.
    """
    name, place = request.param, tmp_path_factory.mktemp(request.param)
    system, flags = systems.SYSTEMS[name], MODELS[name][2]
    first, second, *trees = theirs(name)
    save(
        name,
        place / "tokenizer.ckpt",
        {**first, **({"loss.x": np.ones(2, np.float32)} if name in ("taming", "vitvqgan") else {})},
    )
    save(name, place / "generator.ckpt", system.join(first, second))
    size = [flag for flag in flags if flag.startswith("--size")]
    more = [] if system.whole else [f"--tokenizer={place / 'tokenizer'}"]
    workdir = str(place / "tokenizer")
    assert convert_main(name, place / "tokenizer.ckpt", workdir, *size) == 0
    assert convert_main(name, place / "generator.ckpt", place / "generator", *flags, *more) == 0
    return name, place, first, second, trees


def convert_main(*args):
    from evqgan.convert import __main__ as convert

    return convert.main([str(arg) for arg in args])


def test_every_weight_arrives(converted):
    _, place, _, _, (first, second) = converted
    assert (
        json.loads((place / "generator" / "config.json").read_text())["tokenizer"]["dtype"]
        == "float32"
    )
    state = state_of(place / "tokenizer")
    same({"params": state["ema"], "codebook": state.get("codebook", {})}, first)
    state = state_of(place / "generator")
    same({"params": state["ema"]}, second)
    same({"codebook": {}, **state["tokenizer"]}, first)


def test_the_way_back_is_exact(converted, tmp_path):
    name, place, first, second, _ = converted
    suffix = "msgpack" if name == "maskgit" else "safetensors"
    assert convert_main(name, "--back", place / "tokenizer", tmp_path / f"first.{suffix}") == 0
    equal(load(name, tmp_path / f"first.{suffix}"), first)
    assert convert_main(name, "--back", place / "generator", tmp_path / f"both.{suffix}") == 0
    equal(load(name, tmp_path / f"both.{suffix}"), systems.SYSTEMS[name].join(first, second))


def run(*args):
    return main.main(["main", *map(str, args)])


DATA = (
    "--config.dataset.name=generated",
    "--config.dataset.classes=3",
    "--config.dataset.num_examples=4",
    "--config.dataset.train=train",
    "--config.dataset.validation=train",
    "--config.batch_size=4",
)


@pytest.mark.parametrize(
    "converted",
    [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow) for name in NAMES],
    indirect=True,
)
def test_every_mode_accepts_a_generator(converted, tmp_path, capsys):
    _, place, *_ = converted
    work = shutil.copytree(place / "generator", tmp_path / "generator")
    at = f"--workdir={work}"
    assert run("--mode=sample", at, "--num=1", "--labels=1") == 0, capsys.readouterr().err
    half = [
        "--outpaint=0,0,0,8",
        f"--image={work / 'samples' / 'images' / '00000.png'}",
        "--num=1",
        "--label=1",
    ]
    assert run("--mode=edit", at, *half) == 0, capsys.readouterr().err
    evals = [*DATA, "--config.evals.generation.show=1"]
    assert run("--mode=evaluate", at, "--metrics=generation", *evals) == 0, capsys.readouterr().err
    assert "cross_entropy" in json.loads((work / "evaluation.json").read_text())["numbers"]
    before = state_of(work)
    assert run(at, *evals, "--config.duration=1 step", "--config.log_every=1 step") == 0, (
        capsys.readouterr().err
    )
    assert "train/loss" in (work / "metrics.jsonl").read_text()
    saved = Checkpoints(work, create=False)
    assert saved.steps()[-1] == 1 and {"params", "opt"} <= saved.parts()
    after = saved.restore({"tokenizer": before["tokenizer"]})
    saved.close()
    same(after["tokenizer"], before["tokenizer"])  # it went on with the weights that were converted


def test_every_mode_accepts_a_tokenizer(tmp_path, capsys):
    first, *_, tree, _ = theirs("rqvae")
    save("rqvae", tmp_path / "t.ckpt", first)
    assert convert_main("rqvae", "t.ckpt", "w", "--size=16") == 0
    assert run("--mode=evaluate", "--workdir=w", *DATA) == 0, capsys.readouterr().err
    assert "psnr" in json.loads((tmp_path / "w/evaluation.json").read_text())["numbers"]
    still = [
        "--config.optimizer.learning_rate=0.0",
        "--config.duration=1 step",
        "--config.evals.reconstruction.show=1",
    ]
    assert run("--workdir=w", *DATA, *still) == 0, capsys.readouterr().err
    saved = Checkpoints("w", create=False)
    assert saved.steps()[-1] == 1
    after = saved.restore({key: tree["params"] for key in ("params", "ema")})
    saved.close()
    for x, y in zip(jax.tree.leaves(after), 2 * jax.tree.leaves(tree["params"]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)  # the average of equals


def test_what_is_not_known_of_converted_weights_is_not_claimed(tmp_path, capsys):
    """Their config names data and a training that are not theirs, and their step is 0."""
    first, *_ = theirs("rqvae")
    save("rqvae", tmp_path / "t.ckpt", first)
    assert convert_main("rqvae", "t.ckpt", "w", "--size=16") == 0
    assert repr(evqgan.load("w")).endswith("converted weights in w>")
    assert export.main(["w", "out", "--noprograms"]) == 0, capsys.readouterr().err
    card, licence = ((tmp_path / "out" / x).read_text() for x in ("README.md", "LICENSE.txt"))
    assert "**tokenizer**: converted from a file of another program, which does not say" in card
    assert "| data | not known |" in card and "on what pictures they were trained" in card
    assert "not known to this program" in licence
    for text in (card, licence):
        assert "imagenet" not in text and "0 steps" not in text
    assert exported.step_of(tmp_path / "out", "tokenizer") == 0


def test_a_config_has_to_fit(tmp_path, capsys):
    """Fine-tuning by one's own config: its model is that of the weights, or nothing is written."""
    first, *_, tree, _ = theirs("taming")
    save("taming", tmp_path / "t.ckpt", first)
    body = "config = common.stage1((2,), 16); config.tokenizer = {}; config.seed = 7; return config"
    text = "from configs import common\n\ndef get_config():\n    "
    (tmp_path / "mine.py").write_text(text + body.format(MODELS["taming"][0]))
    other = {**MODELS["taming"][0], "quantizer": {**PLAIN, "codes": 13}}
    (tmp_path / "other.py").write_text(text + body.format(other))
    fails(
        capsys,
        "quantizer.codes = 12, not 13",
        "taming",
        "t.ckpt",
        "w",
        f"--config={tmp_path}/other.py",
    )
    capsys.readouterr()
    assert convert_main("taming", "t.ckpt", "w", f"--config={tmp_path}/mine.py") == 0
    *_, licence, uses = capsys.readouterr().out.splitlines()
    assert licence.startswith("licence of what is published: MIT")
    assert uses.startswith("reconstruct, encode and evaluate with --workdir=w, ")
    assert json.loads((tmp_path / "w/config.json").read_text())["seed"] == 7
    same({"params": state_of("w")["ema"], "codebook": {}}, tree)


def test_what_no_shape_tells_of_a_vit_is_told_by_its_config(tmp_path, capsys):
    """Images that are not square, heads of other sizes, residual codes: there and back."""
    coders = [{**VIT, "size": [16, 32], "heads": 2, "head_dim": width} for width in (8, 4)]
    quantizer = {**PLAIN, "name": "vitvqgan", "depth": 2}
    parts = {"encoder": coders[0], "decoder": coders[1], "quantizer": quantizer, "pixels": "unit"}
    keys = ConfigDict(parts)
    tree = drawn(workdirs.blank_tokenizer(keys))
    first = systems.SYSTEMS["vitvqgan"].tokenizer_to_theirs(tree, workdirs.complete(keys))
    save("vitvqgan", tmp_path / "t.ckpt", first)
    (tmp_path / "mine.py").write_text(
        "from configs import common\n\ndef get_config():\n    config = common.stage1((2,), 16)\n"
        f"    config.dataset = {{'folder': 'images', 'size': (16, 32)}}\n"
        f"    config.tokenizer = {parts}\n    return config"
    )
    fails(capsys, "are not heads of 64: its config tells", "vitvqgan", "t.ckpt", "w")
    assert convert_main("vitvqgan", "t.ckpt", "w", f"--config={tmp_path}/mine.py") == 0
    same({"params": state_of("w")["ema"]}, {"params": tree["params"]})
    assert convert_main("vitvqgan", "--back", "w", "back.safetensors") == 0
    equal(load("vitvqgan", "back.safetensors"), first)


def test_what_is_wrong_is_one_line_and_leaves_nothing(tmp_path, capsys):
    first, second, *_ = theirs("rqvae")
    save("rqvae", tmp_path / "t.ckpt", first)
    save("rqvae", tmp_path / "g.ckpt", second)
    fails(capsys, "expected SOURCE and DEST of rqvae, got t.ckpt", "rqvae", "t.ckpt")
    fails(
        capsys,
        "there is no flag --head: did you mean '--heads'?",
        "rqvae",
        "t.ckpt",
        "w",
        "--head=3",
    )
    fails(
        capsys,
        "--heads=many: expected a non-negative integer",
        "rqvae",
        "t.ckpt",
        "w",
        "--heads=many",
    )
    fails(
        capsys, "convert its tokenizer first, and give --tokenizer=WORKDIR", "rqvae", "g.ckpt", "w"
    )
    fails(capsys, "g.ckpt is no file of taming", "taming", "g.ckpt", "w")
    fails(capsys, "expected a flax checkpoint", "maskgit", "t.ckpt", "w")
    fails(capsys, "expected one of taming, maskgit, rqvae, vit", "--tokenizer", "taming")
    whole, few = systems.SYSTEMS["taming"].join(*theirs("taming")[:2]), np.ones(6, np.float32)
    lacking = {name: x for name, x in whole.items() if name != "transformer.tok_emb.weight"}
    for name, arrays, message in (
        ("taming", lacking, "these are other weights: tok_emb.weight is missing"),
        ("taming", {**whole, "transformer.tok_emb.weight": few}, "of names or shapes that make no"),
        (
            "taming",
            {**whole, "transformer.blocks.99.ln1.bias": few},
            "called blocks.2.* are missing",
        ),
        ("vitvqgan", {"quantizer.embedding.weight": few}, "of names or shapes that make no sense"),
    ):
        save(name, tmp_path / "other.ckpt", arrays)
        fails(capsys, message, name, "other.ckpt", "w")
    first.pop("decoder.conv_out.bias")
    save("rqvae", tmp_path / "t2.ckpt", first)
    fails(capsys, "params/decoder/to_rgb/bias is missing", "rqvae", "t2.ckpt", "w")
    assert not os.path.exists("w") and not [f for f in os.listdir() if f.startswith(".w")]
    os.makedirs("there/x")
    fails(capsys, "is there already", "rqvae", "t.ckpt", "there")


def test_a_model_goes_back_to_its_own_system_alone(tmp_path, capsys):
    first, *_ = theirs("rqvae")
    save("rqvae", tmp_path / "t.ckpt", first)
    assert call(capsys, "rqvae", "t.ckpt", "w", "--size=16")[0] == 0
    for name, dest in (
        ("taming", "x.safetensors"),
        ("maskgit", "x.msgpack"),
        ("vitvqgan", "x.safetensors"),
    ):
        fails(capsys, f"holds no model of {name}", name, "--back", "w", dest)
        assert not os.path.exists(dest)
    fails(capsys, "ends in .safetensors", "rqvae", "--back", "w", "x.pt")


def test_a_model_of_another_kind_is_refused_on_the_way_back_an_exported_one_too(tmp_path, capsys):
    dest = tmp_path / "theirs.safetensors"
    assert convert_main("taming", "--back", "drawings", dest) == 2
    said = "holds no model of taming: its generator is multigrained, expected gpt"
    assert said in capsys.readouterr().err and not dest.exists()
