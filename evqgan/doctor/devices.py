"""What JAX finds and computes: devices, a product on each, compiling, the processes of a run."""

import contextlib
import os
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import compilation_cache, multihost_utils

from evqgan.core import chips, cluster, limits, processes, scratch, space, versions
from evqgan.core.progress import counted
from evqgan.doctor import machine
from evqgan.doctor.report import Doubtful, Wrong

SMALL = 256  # side of the product that is checked: sums below 2^24, exact in any order
SIDE = {"cpu": 1024}  # of the product that is timed; of other devices LARGE
LARGE = 8192
CLOCK = 5.0  # ours: seconds by which clocks may differ; a bucket's credentials allow for minutes


def found(platform: str, number: int) -> str:
    """Check that the devices are those that were asked for, and that no GPU or TPU lies idle.

    platform, number: see `machine.asked`.
    """
    devices = jax.devices()
    here, kind = devices[0].platform, devices[0].device_kind
    text = f"{len(devices)} x {kind} ({here})"
    if len(jax.local_devices()) < len(devices):
        text += f", {len(jax.local_devices())} of them in each process"
    if here != "cpu":
        text += f", {limits.of_device() / space.GIB:.1f} GiB each"
    if platform and platform != here:
        chosen = os.environ.get("JAX_PLATFORMS")
        hint = f"unset JAX_PLATFORMS={chosen}" if chosen else machine.INSTALL[platform]
        hint = hint or "set JAX_PLATFORMS=cpu"
        raise Wrong(f"asked for {platform}, and there are {text}: {hint}")
    if number and number != len(devices):
        hint = "a run of several processes has those of all of them"
        if here == "gpu":
            hint = f"CUDA_VISIBLE_DEVICES may hide some, and {hint}"
        raise Wrong(f"asked for {counted(number, 'device')}, and there are {text}: {hint}")
    if here == "cpu" and not platform and not os.environ.get("JAX_PLATFORMS"):
        idle = idle_platform()
        if idle:
            hint = f"{machine.INSTALL[idle]}, or set JAX_PLATFORMS=cpu if the CPU is meant"
            raise Wrong(f"there is a {idle.upper()}, but JAX uses the CPU: {hint}")
    return text


def idle_platform() -> str:
    """Return "gpu" or "tpu" if the machine has one, whether or not JAX uses it."""
    if machine.gpus():
        return "gpu"
    return "tpu" if machine.tpus() else ""


def products() -> str:
    """Check a product of whole numbers on every device of this process, and time a large one."""
    rng = np.random.default_rng(0)
    left, right = rng.integers(-8, 9, (2, SMALL, SMALL)).astype(np.float32)
    exact = left.astype(np.int64) @ right.astype(np.int64)
    rates = []
    for device in jax.local_devices():
        # bfloat16 holds these numbers exactly, and float32 their sums, in any order.
        a, b = (jax.device_put(jnp.asarray(x, jnp.bfloat16), device) for x in (left, right))
        wrong = int((np.asarray(product(a, b)) != exact).sum())
        if wrong:
            what = f"{wrong:,} of {exact.size:,} numbers of a product are wrong"
            raise Wrong(f"{device}: {what}: this device is broken, take another one")
        rates.append(rate(device))
    slowest, fastest = min(rates), max(rates)
    text = f"right on {counted(len(rates), 'device')}, {slowest / 1e12:.3g} TFLOP/s"
    if fastest > 1.3 * slowest:
        text += f" to {fastest / 1e12:.3g}"
        raise Doubtful(f"{text}: devices differ, another program may be at work on the slower one")
    peak = chips.of(jax.local_devices()[0].device_kind).flops
    return text + (f", {slowest / peak:.0%} of what the vendor says" if peak else "")


@jax.jit
def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a product of matrices, summed in float32."""
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def rate(device: Any) -> float:
    """Return the FLOP a second of a large product: in bfloat16, on a CPU in float32."""
    side = SIDE.get(device.platform, LARGE)
    dtype = jnp.float32 if device.platform == "cpu" else jnp.bfloat16
    a = jax.device_put(jnp.ones((side, side), dtype), device)
    jax.block_until_ready(product(a, a))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(product(a, a))
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def compiling() -> str | None:
    """Check that compiled programs are kept on disk and found again, and how long both take.

    The program is kept in a folder of its own within the cache's. Of several processes only the
    first keeps programs, so that the others have nothing to check.
    """
    if processes.this()[0]:
        return None
    kept = "jax_persistent_cache_min_compile_time_secs", "jax_compilation_cache_dir"
    before = {name: getattr(jax.config, name) for name in kept}
    folder = before[kept[1]]
    with contextlib.ExitStack() as stack:
        try:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            own = str(stack.enter_context(scratch.folder("doctor.", folder)))
        except OSError as error:
            hint = "set JAX_COMPILATION_CACHE_DIR to a folder that can be written"
            raise Wrong(f"{folder} cannot be written ({error.strerror}): {hint}") from error
        stack.callback(compilation_cache.compilation_cache.reset_cache)
        for name, value in before.items():
            stack.callback(jax.config.update, name, value)
        for name, value in zip(kept, (0.0, own), strict=True):
            jax.config.update(name, value)
        compilation_cache.compilation_cache.reset_cache()
        first, again = compile_seconds(), compile_seconds()
        if not any(pathlib.Path(own).iterdir()):
            hint = "every start compiles anew: unset JAX_ENABLE_COMPILATION_CACHE"
            raise Wrong(f"JAX keeps no compiled program in {folder}: {hint}")
    held = f"{folder} holds {space.gib(size_of(pathlib.Path(folder)))}"
    return f"a first program in {first:.2f} s, from the cache in {again:.2f} s; {held}"


def size_of(folder: pathlib.Path) -> int:
    """Return the bytes of all files below a folder, from which others may just be removed."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def compile_seconds() -> float:
    """Return the seconds that compiling a small network takes; nothing in memory is reused."""

    def network(x: jax.Array, weights: jax.Array) -> jax.Array:
        for i in range(4):
            x = jax.nn.gelu(x @ weights[i]) + x
        return jnp.sum(x * x)

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((32, 64), (4, 64, 64)))
    lowered = jax.jit(jax.grad(network, argnums=1)).lower(*shapes)
    began = time.perf_counter()
    lowered.compile()
    return time.perf_counter() - began


def several(workdir: str) -> str | None:
    """Check that the processes of a run have the same code, versions, clock and workdir."""
    if not cluster.several():
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
        if tasks != "1" and os.environ.get("EVQGAN_DISTRIBUTED") != "1":
            hint = "set EVQGAN_DISTRIBUTED=1 to make them one, as launch/slurm.sh does"
            raise Wrong(f"each of {tasks} tasks of this Slurm step is a run of its own: {hint}")
        return None
    found = versions.now()
    cluster.check_alike(code=found.pop("code"), versions_of_libraries=sorted(found.items()))
    clocks = np.asarray(multihost_utils.process_allgather(np.float64(time.time() % 1e6)))
    apart = float(clocks.max() - clocks.min())
    if apart > CLOCK:
        raise Wrong(f"the clocks of the hosts differ by {apart:.0f} s: set them by NTP")
    if workdir and "://" not in workdir:
        cluster.check_shared(workdir)
    number, devices = processes.this()[1], len(jax.devices())
    return f"{number} processes with {devices} devices; same code and versions, clocks agree"
