"""The settings of JAX under which this package computes, whatever a user's own are."""

import contextlib
from collections.abc import Iterator

import jax
from jax.sharding import AbstractMesh

from evqgan.core import progress

# With other values of these nothing trains or loads, or a seed gives other numbers; the first of
# each is what a command line has.
NEEDED: dict[str, tuple] = {
    "jax_enable_x64": (False,),
    "jax_numpy_dtype_promotion": ("standard",),
    "jax_transfer_guard": ("allow", None),
    "jax_disable_jit": (False,),
    "jax_default_prng_impl": ("threefry2x32",),
    "jax_threefry_partitionable": (True,),
    "jax_random_seed_offset": (0,),
}
NO_MESH = AbstractMesh((), ())


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Have JAX in the body, in this thread, as if the user had set nothing that changes results.

    That is what is NEEDED, but for an offset of seeds, for which JAX has no context, and no mesh of
    `jax.set_mesh`. It also decorates a function.
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.transfer_guard("allow"),
        jax.disable_jit(False),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        jax.sharding.use_abstract_mesh(NO_MESH),
    ):
        yield


def require() -> None:
    """Give this process the settings that are NEEDED, with a line for each that was another."""
    for name, (needed, *same) in NEEDED.items():
        found = getattr(jax.config, name)
        if found in (needed, *same):
            continue
        jax.config.update(name, needed)
        if jax.process_index() == 0:
            progress.warn(f"{name.upper()}={found} is not heeded: this command runs with {needed}")
