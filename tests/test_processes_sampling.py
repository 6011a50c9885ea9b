"""Two processes run evaluation, sample and edit as one does.

The children: this file in processes of their own.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import test_commands
import workdirs
from PIL import Image

from evqgan.core import config_files, mesh, processes
from evqgan.core.errors import InputError
from evqgan.inference import evaluation, mode_inputs
from evqgan.inference.mode_edit import EditRequest, edit
from evqgan.inference.mode_sample import SampleRequest, sample

TESTS = pathlib.Path(__file__).parent
# Number of images, in batches of 2.
# There are 5 for each of two processes, which takes a batch that is filled up.
NUM = 10
CHOICE = {"acceptance": 0.4, "classifier": "test_rejection:brightness"}
EVALUATED = ("reconstruction", "generation", "distribution")
FEATURES = {"features": ["pixels"]}
EVALS = {
    "tokenizer": {"reconstruction": FEATURES},
    "generator": {"generation": {}, "distribution": {**FEATURES, "samples": 7}},
}
SAMPLED = ("samples.npz", "grid.png", "images/00009.png")


def use(place):
    """What a command line may do with the workdir `place`, in all processes of a run."""
    config, _ = config_files.of_workdir(place)
    sample(config, place, None, SampleRequest(NUM, ["cat", 3, 5], 7, batch_size=2))
    sample(
        config,
        place,
        place / "chosen",
        SampleRequest(NUM, [1, "bee", 8], 7, batch_size=2, **CHOICE),
    )
    evaluation.evaluate(config, place, None, [])
    box, image = ["0", "0", "8", "8"], place / "images" / "cat" / "0.png"
    edit(config, place, None, EditRequest(image, box=box, label="bee", num=2, batch_size=2))


def as_one_of_two(index, port, place):
    """A child: one of two processes of a run."""
    index, place = int(index), pathlib.Path(place)
    jax.distributed.initialize(
        coordinator_address=f"127.0.0.1:{port}", num_processes=2, process_id=index
    )
    mode_inputs.load = evaluation.load = test_commands.load
    with pytest.raises(
        InputError, match="no space" if index else "process 1 of this run stopped: its own message"
    ):
        a_part_that_fails(index)
    gather_twice(index)
    use(place)
    for name, given in (("plain", {}), ("chosen", CHOICE)):
        elsewhere = place / f"of_process_{index}" / name
        with pytest.raises(InputError, match="one folder for all processes|of this run stopped"):
            request = SampleRequest(NUM, None, 7, batch_size=2, **given)
            sample(config_files.of_workdir(place)[0], place, elsewhere, request)


def gather_twice(index):
    """Rows of both processes: the second time nothing is compiled."""
    compiled, counts = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name)
    )
    for _ in range(2):
        rows = mesh.put(np.full(1, index, np.int32), mesh.make(), 2)
        np.testing.assert_array_equal(mesh.gathered(rows), [0, 1])
        counts.append(compiled.count("/jax/core/compile/backend_compile_duration"))
    assert 0 < counts[0] == counts[1]


@processes.together()
def a_part_that_fails(index):
    if index:
        raise InputError("no space")


def child(function, *args):
    """`function(*args)` in a process of its own."""
    code = "import sys, test_processes_sampling as t; getattr(t, sys.argv[1])(*sys.argv[2:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, function.__name__, *map(str, args)],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stopped(place):
    """The workdir `place` with rejection sampling that one process began.

    It was stopped after three batches.
    """
    seen = []

    def classifier(images, labels):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(images)
        return images.mean(axis=(1, 2, 3))

    classifier.name, (config, _) = CHOICE["classifier"], config_files.of_workdir(place)
    given = {"acceptance": CHOICE["acceptance"], "folder": place / "chosen" / "candidates"}
    with pytest.raises(KeyboardInterrupt):
        test_commands.load(place, config, batch_size=2).sample(
            NUM, [1, "bee", 8], 7, classifier=classifier, **given
        )


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The workdirs that one process and two processes used, and what these two said."""
    top, patch = tmp_path_factory.mktemp("processes"), pytest.MonkeyPatch()
    for module in (mode_inputs, evaluation):
        patch.setattr(module, "load", test_commands.load)  # models compile once
    one, two = (workdirs.copy(top / name / "w") for name in ("one", "two"))
    # Batches of 4 for the generator, 2 for each device; of 5, which two do not divide.
    for place in (one, two):
        for part, evals in EVALS.items():
            file = place / part / "config.json"
            keys = {**json.loads(file.read_text()), "evals": evals}
            keys |= {"eval_batch_size": 5} if part == "tokenizer" else {}
            file.write_text(json.dumps(keys))
    stopped(two)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [child(as_one_of_two, i, port, two) for i in range(2)]
    try:
        use(one)
        said = [process.communicate(timeout=600)[0] for process in children]
    finally:
        patch.undo()
        for process in children:
            process.kill()
    assert [process.returncode for process in children] == [0, 0], "\n".join(said)
    return one, two, said


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("folder", ["samples", "chosen"])
def test_two_processes_sample_as_one(places, folder):
    one, two = (place / folder for place in places[:2])
    # No parts, no candidates.
    assert files_of(one) == files_of(two) and {*SAMPLED} < {*files_of(two)}
    with np.load(one / "samples.npz") as expected, np.load(two / "samples.npz") as found:
        assert expected.keys() == found.keys() and ("scores" in found) == (folder == "chosen")
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name], name)
        assert len(found["arr_0"]) == NUM == len(np.unique(found["numbers"]))
    for name in SAMPLED[1:]:
        np.testing.assert_array_equal(
            *(np.asarray(Image.open(place / name)) for place in (one, two))
        )


def test_two_processes_evaluate_as_one(places):
    expected, found = (json.loads((place / "evaluation.json").read_text()) for place in places[:2])
    assert found.keys() == expected.keys()
    assert found["protocols"] == expected["protocols"] and found["protocols"].keys() == {
        *EVALUATED,
        "samples",
    }
    assert found["numbers"].keys() == expected["numbers"].keys()
    for name, value in expected["numbers"].items():
        # None is NaN.
        numbers = (np.array(number, np.float64) for number in (found["numbers"][name], value))
        np.testing.assert_allclose(*numbers, rtol=1e-6, err_msg=name)


def test_the_first_process_edits(places):
    one, two = (place / "edits" for place in places[:2])
    assert files_of(one) == files_of(two) and len(files_of(two)) == 4
    for name in files_of(two):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_first_process_alone_speaks(places):
    # Grain warns of a jaxlib before 0.11, which `core.cli` keeps from users.
    others = re.compile(r"\[Gloo\]|Grain multiprocess")
    first, second = (
        [line for line in said.splitlines() if not others.search(line)] for said in places[2]
    )
    assert not second
    assert any(line.startswith("sample 10/10  ") for line in first)
    assert "going on from 6/26" in first and any(
        line.startswith("sample 26/26  ") for line in first
    )
    assert any(line.startswith("10 samples, the best of 26, of step 6 are in") for line in first)
