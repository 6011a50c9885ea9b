"""Eight devices, and two processes, train and sample as one does.

The children: this file in processes of their own.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_stage1
import test_stage2
import workdirs
from flax import linen as nn

import evqgan
from evqgan.core import checkpoint, mesh
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.nn.attention import Block
from evqgan.nn.layers import scan_layers
from evqgan.training import loop, prepare, stage1, stage2

TESTS = pathlib.Path(__file__).parent
ONE, DATA, ALL = {"data": 1}, {"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}
MESHES = {
    "stage1": {"one": ONE, "data": DATA, "all": ALL},
    "multigrained": {"one": ONE, "all": ALL},
}
MESHES |= dict.fromkeys(("gpt", "rqtransformer"), MESHES["multigrained"])
STEPS = 3
EIGHT = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"}


def make(name):
    """A small stage with all that its state can hold."""
    if name != "stage1":
        config = (
            test_stage2.config_of() if name == "multigrained" else test_stage2.on_two_depths(name)
        )
        config.dataset.size = 32
        return stage2.make(config)
    config = test_stage1.config_of(name="ema", decay=0.9, revive=0.1)
    config.adversarial = {
        "critic": {"name": "patchgan", "layers": 1, "width": 8},
        "optimizer": {"learning_rate": 1e-3},
    }
    return stage1.make(config)


def on_eight_devices(name, place):
    """A child: some steps of a stage on every mesh, and over from eight devices to one.

    It notes what it found as JSON.
    """
    stage, found, ends, compiled, start = make(name), {"losses": {}}, {}, {}, None
    for kind, sizes in MESHES[name].items():
        devices = mesh.make(**sizes, devices=jax.devices()[: int(np.prod(list(sizes.values())))])
        like, init, update = compiled[kind] = prepare.jitted(stage, devices)
        if kind == "data":  # compiling init takes its time; two meshes are enough
            state = jax.device_put(start, jax.tree.map(lambda x: x.sharding, like))
        else:
            state = init()
            start = start or jax.tree.map(np.asarray, state)
            found[f"{kind} starts apart"] = apart(state, start)
        found["losses"][kind] = []
        for _ in range(STEPS):
            state, metrics = update(state, mesh.put(test_stage1.batch_of(), devices))
            found["losses"][kind].append(float(metrics["loss"]))
        ends[kind] = jax.tree.map(np.asarray, state)
        found[f"{kind} compiled"] = update._cache_size()
    found["ends apart"] = {kind: apart(end, ends["one"]) for kind, end in ends.items()}
    found["shards"] = {
        mesh.path_name(path): (x.shape, x.addressable_shards[0].data.shape)
        for path, x in jax.tree_util.tree_leaves_with_path(
            {key: state[key] for key in ("params", "ema", "opt")}
        )
    }

    if name == "gpt":
        found["whole batches"] = whole_batches()

    checkpoints = checkpoint.Checkpoints(place)
    checkpoints.save(STEPS, state)
    checkpoints.wait()
    restored = checkpoints.restore(compiled["one"][0])
    checkpoints.close()
    found["restored apart"] = apart(restored, ends["all"])
    found["restored on"] = max(len(x.sharding.device_set) for x in jax.tree.leaves(restored))
    batch = test_stage1.batch_of()
    found["losses"]["next on one"] = float(compiled["one"][2](restored, batch)[1]["loss"])
    found["losses"]["next on all"] = float(
        compiled["all"][2](state, mesh.put(batch, devices))[1]["loss"]
    )
    (pathlib.Path(place) / "found.json").write_text(json.dumps(found))


def whole_batches():
    """How many arrays of the gradient of two layers hold the batch of all eight devices, with fsdp.

    With the constraint of `mesh.over`, and without it.
    """
    devices, x = mesh.make(data=1, fsdp=8), jnp.zeros((72, 4), jnp.int32)

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x):
            block, x = Block(2, name="blocks"), nn.Embed(64, 16)(x)
            return scan_layers(lambda block, x, _: (block(x)[0], None), block, x, 2, True)[0]

    params = Layers().init(jax.random.key(0), x)
    split = mesh.shardings(params, devices), mesh.batch_sharding(devices)

    def grad(params, x):
        return jax.grad(lambda params: jnp.sum(jnp.square(Layers().apply(params, x))))(params)

    def count(function):
        text = jax.jit(function, in_shardings=split).lower(params, x).compile().as_text()
        return len(re.findall(r"f32\[(?:72|288),", text))

    return [count(mesh.over(grad, devices)), count(grad)]


def apart(a, b):
    """The largest difference of two trees of arrays."""
    return max(
        float(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)).max(initial=0))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def use(workdir, place):
    """All that a trained workdir can do, into found.npz; also a child, with eight devices."""
    model = evqgan.load(workdir, batch_size=2)
    made = {f"sample {name}": value for name, value in model.sample(20, ["cat", 3, 5], 7).items()}
    few = {f"few {name}": value for name, value in model.sample(3, ["cat", 3, 5], 7).items()}
    chosen = model.sample(
        12, [1], 7, acceptance=0.5, classifier=lambda images, _: images.mean(axis=(1, 2, 3))
    )
    chosen = {f"chosen {name}": value for name, value in chosen.items()}
    again = {
        "encode": model.encode(made["sample images"]),
        "decode": model.decode(made["sample ids"]),
    }
    again["devices"] = np.array(model.runner.mesh.size)
    np.savez(pathlib.Path(place) / "found.npz", **made, **few, **chosen, **again)


def config_of_many():
    """The config of a run that does not end by itself."""
    # Revival depends on the order within a batch.
    config = test_stage1.config_of(name="ema", decay=0.9, revive=0.5)
    forever = "100000 steps"
    config.update({"batch_size": 8, "duration": forever, "log_every": "1 step"})
    config.update({"eval_every": forever, "checkpoint_every": forever})
    return config


def as_one_of_two(index, port, workdir):
    """A child: one of two processes of a run."""
    jax.distributed.initialize(
        coordinator_address=f"127.0.0.1:{port}", num_processes=2, process_id=int(index)
    )
    loop.train(config_of_many(), workdir)


def child(function, *args, **environment):
    """`function(*args)` in a process of its own."""
    code = "import sys, test_multidevice as t; getattr(t, sys.argv[1])(*sys.argv[2:])"
    ours = {"PYTHONPATH": str(TESTS.parent), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", code, function.__name__, *map(str, args)],
        cwd=TESTS,
        env={**os.environ, **ours, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module", autouse=True)
def children(tmp_path_factory):
    """{name: (process, place)}, all at work at the same time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {name: tmp_path_factory.mktemp(name) for name in (*MESHES, "two")}
    started = {
        name: (child(on_eight_devices, name, places[name], **EIGHT), places[name])
        for name in MESHES
    }
    for i in range(2):
        started[i] = child(as_one_of_two, i, port, places["two"]), places["two"]
    yield started
    for process, _ in started.values():
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def two(children):
    """The workdir, exit codes and outputs of a run of two processes.

    The second process gets a SIGTERM at step 3.
    """
    (first, workdir), (second, _) = children[0], children[1]
    for _ in range(3000):
        file = workdir / "metrics.jsonl"
        if file.exists() and '"step": 3,' in file.read_text():
            break
        assert first.poll() is None and second.poll() is None, (
            first.communicate()[0] + second.communicate()[0]
        )
        time.sleep(0.1)
    second.send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    return workdir, [first.returncode, second.returncode], outputs


@pytest.fixture(scope="module", params=MESHES)
def eight(children, request):
    process, place = children[request.param]
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return json.loads((place / "found.json").read_text())


def test_two_processes_train_as_one(two):
    workdir, _, _ = two
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    config = config_of_many()
    dataset = Dataset(**config.dataset)
    stage = stage1.make(config)
    state, update = jax.jit(stage.init)(), jax.jit(stage.update)
    batches = pipeline.train_batches(dataset, config.batch_size, config.seed)
    for line in lines[:2]:
        state, metrics = update(state, next(batches))
        for name in metrics:
            assert line[f"train/{name}"] == pytest.approx(float(metrics[name]), rel=1e-4), name
    batches.close()


def test_the_first_process_alone_writes(two):
    workdir, _, (first, second) = two
    steps = [
        json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, len(steps) + 1))
    assert len(list(workdir.glob("*tfevents*"))) == 1
    assert "step 2/100,000" in first and "step " not in second.replace("step=", "")


def test_sigterm_to_one_process_stops_both_at_the_same_step(two):
    workdir, codes, (first, _) = two
    assert codes == [143, 143]
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert "SIGTERM: stopping after the step under way, which is then saved\n" in first
    assert f"stopped by SIGTERM at step {last:,}; the same command goes on from there" in first
    checkpoints = checkpoint.Checkpoints(workdir)
    assert checkpoints.steps() == [last]
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(stage1.make(config_of_many()).init)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
    assert int(checkpoints.restore(like)["step"]) == last
    checkpoints.close()


def test_eight_devices_train_as_one(eight):
    losses = eight["losses"]
    assert len(losses["one"]) == STEPS and losses["one"][0] != losses["one"][-1]
    for kind in MESHES["stage1"].keys() & losses:
        np.testing.assert_allclose(losses[kind], losses["one"], rtol=1e-4)
    assert eight["all starts apart"] < 1e-7  # weights are drawn alike on any devices
    assert max(eight["ends apart"].values()) < 1e-4


def test_a_step_is_compiled_once(eight):
    assert [eight[f"{kind} compiled"] for kind in ("one", "all")] == [1, 1]


def test_weights_are_split(eight):
    split = {
        name: np.prod(shape) / np.prod(part) for name, (shape, part) in eight["shards"].items()
    }
    for top in ("params", "ema", "opt"):
        kernels = {
            name: ways for name, ways in split.items() if name.startswith(top) and "/mlp/" in name
        }
        kernels = {name: ways for name, ways in kernels.items() if name.endswith("kernel")}
        assert kernels and set(kernels.values()) == {4.0}, kernels  # fsdp x tensor
    kernels = [ways for name, ways in split.items() if name.endswith("kernel")]
    assert np.mean(np.array(kernels) > 1) > 0.9


@pytest.mark.parametrize("eight", ["gpt"], indirect=True)
def test_with_fsdp_no_device_holds_the_batch_of_all(eight):
    ours, without = eight["whole batches"]
    assert ours == 0 < without


def test_a_checkpoint_of_eight_devices_goes_on_on_one(eight):
    assert eight["restored apart"] == 0 and eight["restored on"] == 1
    np.testing.assert_allclose(
        eight["losses"]["next on one"], eight["losses"]["next on all"], rtol=1e-4
    )


def test_eight_devices_sample_as_one(tmp_path):
    for name in ("one", "eight"):
        (tmp_path / name).mkdir()
    process = child(use, workdirs.trained(), tmp_path / "eight", **EIGHT)
    use(workdirs.trained(), tmp_path / "one")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    with (
        np.load(tmp_path / "one" / "found.npz") as one,
        np.load(tmp_path / "eight" / "found.npz") as eight,
    ):
        assert (one["devices"], eight["devices"]) == (1, 8) and one.keys() == eight.keys()
        same = [name for name in one if not name.startswith("few") and name != "devices"]
        for name in same:  # two rows a device here and there
            np.testing.assert_array_equal(one[name], eight[name], name)
        assert "chosen scores" in same and "sample images" in same and "encode" in same
        # Two rows a device here, one there.
        np.testing.assert_array_equal(one["few ids"], eight["few ids"])
        np.testing.assert_allclose(one["few images"].astype(int), eight["few images"], atol=1)
        np.testing.assert_array_equal(one["few ids"], one["sample ids"][:3])
