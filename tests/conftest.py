"""Settings of every test run: the CPU, strict rank promotion, a compilation cache, memory, where the recordings lie."""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/evqgan/jax-tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def golden():
    """The folder of the recorded outputs of the original implementations (EVQGAN_GOLDEN, default tests/golden)."""
    return pathlib.Path(os.environ.get("EVQGAN_GOLDEN", pathlib.Path(__file__).parent / "golden"))


@pytest.fixture(scope="module")
def quick_to_compile():
    """For a file whose programs run a few times only: to compile them takes longer than to run them.

    Such a file says `pytestmark = pytest.mark.usefixtures("quick_to_compile")`.
    """
    import workdirs  # which imports much

    with workdirs.quick_to_compile():
        yield


@pytest.fixture(scope="module", autouse=True)
def free_compiled_programs():
    """After a file its programs, and what they hold on to, are freed; what another file shares is cached on disk."""
    yield
    jax.clear_caches()
    gc.collect()
