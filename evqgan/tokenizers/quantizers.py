"""Quantizers: vectors to the nearest of V codes. VQ (codebook by gradient or moving average, residual), and Gumbel.

Both share one contract. z [B,h,w,c] -> z_q [B,h,w,c] float32, whose gradient passes straight through to z;
ids [B,h,w,D] int32; aux, a dict of scalars: `quantizer_loss` is to be added to the training loss, the rest is to be
looked at. `train` draws from the rng `codebook` and, where the collection `codebook` is mutable, updates what is no
parameter: moving averages and usage. Under jit these are sums over the global batch, whatever the sharding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, PartialShare, Positive
from evqgan.tokenizers.codebooks import (
    codebook_statistics,
    entropy_loss,
    nearest,
    squared_distances,
    straight_through,
    uniform_init,
    unit,
)
from evqgan.tokenizers.gumbel import Gumbel

TARGETS = ("softmax", "argmax")


class VQ(nn.Module):
    """Vector quantizer of VQGAN (Esser et al., 2021, Eq. 4), as the paper takes it over (Sec. 3.1).

    loss = |sg(z) - z_q|^2 + commitment * |z - sg(z_q)|^2, means over elements.
    swapped_commitment: `commitment` is the weight of the first term and 1 that of the second (VQGAN's code, where
      `legacy` is on; its paper has it as above).
    ema: 0 = the codebook is a parameter; else it is the moving average, with this decay, of the vectors it was chosen
      for, and the first term is left out (VQ-VAE, appendix A.1).
    l2_normalize: z and codes of length 1 (ViT-VQGAN, Sec. 3.2; with a small `width` these are its factorized codes).
    unnormalized_gradient: the gradient of z_q goes to z as if it had not been normalized (the ViT-VQGAN port).
    depth: 1 is VQ; else depth d quantizes what d - 1 left over, and z_q is the sum (RQ-VAE, Eq. 3 and 4), with one
      codebook for all depths (`shared`) or one each; the loss is then the mean over the partial sums. With l2_normalize
      z stays as it is, what is left over is normalized anew for each depth, z_q is the sum of codes of length 1, and
      the loss is the mean over depths of |sg(x) - e|^2 + commitment * |x - sg(e)|^2 with x the normalized vector and e
      its code (the ViT-VQGAN port's use_residual with use_norm).
    detached_residual: that loss by depths, also without l2_normalize; no gradient of it reaches z, but that of x
      reaches the codes of the depths before (the ViT-VQGAN port's use_residual).
    entropy: weight of MaskGIT's `codebooks.entropy_loss` of minus the squared distances, with entropy_temperature and
      entropy_target "softmax" or "argmax"; depth 1 only.
    revive: a code chosen less often than this share of the average (moving average over some hundred batches) is set
      to a vector of the batch and its statistics start anew; so is every code at the first step. 0 = never. Ours:
      RQ-VAE's restart of unused codes, with a threshold that does not depend on batch size and V, and for a codebook by
      gradient too. That parameter cannot be set from here: which codes are `dead` [K,V] and the vectors that they
      become, `seeds` [K,V,c], are noted in the collection `codebook`, for `replace_dead` after the step.
    absolute_counts: with ema, statistics are counts in a batch, which start at 0, and `revive` is one, too (RQ-VAE's
      code, where it is 1). Differs from RQ-VAE's code: no noise on vectors if there are fewer than V.
    between_depths: with ema and one codebook for all depths, it is updated after each depth in training, and the next
      depth uses the new one (RQ-VAE's code). z_q is then not what `embed` gives.
    """

    codes: Positive = 1024  # paper, Sec. 4.1
    width: Positive = 256  # VQGAN
    depth: Positive = 1
    shared: bool = True  # RQ-VAE, Sec. 3.1
    commitment: float = 0.25  # VQ-VAE, VQGAN
    ema: PartialShare = 0.0
    l2_normalize: bool = False
    revive: float = 0.0
    swapped_commitment: bool = False
    entropy: float = 0.0
    entropy_temperature: Above0 = 0.01  # MaskGIT
    entropy_target: str = "softmax"  # MaskGIT
    absolute_counts: bool = False
    between_depths: bool = False
    detached_residual: bool = False
    unnormalized_gradient: bool = False

    def setup(self):
        self._check()
        shape = (1 if self.shared else self.depth, self.codes, self.width)  # [K,V,c]
        if self.ema:
            self.table = self.variable("codebook", "codes", lambda: uniform_init(self.make_rng("params"), shape))
            self.total = self.variable("codebook", "total", lambda: self.table.value)
        else:
            self.parameter = self.param("codebook", uniform_init, shape)
        if self.revive and not self.ema:
            self.dead = self.variable("codebook", "dead", jnp.zeros, shape[:2], bool)
            self.seeds = self.variable("codebook", "seeds", jnp.zeros, shape)
        if self.ema or self.revive:
            # Moving average of how often a code is chosen, in units of the average over codes. With revival it starts
            # so low that no first batch can lift it above a threshold.
            start = 0.0 if self.absolute_counts else -float(self.codes) if self.revive else 1.0
            self.usage = self.variable("codebook", "usage", jnp.full, shape[:2], start)

    def _check(self):
        if self.entropy and self.depth > 1:
            raise InputError(f"entropy works with depth 1 only, got depth {self.depth}: set one of them")
        if self.entropy_target not in TARGETS:
            near = build.nearest(self.entropy_target, TARGETS)
            raise InputError(f"config.tokenizer.quantizer.entropy_target is {self.entropy_target!r}: {near}")
        for name in ("absolute_counts", "between_depths"):
            if getattr(self, name) and not self.ema:
                raise InputError(f"{name} is about a codebook by moving average, got ema = 0: set ema (RQ-VAE: 0.99)")

    def codebook(self):
        """The codes in use, [K,V,c] float32; K = depth, or 1 if shared."""
        codes = self.table.value if self.ema else self.parameter
        return unit(codes) if self.l2_normalize else codes

    def embed(self, ids):
        """ids [B,h,w,D] -> z_q [B,h,w,c], equal bit for bit to what `__call__` returned with these ids."""
        codebook = self.codebook()
        return sum(codebook[d % len(codebook)][ids[..., d]] for d in range(self.depth))

    def soft_codes(self, z, temperature, rng):
        """z [B,h,w,c] -> ids [B,h,w,D] int32, chances of all codes [B,h,w,D,V] float32 (RQ-VAE, Sec. 3.2.3).

        chances = softmax(-|x - e|^2 / temperature) at each depth, from which the id is drawn, and the next depth goes
        on with what this code leaves over. rng None: the nearest code instead of a drawn one.
        """
        rest, codebook, chosen, chances = z.astype(jnp.float32), self.codebook(), [], []
        for d in range(self.depth):
            book, x = codebook[d % len(codebook)], rest.reshape(-1, self.width)
            x = unit(x) if self.l2_normalize else x
            scores = -squared_distances(x, book) / temperature
            ids = nearest(x, book) if rng is None else jax.random.categorical(jax.random.fold_in(rng, d), scores)
            rest = rest - book[ids].reshape(rest.shape)
            chosen.append(ids.reshape(z.shape[:-1]).astype(jnp.int32))
            chances.append(jax.nn.softmax(scores).reshape(*z.shape[:-1], self.codes))
        return jnp.stack(chosen, axis=-1), jnp.stack(chances, axis=-2)

    def __call__(self, z, train=False):
        """z [B,h,w,c] -> z_q, ids, aux (see the module)."""
        given = z.astype(jnp.float32)
        by_depth = self.detached_residual or (self.l2_normalize and self.depth > 1)
        z = unit(given) if self.l2_normalize and not by_depth else given
        tracked, mutable = train and (self.ema or self.revive), self.is_mutable_collection("codebook")
        update = tracked and mutable and not self.is_initializing()
        rest = jax.lax.stop_gradient(z) if self.detached_residual else z
        quantized, chosen, inputs, hits, revived = 0, [], [], [], jnp.zeros(())
        codebook_loss = commitment_loss = 0.0
        for d in range(self.depth):
            codebook = self.codebook()
            book = codebook[d % len(codebook)]
            x = unit(rest) if self.l2_normalize and by_depth else rest
            fixed = jax.lax.stop_gradient(x)
            ids = nearest(fixed.reshape(-1, self.width), jax.lax.stop_gradient(book)).reshape(z.shape[:-1])
            code = book[ids]
            inputs.append(fixed.reshape(-1, self.width))
            chosen.append(ids)
            hits.append(jax.nn.one_hot(ids.reshape(-1), self.codes))  # [N,V]
            quantized = quantized + code
            error = x - jax.lax.stop_gradient(code) if by_depth else z - jax.lax.stop_gradient(quantized)
            codebook_loss += jnp.mean(jnp.square(fixed - code)) / self.depth
            commitment_loss += jnp.mean(jnp.square(error)) / self.depth
            rest = rest - (code if self.detached_residual else jax.lax.stop_gradient(code))
            if update and self.between_depths and self.shared:
                revived += self._update(inputs[-1][None], hits[-1][None])
        hits = jnp.stack(hits)  # [D,N,V]
        usage, perplexity = codebook_statistics(hits.sum(axis=1))
        weights = (1.0, self.commitment) if self.swapped_commitment else (self.commitment, 1.0)
        aux = {
            "quantizer_loss": weights[0] * commitment_loss + (0.0 if self.ema else weights[1] * codebook_loss),
            "codebook_loss": codebook_loss, "commitment_loss": commitment_loss,
            "usage": usage, "perplexity": perplexity,
        }  # fmt: skip
        if self.entropy:
            affinity = -squared_distances(z.reshape(-1, self.width), self.codebook()[0])
            aux["entropy_loss"] = entropy_loss(affinity, self.entropy_temperature, self.entropy_target)
            aux["quantizer_loss"] += self.entropy * aux["entropy_loss"]
        if tracked:
            if update and not (self.between_depths and self.shared):
                revived = self._update(jnp.stack(inputs), hits)
            aux["revived"] = revived
        return straight_through(quantized, given if self.unnormalized_gradient else z), jnp.stack(chosen, -1), aux

    def _update(self, x, hits):
        """Statistics after a batch: x [D,N,c] was assigned to hits [D,N,V] -> number of revived codes."""
        groups = 1 if self.shared else self.depth
        x, hits = x.reshape(groups, -1, self.width), hits.reshape(groups, -1, self.codes)
        weight = 1.0 if self.absolute_counts else self.codes / x.shape[1]  # else in units of the average code
        decay = self.ema or 0.99  # 0.99: RQ-VAE
        usage = decay * self.usage.value + (1 - decay) * weight * hits.sum(axis=1)
        if self.ema:
            sums = jnp.einsum("knv,knc->kvc", hits, x, precision="highest")
            total = decay * self.total.value + (1 - decay) * weight * sums
            codes = self._means(total, usage)
        revived = jnp.zeros((), jnp.float32)
        if self.revive:
            dead = usage < self.revive
            usage = jnp.where(dead, 1.0, usage)
            seeds = draw_if(jnp.any(dead), self.make_rng("codebook"), x, self.codes)
            revived = dead.sum().astype(jnp.float32)
            where = dead[..., None]
            if self.ema:
                total, codes = jnp.where(where, seeds, total), jnp.where(where, seeds, codes)
                if self.absolute_counts:  # RQ-VAE's code smooths with the counts after revival
                    codes = self._means(total, usage)
            else:  # a batch may come in parts, of which each notes its own
                self.seeds.value = jnp.where(where, seeds, self.seeds.value)
                self.dead.value = self.dead.value | dead
        self.usage.value = usage
        if self.ema:
            self.total.value, self.table.value = total, codes
        return revived

    def _means(self, total, usage):
        """total [K,V,c] / usage [K,V], of which none is zero."""
        everything = usage.sum(axis=-1, keepdims=True)
        smoothed = (usage + 1e-5) / (everything + self.codes * 1e-5) * everything  # 1e-5: VQGAN, Sonnet
        return total / smoothed[..., None]


def draw_if(wanted, rng, x, number):
    """x [K,N,c] -> [K,number,c], random vectors of it; zeros unless `wanted` (bool scalar).

    One from each of `number` equal parts: no vector twice if there are enough. The N vectors may be those of a batch
    that lies on many devices, which exchange vectors only if some are wanted.
    """

    def draw():
        starts = np.arange(number + 1) * x.shape[1] // number
        draws = jax.random.uniform(rng, (len(x), number))
        position = starts[None, :-1] + jnp.floor(draws * np.diff(starts)[None]).astype(jnp.int32)
        return jnp.take_along_axis(x, position[..., None], axis=1)

    return jax.lax.cond(wanted, draw, lambda: jnp.zeros((len(x), number, x.shape[2]), x.dtype))


def replace_dead(part, codebook):
    """The trained part of a tokenizer and its collection `codebook`, after a step -> both, with what `VQ` noted done.

    part: {"params", "ema", "opt": {"mu", "nu", ...}}. The rows of dead codes become their seeds in the parameter and in
    its average, and 0 in Adam's moments. Returned as they are if the codebook is no parameter or is never revived.
    """
    noted = codebook.get("quantizer", {})
    if "dead" not in noted:
        return part, codebook

    def filled(tree, rows):
        table = tree["quantizer"]["codebook"]
        table = jnp.where(noted["dead"][..., None], rows, table).astype(table.dtype)
        return {**tree, "quantizer": {**tree["quantizer"], "codebook": table}}

    weights = {name: filled(part[name], noted["seeds"]) for name in ("params", "ema")}
    moments = {name: filled(part["opt"][name], 0.0) for name in ("mu", "nu")}
    done = {**noted, "dead": jnp.zeros_like(noted["dead"])}
    return {**part, **weights, "opt": {**part["opt"], **moments}}, {**codebook, "quantizer": done}


KINDS = {"vq": VQ, "gumbel": Gumbel}
