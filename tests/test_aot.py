"""Compilation without a device: what is read of a compiled program, what is refused and advised."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from jax.experimental import topologies

from evqgan import main
from evqgan.aot import advice, compile_only, hlo, layout, programs, report, topology
from evqgan.aot.kernels import Kernel
from evqgan.benchmark import fits
from evqgan.core import chips, mesh
from evqgan.core.config_files import read_file
from evqgan.core.errors import InputError
from evqgan.doctor import machine

ROOT = pathlib.Path(__file__).parent.parent
# As libtpu prints it, shortened: a loop of six turns with an all-reduce of 1 MiB and one that only
# starts in it, a fusion that holds an all-gather, and one whose inner cycles are within the outer.
HLO = """HloModule jit_f, is_scheduled=true

%fused (p: f32[8,4]) -> f32[64,4] {
  %p = f32[8,4]{1,0:T(8,128)} parameter(0)
  ROOT %gather.1 = f32[64,4]{1,0:T(8,128)} all-gather(%p), backend_config={"estimated_cycles":"99"}
}

%condition (arg: (s32[], f32[512,512])) -> pred[] {
  %constant.54 = s32[]{:T(128)} constant(6)
  %arg = (s32[]{:T(128)}, f32[512,512]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.54), direction=LT
}

%body (arg.1: (s32[], f32[512,512])) -> (s32[], f32[512,512]) {
  %arg.1 = (s32[]{:T(128)}, f32[512,512]{1,0:T(8,128)S(1)}) parameter(0)
  %x = f32[512,512]{1,0:T(8,128)} get-tuple-element(%arg.1), index=1
  %all-reduce.2 = f32[512,512]{1,0:T(8,128)S(1)} all-reduce(%x), to_apply=%add
  %start = (bf16[8,4]{1,0:T(8,128)(2,1)}, bf16[64,4]{1,0:T(8,128)S(1)}) all-gather-start(%y)
  %done = bf16[64,4]{1,0} all-gather-done(%start)
  %bits = u16[8,4]{1,0:T(8,128)(2,1)} rng-bit-generator(%x), algorithm=rng_default
  %y = bf16[8,4]{1,0:T(8,128)(2,1)} convert(%x), backend_config={"estimated_cycles":"10"}
  ROOT %tuple = (s32[]{:T(128)}, /*index=1*/f32[512,512]{1,0:T(8,128)}) tuple(%x, %all-reduce.2)
}

ENTRY %main (param.0: f32[8,4]) -> f32[64,4] {
  %param.0 = f32[8,4]{1,0:T(8,128)} parameter(0), sharding={devices=[8,1]<=[8]}
  %while.30 = (s32[], f32[512,512]{1,0:T(8,128)S(1)}) while(%t), condition=%condition, body=%body
  %while.31 = (s32[]) while(%t), condition=%unknown, body=%none
  ROOT %f = f32[64,4] fusion(%param.0), calls=%fused, backend_config={"estimated_cycles":"7"}
}
"""
IDS = fits.STORED_IDS  # instead of images


def test_collectives_and_cycles_count_as_often_as_their_loop_turns():
    found = hlo.read(HLO)
    assert found.collectives == {
        "all-reduce": [6, 6 * 512 * 512 * 4],
        "all-gather": [6 + 1, 6 * 64 * 4 * 2 + 64 * 4 * 4],
    }
    assert found.cycles == 6 * 10 + 7 and found.open_loops == 1
    assert found.random_bytes == 6 * 8 * 4 * 2
    noted = 'backend_config={"known_trip_count":{"n":"5"}}'
    found = hlo.read(HLO.replace("body=%body", f"body=%body, {noted}"))
    assert found.collectives["all-reduce"][0] == 5


def test_sizes_of_shapes():
    assert hlo.bytes_of("(f32[2,3]{1,0:T(8,128)}, pred[], token[], s4[8])") == 24 + 1 + 4
    assert hlo.bytes_of("f8e4m3fn[16]{0}") == 16 and hlo.bytes_of("c64[2]") == 16


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("v4-8", ("v4", "2x2x1")),
        ("v5e-16", ("v5e", "4x4")),
        ("v5litepod-256", ("v5e", "16x16")),
        ("v5p-8", ("v5p", "2x2x1")),
        ("v6e:2x4", ("v6e", "2x4")),
    ],
)
def test_an_accelerator_has_a_shape(name, shape):
    assert topology.shape_of(name) == shape


def test_a_new_type_of_tpu_is_a_row(monkeypatch, tmp_path):
    new = chips.TPU(
        chips.Chip(10.0, 7.0), ("TPU v5 lite pro",), "0x1234", {2: "1x1x1"}, cloud="v5pro"
    )
    monkeypatch.setitem(chips.TPUS, "v5x", new)
    assert topology.shape_of("v5x-2") == topology.shape_of("v5pro-2") == ("v5x", "1x1x1")
    assert topology.shape_of("v5x:2x2x4") == ("v5x", "2x2x4")
    with pytest.raises(InputError, match=r"expected cpu, gpu, .*, v4-8, .*v5x-2 and larger"):
        topology.shape_of("v9-8")
    assert chips.of("TPU v5 lite pro") == new.chip  # though the names of v5e and v5p are in it
    for name, number in (("vendor", "0x1ae0"), ("device", new.pci)):
        (tmp_path / "0").mkdir(exist_ok=True)
        (tmp_path / "0" / name).write_text(f"{number}\n")
    assert machine.tpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("name", "shape", "keys"),
    [
        ("v4-8", "v4:2x2x1", {"chip_config_name": "megacore"}),
        ("v5e-1", "v5e:1x1", {"chips_per_host_bounds": (1, 1, 1)}),
        ("v6e-8", "v6e:2x4", {}),
    ],
)
def test_libtpu_is_asked_for_the_chips_of_a_type(name, shape, keys, monkeypatch):
    asked = []

    def described(shape, platform, **keys):
        asked.append((shape, platform, keys))
        return SimpleNamespace(devices=["a device"])

    monkeypatch.setattr(topologies, "get_topology_desc", described)
    target = topology.target(name)
    assert asked == [(shape, "tpu", keys)] and target.devices == ["a device"]
    assert target.chip == chips.TPUS[name.partition("-")[0]].chip and target.chip.memory > 1e10


def test_a_message_names_the_flag_that_was_given():
    with pytest.raises(InputError, match="^--topology=v9-8: expected cpu"):
        topology.prepare("v9-8", "--topology")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v7-8", "expected cpu, gpu, .*, v4-8"),
        ("v5e-0", "expected one of v5e-1, v5e-4, v5e-8"),
        ("v5e-7", "expected one of v5e-1, v5e-4, v5e-8"),
        ("v5e:2x2x1", "expected a shape such as v5e:1x1"),
        ("v4:2x4", "expected a shape such as v4:2x2x1"),
    ],
)
def test_what_is_no_accelerator_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        topology.prepare(name)


def test_without_libtpu_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs libtpu.*pip install"):
        topology.prepare("v5e-8")


def shaped(tmp_path, *more):
    """The exit code of --compile_only=cpu of a tiny generator, and what it wrote to --json."""
    file = tmp_path / "rows.json"
    config = f"--config={ROOT}/configs/imagenet_stage2.py:tiny"
    smaller = ["--config.generator.layers=1", "--config.dataset.size=64"]
    given = [config, *smaller, "--config.generator.window=4", *more]
    return main.main(["main", *given, "--compile_only=cpu", f"--json={file}"]), file


def test_a_tiny_step_is_compiled_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    again = "--config.generator.remat=True"
    code, file = shaped(tmp_path, "--config.dataset.codes=nowhere", again)
    assert code == 0 and [path.name for path in tmp_path.iterdir()] == [file.name]
    (row,) = json.loads(file.read_text())["rows"]
    assert row["fits"] and row["advice"] == [] and row["collectives"] == {}
    parts = [row[f"{name}_bytes"] for name in ("argument", "output", "temporary")]
    assert row["peak_bytes"] == sum(parts) - row["aliased_bytes"] and row["peak_by"] == "sum"
    assert row["argument_bytes"] >= row["state_bytes"] > 0 and row["aliased_bytes"] > 0
    assert 0 < row["tflop"] < row["tflop_with_remat"]
    assert "fits: peak" in capsys.readouterr().out


def test_what_does_not_fit_ends_with_1_and_says_what_to_change(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "compiled", refused)
    code, file = shaped(tmp_path)
    out, err = capsys.readouterr()
    assert code == 1 and err == "error: step: more memory than cpu has\n"
    assert "--config.optimizer.accumulate=2 computes 1 image of a device at a time, not 2" in out
    assert json.loads(file.read_text())["rows"][0]["advice"]


def refused(program, target):
    """The row of a program that the compiler refuses."""
    return report.described(program, target)._replace(fits=False, error="exceeds 1 GiB")


def a_row(**keys):
    """A row of a step, with these values."""
    usual = {"program": "step", "topology": "x", "device_kind": "x", "devices": 1, "images": 4}
    return report.Row(**{**usual, "mesh": {"data": 1, "fsdp": 1}, "state_bytes": 1, **keys})


def test_advice_is_computed_of_the_state():
    """Eight devices that are none: the least fsdp at which weights take half of the memory."""
    config = programs.completed(read_file(f"{ROOT}/configs/imagenet_stage2.py:tiny"))
    config.generator.remat, config.batch_size = False, 16
    target = SimpleNamespace(name="x", devices=[jax.devices()[0]] * 8)
    sizes = {1: 80, 2: 45, 4: 25, 8: 15}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advice, "sharded_state", lambda config, target: sizes)
        row = a_row(memory_bytes=60, state_bytes=80, mesh={"data": 8, "fsdp": 1})
        found = [change.keys for change in advice.changes(config, target, row)]
    assert found == [
        ["--config.mesh.fsdp=4"],
        ["--config.generator.remat=True"],
        ["--config.optimizer.accumulate=2"],
    ]


def test_changes_are_compiled_until_one_fits(monkeypatch):
    config = programs.completed(read_file(f"{ROOT}/configs/imagenet_stage2.py:tiny"))
    config.generator.remat, config.batch_size = False, 8
    target = SimpleNamespace(name="x", devices=jax.devices()[:1])
    row = a_row(memory_bytes=60)
    tried = []

    def compile_step(program, target):
        tried.append(program)
        return row._replace(peak_bytes=2**30, fits=len(tried) == 2)

    monkeypatch.setattr(programs, "training", lambda config, devices: [config])
    monkeypatch.setattr(report, "compiled", compile_step)
    found = list(advice.lines(config, target, row, tries=3))
    keys = "--config.generator.remat=True"
    assert found == [
        f"compiled with {keys}: it does not fit, peak 1.00 GiB",
        f"compiled with {keys} --config.optimizer.accumulate=2: it fits, peak 1.00 GiB",
    ]
    assert tried[1].generator.remat and tried[1].optimizer.accumulate == 2


def test_what_was_not_tried_is_said_of_changes_alone(monkeypatch):
    change, end = advice.Change(["--config.a=1"], "helps"), advice.Change([], "nothing helps")
    monkeypatch.setattr(advice, "changes", lambda *given: iter([change, end]))
    found = list(advice.lines(None, SimpleNamespace(devices=[]), a_row(memory_bytes=1)))
    assert found == ["--config.a=1 helps (not tried; --tries=3 compiles on)", "nothing helps"]


def test_a_generator_s_tokenizer_is_that_of_the_shipped_config():
    config = programs.completed(read_file(f"{ROOT}/configs/imagenet_stage2.py"))
    theirs = read_file(f"{ROOT}/configs/imagenet_stage1.py")
    assert config.tokenizer.model.to_dict() == theirs.tokenizer.to_dict()
    assert config.tokenizer.dtype == theirs.dtype and config.generator.classes == 1000
    wide = programs.completed(read_file(f"{ROOT}/configs/ffhq_stage2.py:1024"))
    assert wide.tokenizer.model.encoder.remat  # of :1024 alone
    wide.tokenizer.model, wide.tokenizer.weights = {}, "elsewhere"
    with pytest.raises(InputError, match="neither a workdir nor"):
        programs.completed(wide)


def test_sampler_and_prediction_are_those_of_inference():
    config = programs.completed(read_file(f"{ROOT}/configs/imagenet_stage2.py:tiny"))
    config.dataset.size, config.generator.window = 64, 4
    sampler, decoder = programs.sampling(config, jax.devices()[:1], 2)
    ids = jax.eval_shape(sampler.function, *sampler.given)
    assert ids.shape == (2, 4, 4, 1) and sampler.images == 2
    assert jax.eval_shape(decoder.function, *decoder.given).shape == (2, 64, 64, 3)
    (prediction,) = programs.evaluation(config, jax.devices()[:1], None)
    assert jax.eval_shape(prediction.function, *prediction.given)["ids"].shape == ids.shape
    with pytest.raises(InputError, match="needs a generator"):
        programs.sampling(read_file(f"{ROOT}/configs/imagenet_stage1.py:tiny"), jax.devices(), 1)


def test_rows_of_fits_are_taken_up_again_and_one_that_crashes_loses_itself_alone(
    tmp_path, monkeypatch
):
    file, began = tmp_path / "fits.json", []

    def crash(command, **keys):
        began.append(command)
        return SimpleNamespace(returncode=-11, stderr="error: one\nerror: two" * (len(began) > 1))

    monkeypatch.setattr(subprocess, "run", crash)
    asked = {"topology": ["cpu"], "config": ["imagenet_stage1"], "mode": "train", "minutes": 1}
    given = SimpleNamespace(**asked, json=str(file))
    _, rows = fits.run(given, ["--config.seed=1"])
    assert rows[0]["note"] == "crashed with code -11" and rows[0]["changes"] == "--config.seed=1"
    _, rows = fits.run(given, ["--config.seed=1"])  # it is tried again, maybe with more memory
    assert len(began) == 2 and [row["note"] for row in rows] == ["two"]
    given.config = ["imagenet_stage1", "ffhq_stage1"]
    _, rows = fits.run(given, ["--config.seed=1"])
    assert len(began) == 3 and [row["note"] for row in rows][1] == "two"
    assert json.loads(file.read_text())["rows"] == rows
    late = subprocess.TimeoutExpired("", 60)
    monkeypatch.setattr(subprocess, "run", lambda *given, **keys: (_ for _ in ()).throw(late))
    given.config = ["celebahq_stage1"]
    _, rows = fits.run(given, [])
    assert rows[-1]["note"] == "given up after 1 minutes"
    monkeypatch.setattr(subprocess, "run", crash)  # it is tried again
    assert [row["note"] for row in fits.run(given, [])[1]][-1] == "two" and len(rows) == 3
    file.write_text('{"name": "fits"}')
    with pytest.raises(InputError, match="fits.json is not what benchmark fits writes: .* no rows"):
        fits.run(given, [])
    file.write_text('{"rows": [{"config": "a"}]}')
    with pytest.raises(InputError, match="fits.json is not what .*: its rows have other columns"):
        fits.run(given, [])


def test_all_that_is_asked_is_looked_at_before_the_first_is_compiled(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *given, **keys: pytest.fail("it was begun"))
    asked = {"mode": "train", "minutes": 1, "json": ""}
    for names, configs, keys, message in (
        (["cpu", "v9-8"], ["imagenet_stage1"], [], "^--topology=v9-8: expected cpu, gpu"),
        (["cpu"], ["imagenet_stage1", "imagenet_stage3"], [], "there is no file imagenet_stage3"),
        (["cpu"], ["imagenet_stage1"], ["--config.sede=1"], "did you mean 'seed'"),
        (["cpu"], ["imagenet_stage1", "quickstart"], [], "takes the config of one stage"),
        (["cpu"], ["folder"], [], "takes the config of one stage"),
        (["cpu"], ["comparison"], [], "is of several systems"),
    ):
        given = SimpleNamespace(**asked, topology=names, config=configs)
        with pytest.raises(InputError, match=message):
            fits.run(given, keys)


def test_the_command_of_the_page_finds_its_rows_and_generators_take_stored_ids_where_they_can():
    kept = fits.earlier(str(ROOT / "docs" / "measurements" / "fits.json"))
    unchanged = {(row.config, row.changes) for row in kept if row.changes in ("", IDS)}
    assert len(unchanged) > 30
    for config, changes in unchanged:
        assert fits.changes_of(config, []) == changes.split(), config
    assert fits.changes_of("imagenet_stage2", ["--config.seed=1"]) == [IDS, "--config.seed=1"]
    for own in (["--config.dataset.codes=OWN"], ["--config.dataset.codes="]):
        assert fits.changes_of("imagenet_stage2", own) == own


def test_the_rows_that_are_kept_are_read_and_written_as_they_are():
    file = ROOT / "docs" / "measurements" / "fits.json"
    assert json.loads(file.read_text())["rows"] == fits.as_json(fits.earlier(str(file)))
    assert {tuple(row) for row in json.loads(file.read_text())["rows"]} == {fits.Row._fields}


def test_a_row_of_fits_is_flat():
    target = SimpleNamespace(name="x", devices=jax.devices()[:1], chip=topology.Chip(2.0**30))
    config = programs.completed(read_file(f"{ROOT}/configs/imagenet_stage1.py:tiny"))
    (step,) = programs.training(config, target.devices)
    asked = fits.Row("a", "", "v5e-8", "train")
    flat = fits.flat(asked, refused(step, target)._replace(advice=("a", "b")))
    assert flat.asked == asked.asked and flat.note == "exceeds 1 GiB; a; b"
    assert flat.memory_gib == 1 and flat.mesh == "one" and flat.peak_gib is None
    alone = fits.flat(asked, refused(step, target)._replace(collectives={}))
    assert flat.collectives is None and (alone.collectives, alone.gb) == (0, 0)


def test_flops_give_a_lower_bound_of_time_where_there_are_no_cycles():
    chip = topology.Chip(2.0**30, flops=1e12, bandwidth=1e9, clock=1e9)
    row = a_row(memory_bytes=2**30, tflop=0.5, argument_bytes=3 * 10**8, output_bytes=10**8)
    found = report.with_times(row, hlo.Found(), [], chip)
    assert found.seconds == 0.5 and found.seconds_by == "roofline" and found.mfu == 1
    found = report.with_times(row, hlo.Found(cycles=1e9, random_bytes=10**9), [], chip)
    assert found.seconds == 2 and found.seconds_by == "cycles" and found.mfu == 0.25
    assert report.with_times(row, hlo.Found(), [], topology.Chip(2.0**30)) == row
    slow, large = Kernel("a", 2, 10**8, 0.0, ""), Kernel("b", 1, 10, 3e11, "")
    found = report.with_times(row, hlo.Found(), [slow, large], chip)
    assert found.seconds == pytest.approx(0.2 + 0.3) and found.kernels == 3
    assert found.seconds_by == "kernels" and "of 3 kernels" in report.time_text(found)


def test_a_compilers_refusal_is_one_line():
    """Of its two forms: before and after memory is assigned."""
    early = "the total memory required for HLO temporaries (480.00G) exceeds available HBM (15.75G)"
    text = f"RESOURCE_EXHAUSTED: Ran out of memory on HBM, {early}."
    assert report.reason_of(ValueError(text)) == f"Ran out of memory on HBM, {early}"
    late = "Used 20.39G of 15.75G hbm. Exceeded hbm capacity by 4.64G."
    text = f"RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory. {late}"
    assert report.reason_of(ValueError(text)) == "Used 20.39G of 15.75G hbm"


def test_any_key_may_be_changed_as_no_workdir_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = f"--config.tokenizer.weights={tmp_path / 'elsewhere'}"
    given = [f"--config={ROOT}/configs/imagenet_stage2.py", key, "--mode=sample"]
    flags, config = main.parse([*given, "--compile_only=cpu"])
    assert flags.mode == "sample" and config.tokenizer.weights == str(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is no workdir"):
        main.parse(given)


def test_flags_of_compile_only_need_it():
    with pytest.raises(InputError, match="--tries is a flag of --compile_only"):
        main.parse(["--config=quickstart", "--tries=2"])
    with pytest.raises(InputError, match="takes the config of one stage, such as"):
        compile_only.rows_of(read_file(f"{ROOT}/configs/quickstart.py"), "cpu", "train")


@pytest.mark.slow
def test_a_tiny_step_is_compiled_for_tpus_that_are_not_there(tmp_path):
    # libtpu is an extra. The same way for the CPU is guarded always, by
    # test_a_tiny_step_is_compiled_and_nothing_is_written; how a TPU's text is read, by
    # test_collectives_and_cycles_count_as_often_as_their_loop_turns; that libtpu is absent, by
    # test_without_libtpu_a_line_says_what_to_install.
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu, a TPU's compiler, is not installed: pip install '.[tpu]'")
    file = tmp_path / "rows.json"
    given = [f"--config={ROOT}/configs/imagenet_stage2.py:tiny", "--config.batch_size=8"]
    given += ["--config.dataset.codes=nowhere", "--config.mesh.fsdp=4", f"--json={file}"]
    command = [sys.executable, "-m", "evqgan.main", *given, "--compile_only=v5e:2x4"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    (row,) = json.loads(file.read_text())["rows"]
    assert row["devices"] == 8 and row["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
    assert row["peak_by"] == "compiler" and row["seconds_by"] == "cycles"
    assert row["collectives"] and row["open_loops"] == 0 and 0 < row["mfu"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("config", fits.CONFIGS)
def test_every_full_size_step_is_compiled_for_a_v5e_or_says_what_would_make_it_fit(config):
    # Hours in all; what it came to is in docs/fits.md. Without libtpu, an extra, the list of them
    # is guarded by test_all_of_full_size_are_compiled_by_benchmark_fits, and compiling by the tests
    # that test_a_tiny_step_is_compiled_for_tpus_that_are_not_there names.
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu, a TPU's compiler, is not installed: pip install '.[tpu]'")
    given = fits.changes_of(config, [])
    asked = fits.Row(config, " ".join(given), "v5e:2x4", "train")
    (row,) = fits.compiled(asked, given, 3600)
    assert row.fits or (row.fits is False and row.note), row


def test_the_layout_of_a_state_is_a_table(capsys, tmp_path):
    file = tmp_path / "layout.json"
    argv = ["--config=configs/imagenet_stage2.py:tiny", "--compile_only=cpu", "--layout"]
    assert main.main(["main", *argv, f"--json={file}"]) == 0
    said = capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    assert "compiled" not in said and len(said.splitlines()) == len(rows) + 3
    assert {"params", "ema", "opt"} <= {row["name"].split("/")[0] for row in rows}
    assert sum(row["bytes"] for row in rows) == sum(row["device_bytes"] for row in rows)


def test_the_layout_says_which_axis_splits_which_dimension():
    shape = jax.ShapeDtypeStruct((8, 4, 6), "float32")
    device_mesh = jax.sharding.AbstractMesh((2, 4, 2), mesh.AXES)
    spec = jax.sharding.PartitionSpec(("data", "fsdp"), None, "tensor")
    sharding = jax.sharding.NamedSharding(device_mesh, spec)
    (row,) = layout.rows_of({"a": {"b": shape.update(sharding=sharding)}})
    assert row["name"] == "a/b" and row["split"] == ["data+fsdp", "-", "tensor"]
    assert row["bytes"] == 16 * row["device_bytes"] == 768
    text = layout.table([row])
    assert "data+fsdp, -, tensor" in text and text.endswith("which a device holds 48 bytes")
