"""Revival: codes that are hardly chosen become vectors of the batch."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.tokenizers.quantizers.codebooks import by_table, moving_average, uniform_init

# How the vectors that dead codes become are drawn: all with the same chance, or in proportion to
# their squared error (as k-means++ draws its seeds; Arthur and Vassilvitskii, 2007). Where half of
# an image is plain white, half of those drawn by chance are, and white has a code already.
ReviveBy = Literal["chance", "error"]


def dead_and_seeds(
    usage: jax.Array,
    revive: float,
    x: jax.Array,
    owner: nn.Module,
    quantized: Callable[[], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return which codes are dead [K,V] bool, the new usage [K,V], and the codes' seeds [K,V,c].

    A dead code becomes its seed, a random vector of the batch, and its usage starts again at 1.
    usage: [K,V], see `ema.Averages`.
    revive: a code with a lower usage is dead.
    x: vectors of the batch [K,N,c].
    owner: the module whose rng `codebook` draws the seeds.
    quantized: returns what x became [K,N,c], by whose error seeds are drawn; None: uniformly. In a
      first batch, when all codes are dead, seeds are drawn uniformly in any case.
    """
    dead = usage < revive

    def weights() -> jax.Array | None:
        if quantized is None:
            return None
        errors = jnp.sum(jnp.square(x - quantized()), axis=-1)
        return jnp.where(jnp.all(dead), 0.0, errors)

    seeds = draw_if(jnp.any(dead), owner.make_rng("codebook"), x, usage.shape[1], weights)
    return dead, jnp.where(dead, 1.0, usage), seeds


def draw_if(
    needed: jax.Array,
    rng: jax.Array,
    x: jax.Array,
    number: int,
    weights: Callable[[], jax.Array | None] = lambda: None,
) -> jax.Array:
    """Return [K,number,c], random vectors of x [K,N,c]; zeros unless `needed` (bool scalar).

    One from each of `number` equal parts: no vector twice if there are enough. The N vectors may be
    those of a batch that lies on many devices, which exchange vectors only if some are needed.
    weights: gives [K,N], of which the parts have equal sums, so that a vector may be drawn twice;
      None, or 0 for all: the parts have equally many vectors.
    """

    def draw() -> jax.Array:
        draws, by = jax.random.uniform(rng, (len(x), number)), weights()
        starts = np.arange(number + 1) * x.shape[1] // number
        offsets = jnp.floor(draws * np.diff(starts)[None]).astype(jnp.int32)
        position = jnp.asarray(starts[None, :-1]) + offsets
        if by is not None:
            sums = jnp.cumsum(by, axis=1)
            places = (np.arange(number)[None] + draws) * sums[:, -1:] / number
            found = jax.vmap(jnp.searchsorted)(sums, places).clip(max=x.shape[1] - 1)
            position = jnp.where(sums[:, -1:] > 0, found, position)
        return jnp.take_along_axis(x, position[..., None], axis=1)

    return jax.lax.cond(needed, draw, lambda: jnp.zeros((len(x), number, x.shape[2]), x.dtype))


class Parameter:
    """A codebook by gradient whose unused codes are revived.

    A parameter cannot be set from inside the module: which codes are `dead` [K,V] and the vectors
    that they become, `seeds` [K,V,c], are noted in the collection `codebook`, beside their `usage`;
    `replace_dead` reads them after the step.
    """

    decay = 0.99  # of usage; RQ-VAE

    def __init__(
        self,
        owner: nn.Module,
        shape: tuple[int, int, int],
        revive: float,
        revive_by: ReviveBy = "chance",
    ) -> None:
        """Make the parameter and the variables of `owner`, in its setup.

        shape: [K,V,c].
        revive, revive_by: as of `ema.Averages`.
        """
        self.owner, self.revive, self.revive_by = owner, revive, revive_by
        self.value = owner.param("codebook", uniform_init, shape)
        if revive:
            self.dead = owner.variable("codebook", "dead", jnp.zeros, shape[:2], bool)
            self.seeds = owner.variable("codebook", "seeds", jnp.zeros, shape)
            self.usage = owner.variable("codebook", "usage", jnp.full, shape[:2], -float(shape[1]))

    def update(self, x: jax.Array, hits: jax.Array) -> jax.Array:
        """Note which codes are dead after a batch, and return their number.

        x, hits: as of `ema.Averages.update`.
        """
        if not self.revive:
            return jnp.zeros((), jnp.float32)
        x, hits = by_table(x, hits, self.value.shape)
        weight = hits.shape[2] / x.shape[1]
        usage = moving_average(self.usage.value, hits.sum(axis=1), self.decay, weight)
        quantized = (lambda: hits @ self.value) if self.revive_by == "error" else None
        found = dead_and_seeds(usage, self.revive, x, self.owner, quantized)
        dead, self.usage.value, seeds = found
        # A batch may come in parts, of which each notes its own.
        self.seeds.value = jnp.where(dead[..., None], seeds, self.seeds.value)
        self.dead.value = self.dead.value | dead
        return dead.sum().astype(jnp.float32)


def replace_dead(part: dict, codebook: dict) -> tuple[dict, dict]:
    """Return a tokenizer's `part` and `codebook` after a step, with dead codes replaced by seeds.

    part: {"params"[, "ema"], "opt": {"mu", "nu", ...}} of the stage's state. The rows of codes that
      were noted as dead become their seeds in the parameter and in its average, and 0 in Adam's
      moments.
    codebook: the collection in which `Parameter` noted them. Both are returned unchanged if it
      notes no dead codes, as that of any other quantizer.
    """
    noted = codebook.get("quantizer", {})
    if "dead" not in noted:
        return part, codebook

    def filled(tree: dict, rows: jax.Array | float) -> dict:
        table = tree["quantizer"]["codebook"]
        table = jnp.where(noted["dead"][..., None], rows, table).astype(table.dtype)
        return {**tree, "quantizer": {**tree["quantizer"], "codebook": table}}

    names = [name for name in ("params", "ema") if name in part]
    weights = {name: filled(part[name], noted["seeds"]) for name in names}
    moments = {name: filled(part["opt"][name], 0.0) for name in ("mu", "nu")}
    done = {**noted, "dead": jnp.zeros_like(noted["dead"])}
    return {**part, **weights, "opt": {**part["opt"], **moments}}, {**codebook, "quantizer": done}
