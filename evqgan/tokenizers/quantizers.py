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

from evqgan.core.errors import InputError


def nearest(x, codebook):
    """x [n,c], codebook [V,c] float32 -> int32 [n], the code with the smallest distance, of equal ones the first.

    |x|^2 is the same for all codes and left out. Full float32: reduced precision would choose other codes.
    """
    products = jnp.einsum("nc,vc->nv", x, codebook, precision="highest")
    return jnp.argmin(jnp.sum(jnp.square(codebook), axis=-1)[None] - 2 * products, axis=-1).astype(jnp.int32)


def codebook_statistics(counts):
    """counts [D,V], how often each code occurred -> share of codes used, perplexity: both means over D.

    Perplexity is the exponential of the entropy (VQ-VAE): V if all codes are equally frequent, 1 if one code is all.
    """
    counts = jnp.asarray(counts, jnp.float32)
    share = counts / jnp.maximum(counts.sum(axis=-1, keepdims=True), 1)
    entropy = -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1)), axis=-1)
    return jnp.mean(counts > 0), jnp.mean(jnp.exp(entropy))


def straight_through(quantized, z):
    """The values of `quantized`, bit for bit, with the gradient of z."""
    return jax.lax.stop_gradient(quantized) + (z - jax.lax.stop_gradient(z))


def unit(x):
    """x [...,c] with length 1."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def uniform_init(rng, shape, dtype=jnp.float32):
    """Codes within +-1/V (VQ-VAE; VQGAN)."""
    return jax.random.uniform(rng, shape, dtype, -1 / shape[-2], 1 / shape[-2])


class VQ(nn.Module):
    """Vector quantizer of VQGAN (Esser et al., 2021, Eq. 4), as the paper takes it over (Sec. 3.1).

    loss = |sg(z) - z_q|^2 + commitment * |z - sg(z_q)|^2, means over elements. VQGAN's code has commitment on the other
    term; here it is where its paper has it.
    ema: 0 = the codebook is a parameter; else it is the moving average, with this decay, of the vectors it was chosen
      for, and the first term is left out (VQ-VAE, appendix A.1).
    l2_normalize: z and codes of length 1 (ViT-VQGAN, Sec. 3.2; with a small `width` these are its factorized codes).
    depth: 1 is VQ; else depth d quantizes what d - 1 left over, and z_q is the sum (RQ-VAE, Eq. 3 and 4), with one
      codebook for all depths (`shared`) or one each; the loss is then the mean over the partial sums.
    revive: a code chosen less often than this share of the average (moving average over some hundred batches) is set
      to a vector of the batch and its statistics start anew; so is every code at the first step. 0 = never. Ours:
      RQ-VAE's restart of unused codes, with a threshold that does not depend on batch size and V, and for a codebook by
      gradient too. That parameter cannot be set from here: the code is the parameter plus an offset, set by revival.
    """

    codes: int = 1024  # paper, Sec. 4.1
    width: int = 256  # VQGAN
    depth: int = 1
    shared: bool = True  # RQ-VAE, Sec. 3.1
    commitment: float = 0.25  # VQ-VAE, VQGAN
    ema: float = 0.0
    l2_normalize: bool = False
    revive: float = 0.0

    def setup(self):
        if self.l2_normalize and self.depth > 1:
            raise InputError("l2_normalize works with depth 1 only, got depth " + str(self.depth) + ": set one of them")
        shape = (1 if self.shared else self.depth, self.codes, self.width)  # [K,V,c]
        if self.ema:
            self.table = self.variable("codebook", "codes", lambda: uniform_init(self.make_rng("params"), shape))
            self.total = self.variable("codebook", "total", lambda: self.table.value)
        else:
            self.parameter = self.param("codebook", uniform_init, shape)
        if self.revive and not self.ema:
            self.offset = self.variable("codebook", "offset", jnp.zeros, shape)
        if self.ema or self.revive:
            # Moving average of how often a code is chosen, in units of the average over codes. With revival it starts
            # so low that no first batch can lift it above a threshold.
            start = -float(self.codes) if self.revive else 1.0
            self.usage = self.variable("codebook", "usage", jnp.full, shape[:2], start)

    def codebook(self):
        """The codes in use, [K,V,c] float32; K = depth, or 1 if shared."""
        codes = self.table.value if self.ema else self.parameter
        if self.revive and not self.ema:
            codes = codes + self.offset.value
        return unit(codes) if self.l2_normalize else codes

    def embed(self, ids):
        """ids [B,h,w,D] -> z_q [B,h,w,c], equal bit for bit to what `__call__` returned with these ids."""
        codebook = self.codebook()
        return sum(codebook[d % len(codebook)][ids[..., d]] for d in range(self.depth))

    def __call__(self, z, train=False):
        """z [B,h,w,c] -> z_q, ids, aux (see the module)."""
        z = unit(z.astype(jnp.float32)) if self.l2_normalize else z.astype(jnp.float32)
        codebook = self.codebook()
        rest, quantized, chosen, inputs = jax.lax.stop_gradient(z), 0, [], []
        codebook_loss = commitment_loss = 0.0
        for d in range(self.depth):
            book = codebook[d % len(codebook)]
            ids = nearest(rest.reshape(-1, self.width), jax.lax.stop_gradient(book)).reshape(z.shape[:-1])
            code = book[ids]
            inputs.append(rest.reshape(-1, self.width))
            chosen.append(ids)
            quantized = quantized + code
            codebook_loss += jnp.mean(jnp.square(rest - code)) / self.depth
            commitment_loss += jnp.mean(jnp.square(z - jax.lax.stop_gradient(quantized))) / self.depth
            rest = rest - jax.lax.stop_gradient(code)
        ids = jnp.stack(chosen, axis=-1)
        hits = jax.nn.one_hot(jnp.moveaxis(ids, -1, 0).reshape(self.depth, -1), self.codes)  # [D,N,V]
        usage, perplexity = codebook_statistics(hits.sum(axis=1))
        aux = {
            "quantizer_loss": self.commitment * commitment_loss + (0.0 if self.ema else codebook_loss),
            "codebook_loss": codebook_loss, "commitment_loss": commitment_loss,
            "usage": usage, "perplexity": perplexity,
        }  # fmt: skip
        if train and (self.ema or self.revive):
            update = self.is_mutable_collection("codebook") and not self.is_initializing()
            aux["revived"] = self._update(jnp.stack(inputs), hits) if update else jnp.zeros(())
        return straight_through(quantized, z), ids, aux

    def _update(self, x, hits):
        """Statistics after a batch: x [D,N,c] was assigned to hits [D,N,V] -> number of revived codes."""
        groups = 1 if self.shared else self.depth
        x, hits = x.reshape(groups, -1, self.width), hits.reshape(groups, -1, self.codes)
        weight = self.codes / x.shape[1]  # statistics count in units of the average code
        decay = self.ema or 0.99  # 0.99: RQ-VAE
        usage = decay * self.usage.value + (1 - decay) * weight * hits.sum(axis=1)
        if self.ema:
            sums = jnp.einsum("knv,knc->kvc", hits, x, precision="highest")
            total = decay * self.total.value + (1 - decay) * weight * sums
            everything = usage.sum(axis=-1, keepdims=True)
            smoothed = (usage + 1e-5) / (everything + self.codes * 1e-5) * everything  # 1e-5: VQGAN, Sonnet
            codes = total / smoothed[..., None]
        revived = jnp.zeros((), jnp.float32)
        if self.revive:
            dead = usage < self.revive
            usage = jnp.where(dead, 1.0, usage)
            # One random vector from each of V equal parts of the batch: no vector twice if there are V or more.
            starts = np.arange(self.codes + 1) * x.shape[1] // self.codes
            draws = jax.random.uniform(self.make_rng("codebook"), usage.shape)
            position = starts[None, :-1] + jnp.floor(draws * np.diff(starts)[None]).astype(jnp.int32)
            seeds = jnp.take_along_axis(x, position[..., None], axis=1)
            revived = dead.sum().astype(jnp.float32)
            dead = dead[..., None]
            if self.ema:
                total, codes = jnp.where(dead, seeds, total), jnp.where(dead, seeds, codes)
            else:
                self.offset.value = jnp.where(dead, seeds - self.parameter, self.offset.value)
        self.usage.value = usage
        if self.ema:
            self.total.value, self.table.value = total, codes
        return revived


class Gumbel(nn.Module):
    """Gumbel-softmax quantizer (Jang et al., 2017; DALL-E), as VQGAN's code has it. z [B,h,w,c] of any c; depth 1.

    In training a code is drawn by Gumbel noise and passed on whole, with the gradient of the soft choice at
    `temperature`, which falls to `final_temperature` geometrically over the first `anneal` steps; else the most likely
    code is taken.
    Loss: kl_weight * KL(choice | uniform), a mean over tokens.
    Differs from VQGAN's code: no noise in evaluation.
    """

    codes: int = 1024
    width: int = 256
    temperature: float = 1.0  # VQGAN
    final_temperature: float = 1 / 16  # DALL-E
    anneal: int = 0  # steps; 0 = constant
    kl_weight: float = 5e-4  # VQGAN
    depth = 1

    def setup(self):
        self.logits = nn.Dense(self.codes)
        self.parameter = self.param("codebook", nn.initializers.normal(1.0), (self.codes, self.width))  # VQGAN
        if self.anneal:
            self.steps = self.variable("codebook", "steps", jnp.zeros, (), jnp.int32)

    def embed(self, ids):
        """ids [B,h,w,1] -> z_q [B,h,w,c]: the codes' vectors."""
        return self.parameter[ids[..., 0]]

    def __call__(self, z, train=False):
        """z [B,h,w,c] -> z_q, ids, aux (see the module)."""
        logits = self.logits(z.astype(jnp.float32))
        soft, temperature = jax.nn.softmax(logits), jnp.asarray(self.temperature, jnp.float32)
        kl = jnp.mean(jnp.sum(soft * jnp.log(soft * self.codes + 1e-10), axis=-1))
        if train:
            if self.anneal:
                done = jnp.minimum(self.steps.value / self.anneal, 1.0)
                temperature = self.temperature * (self.final_temperature / self.temperature) ** done
                if self.is_mutable_collection("codebook") and not self.is_initializing():
                    self.steps.value = self.steps.value + 1
            logits = logits + jax.random.gumbel(self.make_rng("codebook"), logits.shape)
            soft = jax.nn.softmax(logits / temperature)
        ids = jnp.argmax(logits, axis=-1).astype(jnp.int32)[..., None]
        z_q = self.embed(ids)
        if train:  # adding zero, with the gradient of the soft choice
            mixture = soft @ jax.lax.stop_gradient(self.parameter)
            z_q = z_q + (mixture - jax.lax.stop_gradient(mixture))
        counts = jnp.sum(jax.nn.one_hot(ids.reshape(-1), self.codes), axis=0)
        usage, perplexity = codebook_statistics(counts[None])
        aux = {
            "quantizer_loss": self.kl_weight * kl, "kl": kl, "temperature": temperature, "usage": usage,
            "perplexity": perplexity,
        }  # fmt: skip
        return z_q, ids, aux
