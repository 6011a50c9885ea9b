"""Compilation for GPUs that are not there: their names, and what is read of their programs."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
from jax.experimental import topologies

from evqgan.aot import gpus, kernels, topology
from evqgan.core import chips
from evqgan.core.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent
# As XLA prints it for a GPU, shortened: a loop of three turns whose fusion writes one of 3 slices
# in its place and reads one of another array; a product of 8x16 and 16x4 in a fusion, one by
# cuBLAS, a convolution, its two gradients, and attention; and what is no kernel.
HLO = """HloModule jit_f, is_scheduled=true

%fused_update (a: f32[3,8], b: f32[3,8], i: s32[]) -> f32[3,8] {
  %a = f32[3,8]{1,0} parameter(0)
  %b = f32[3,8]{1,0} parameter(1)
  %same = f32[3,8]{1,0} bitcast(%b)
  %i = s32[] parameter(2)
  %slice = f32[1,8]{1,0} dynamic-slice(%same, %i, %i), dynamic_slice_sizes={1,8}
  ROOT %new = f32[3,8]{1,0} dynamic-update-slice(%a, %slice, %i, %i)
}

%fused_dot (x: bf16[8,16], y: bf16[16,4]) -> (bf16[8,4], f32[8]) {
  %x = bf16[8,16]{1,0} parameter(0)
  %y = bf16[16,4]{1,0} parameter(1)
  %d = bf16[8,4]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %r = f32[8]{0} reduce(%d), dimensions={1}, to_apply=%sum
  ROOT %both = (bf16[8,4]{1,0}, f32[8]{0}) tuple(%d, %r)
}

%condition (s: (s32[], f32[3,8])) -> pred[] {
  %s = (s32[], f32[3,8]{1,0}) parameter(0)
  ROOT %l = pred[] compare(%s, %s), direction=LT
}

%body (s.1: (s32[], f32[3,8])) -> (s32[], f32[3,8]) {
  %s.1 = (s32[], f32[3,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%s.1), index=0
  %old = f32[3,8]{1,0} get-tuple-element(%s.1), index=1
  %u = f32[3,8]{1,0} fusion(%old, %old, %i.1), kind=kLoop, calls=%fused_update
  ROOT %t = (s32[], f32[3,8]{1,0}) tuple(%i.1, %u)
}

ENTRY %main (p: bf16[8,16], q: bf16[16,4], im: f32[2,5,5,3], w: f32[6,3,3,3]) -> f32[3,8] {
  %p = bf16[8,16]{1,0} parameter(0)
  %q = bf16[16,4]{1,0} parameter(1)
  %im = f32[2,5,5,3]{3,2,1,0} parameter(2)
  %w = f32[6,3,3,3]{3,2,1,0} parameter(3)
  %loop = (s32[], f32[3,8]{1,0}) while(%t), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %dots = (bf16[8,4]{1,0}, f32[8]{0}) fusion(%p, %q), kind=kCustom, calls=%fused_dot, \
metadata={op_name="jit(f)/mlp/dot_general"}
  %blas = (bf16[8,4]{1,0}, s8[64]{0}) custom-call(%p, %q), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %conv = (f32[2,5,5,6]{3,2,1,0}, u8[0]{0}) custom-call(%im, %w), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %out = f32[2,5,5,6]{3,2,1,0} get-tuple-element(%conv), index=0
  %back = (f32[2,5,5,3]{3,2,1,0}, u8[0]{0}) custom-call(%out, %w), window={size=3x3}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  %slope = (f32[6,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%im, %out), window={size=3x3}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %query = bf16[2,2,10,8]{3,2,1,0} parameter(4)
  %keys = bf16[2,2,12,8]{3,2,1,0} parameter(5)
  %attention = (bf16[2,2,10,8]{3,2,1,0}, u8[0]{0}) custom-call(%query, %keys, %keys), \
custom_call_target="__cudnn$fmhaSoftmax"
  %all = f32[8]{0} all-reduce-start(%q), to_apply=%sum
  %done = f32[8]{0} all-reduce-done(%all)
  ROOT %result = f32[3,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_kernels_of_a_program():
    found = {one.name: one for one in kernels.of_program(HLO)}
    assert list(found) == ["u", "l", "dots", "blas", "conv", "back", "slope", "attention"]
    # A slice is read and one written, each turn; the index is read, too.
    assert (found["u"].times, found["u"].moved) == (3, 2 * 8 * 4 + 4)
    assert found["dots"].moved == 2 * (8 * 16 + 16 * 4 + 8 * 4) + 4 * 8
    assert found["dots"].flops == found["blas"].flops == 2 * 8 * 16 * 4
    assert found["dots"].origin == "jit(f)/mlp/dot_general"
    each = 2 * (2 * 5 * 5 * 6) * (3 * 3 * 3)
    assert [found[name].flops for name in ("conv", "back", "slope")] == [each] * 3
    assert found["attention"].flops == 2 * 2 * (2 * 2) * 10 * 12 * 8
    assert found["conv"].moved == 4 * (2 * 5 * 5 * 3 + 6 * 27 + 2 * 5 * 5 * 6)


def test_a_kernel_takes_the_longer_of_its_products_and_its_bytes():
    chip = chips.Chip(1.0, flops=1e12, bandwidth=1e9)
    assert kernels.Kernel("a", 3, 10**9, 5e11, "").seconds(chip) == 3
    assert kernels.Kernel("a", 3, 10**8, 5e11, "").seconds(chip) == 1.5


@pytest.mark.parametrize(
    ("name", "number", "shape"),
    [
        ("h100", 1, "1x1x1"),
        ("a100-4", 4, "1x1x4"),
        ("h200-8", 8, "1x1x8"),
        ("h100-16", 16, "1x2x8"),
    ],
)
def test_gpus_by_name(name, number, shape, monkeypatch):
    asked = []

    def described(given, platform, **keys):
        asked.append((platform, keys["topology"], keys["target_config"]))
        return SimpleNamespace(devices=["a device"])

    monkeypatch.setattr(topologies, "get_topology_desc", described)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert gpus.number_of(name, "--compile_only") == number
    target = topology.target(name)
    ((platform, found, description),) = asked
    gpu = chips.GPUS[name.partition("-")[0]]
    assert (platform, found, target.devices) == ("cuda", shape, ["a device"])
    assert target.chip == gpu.chip._replace(memory=gpu.chip.memory / 2)
    assert f"core_count: {gpu.processors}\n" in description and gpu.name in description


def test_a_plugin_that_cannot_describe_gpus_is_told_in_a_line(monkeypatch):
    def refused(*given, **keys):
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(topologies, "get_topology_desc", refused)
    with pytest.raises(InputError, match="=h100: JAX's plugin for CUDA .*: no such thing"):
        topology.target("h100")


@pytest.mark.parametrize("name", ["h100-0", "h100-12"])
def test_numbers_of_gpus_that_no_machines_have(name):
    with pytest.raises(InputError, match=f"{name}: expected 1 to 8 GPUs, or a multiple of 8"):
        topology.prepare(name)


def test_other_names_are_refused_with_those_that_there_are():
    with pytest.raises(InputError, match=r"expected cpu, gpu, a100, h100, .*, h100-8, v4-8, "):
        topology.prepare("h100x8")


def test_without_the_compiler_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"h100 needs a GPU's compiler: pip install 'jax\[cuda13\]"
    ):
        topology.prepare("h100")


@pytest.mark.skipif(
    not any(importlib.util.find_spec(plugin) for plugin in gpus.PLUGINS),
    reason="jax[cuda13], a GPU's compiler, is not installed; what it is asked, and how its "
    "programs are read, the tests above see",
)
@pytest.mark.parametrize("name", [*chips.GPUS, "h100-8"])
def test_a_tiny_step_is_compiled_for_a_gpu_that_is_not_there(name, tmp_path):
    file = tmp_path / "rows.json"
    given = ["--config=configs/imagenet_stage2.py:tiny", "--config.generator.layers=1"]
    given += ["--config.batch_size=8", "--config.dataset.codes=nowhere"]
    given += [f"--compile_only={name}", f"--json={file}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": ""}
    command = [sys.executable, "-m", "evqgan.main", *given]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    (row,) = json.loads(file.read_text())["rows"]
    assert row["fits"] and row["seconds_by"] == "kernels" and row["kernels"] > 100
    assert row["device_kind"] == chips.GPUS[name.partition("-")[0]].name
