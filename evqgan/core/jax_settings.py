"""The settings of JAX under which this package computes, whatever a user's own are."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import AbstractMesh

from evqgan.core import progress

# With other values of these nothing trains or loads, or a seed gives other numbers: the value, and
# what sets it in a body, which JAX has not for the last.
NEEDED: dict[str, tuple[Any, Any]] = {
    "jax_enable_x64": (False, jax.enable_x64),
    "jax_numpy_dtype_promotion": ("standard", jax.numpy_dtype_promotion),
    "jax_transfer_guard": ("allow", jax.transfer_guard),
    "jax_disable_jit": (False, jax.disable_jit),
    "jax_default_prng_impl": ("threefry2x32", jax.default_prng_impl),
    "jax_threefry_partitionable": (True, jax.threefry_partitionable),
    "jax_random_seed_offset": (0, None),
}
NO_MESH = AbstractMesh((), ())


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Have JAX in the body, in this thread, as if the user had set nothing that changes results.

    That is what is NEEDED, but for the offset of seeds, and no mesh of `jax.set_mesh`. It also
    decorates a function.
    """
    with contextlib.ExitStack() as stack:
        for needed, setting in NEEDED.values():
            if setting is not None:
                stack.enter_context(setting(needed))
        stack.enter_context(jax.sharding.use_abstract_mesh(NO_MESH))
        yield


def require() -> None:
    """Give this process the settings that are NEEDED, with a line for each that was another."""
    for name, (needed, _) in NEEDED.items():
        found = getattr(jax.config, name)
        if found in (needed, None):  # None: nobody has set it
            continue
        jax.config.update(name, needed)
        if jax.process_index() == 0:
            progress.warn(f"{name.upper()}={found} is not heeded: this command runs with {needed}")
