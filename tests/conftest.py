"""Settings of every test run.

They are the CPU, strict rank promotion, a compilation cache, memory, and where the recordings lie.
"""

import gc
import os
import pathlib
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/evqgan/jax-tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# Most programs here run once, and take longer to compile than to run; 0 is what users have.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

from evqgan.convert import __main__ as converter
from evqgan.convert import packages
from evqgan.core import weights

if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    # A third of what is left of compiling goes into one LLVM module for each thread, which is more
    # work in all, and into XLA's checks of itself between its passes.
    flags = ["--xla_cpu_parallel_codegen_split_count=1", "--xla_disable_hlo_passes=hlo-verifier"]
    if jax.__version_info__ < (0, 12):
        # Fusions by way of MLIR are slower to compile. XLA ends a process with a flag that it does
        # not know; all versions below 0.12 know this one.
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join([*flags, os.environ.get("XLA_FLAGS", "")])

jax.config.update("jax_numpy_rank_promotion", "raise")

# A tracing makes millions of objects that live on: to look through them, and through the modules
# imported above, ten times a second takes a tenth of the time of the suite.
gc.freeze()
gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def golden():
    """The folder of the recorded outputs of the original implementations.

    It is EVQGAN_GOLDEN, or if that is not set tests/golden.
    """
    return pathlib.Path(os.environ.get("EVQGAN_GOLDEN", pathlib.Path(__file__).parent / "golden"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of the trained weights of EfficientNet-lite0 and its head, EVQGAN_WEIGHTS.

    They are those of the package, or where it is not installed those that lie in the usual folder.
    """
    names, folder = ("efficientnet_lite0", "efficientnet_lite0_head"), weights.folder()
    if packages.installed(packages.LITE0):
        folder = tmp_path_factory.mktemp("weights")
        for name in names:
            converter.run(name, packages.LITE0, weights.path(folder, name))
    elif not all(weights.path(folder, name).is_file() for name in names):
        # The trained weights are 19 MB that neither the repository nor its requirements hold. That
        # the network is the published one is guarded always, by test_maps_equal_the_original
        # (recorded outputs) and test_the_head_is_a_convolution_a_mean_and_a_dense_layer; that what
        # is built on it computes what it should, by the tests of each with random weights.
        there = f"{packages.LITE0.requirement} is not installed"
        pytest.skip(f"{there}, and no weights of {' and '.join(names)} lie in {folder}")
    return folder


@pytest.fixture(scope="module")
def optimized():
    """For a file whose programs are compiled as users compile them."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def free_compiled_programs():
    """After a file its programs, and what they hold on to, are freed.

    What another file shares is cached on disk.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def foreground():
    """Signals as a process in the foreground has them: nohup and `&` have some ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
