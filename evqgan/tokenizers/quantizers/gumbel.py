"""The Gumbel-softmax quantizer."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, Positive
from evqgan.tokenizers.quantizers.codebooks import (
    codebook_statistics,
    l2_normalize,
    squared_distances,
)


class Quantizer(nn.Module):
    """Gumbel-softmax quantizer (Jang et al., 2017; DALL-E), as VQGAN's code has it.

    z [B,h,w,c] of any c; depth 1. In training a code is drawn by Gumbel noise and passed on whole,
    with the gradient of the soft choice at `temperature`, which falls to `final_temperature` over
    the first `anneal` steps; else the most likely code is taken.
    Loss: kl_weight * KL(choice | uniform), a mean over tokens.
    width: c, the length of a code's vector.
    final_temperature: where `temperature` ends (1/16: DALL-E; 0.6: MaskGIT).
    anneal: the steps in which the temperature falls; 0: it is constant.
    kl_weight: the weight of KL(choice | uniform) (VQGAN; MaskGIT: 0).
    logits: "dense" = a linear layer of z; "distance" = minus the squared distances to the codes, z
      being as wide as they are (MaskGIT's GumbelVQ).
    l2_normalize: z and codes of length 1, for "distance" only (the ViT-VQGAN port's
      GumbelQuantizer).
    hard: False = in training the mean of the codes by their probabilities is passed on, with
      gradients to probabilities and codes (VQGAN's code with straight_through=False; MaskGIT; the
      ViT-VQGAN port).
    annealing: how the temperature falls: "geometric", ours, or "cosine" (VQGAN's code).
    Differs from VQGAN's code and the ViT-VQGAN port: no noise in evaluation, unless it is given.
    """

    codes: Positive = 1024
    width: Positive = 256
    temperature: Above0 = 1.0  # VQGAN
    final_temperature: Above0 = 1 / 16
    anneal: int = 0
    kl_weight: float = 5e-4
    logits: Literal["dense", "distance"] = "dense"
    l2_normalize: bool = False
    hard: bool = True
    annealing: Literal["geometric", "cosine"] = "geometric"
    depth = 1
    soft_targets = False

    def setup(self) -> None:
        if self.l2_normalize and self.logits != "distance":
            raise InputError(
                "a Gumbel quantizer with l2_normalize needs logits = 'distance', got 'dense': "
                "set one"
            )
        if self.logits == "dense":
            # it decides the ids
            self.dense = nn.Dense(self.codes, precision="highest", name="logits")
        self.parameter = self.param(
            "codebook", nn.initializers.normal(1.0), (self.codes, self.width)
        )  # VQGAN
        if self.anneal:
            self.steps = self.variable("codebook", "steps", jnp.zeros, (), jnp.int32)

    def codebook(self) -> jax.Array:
        """Return the codes in use, [1,V,c] float32."""
        return (l2_normalize(self.parameter) if self.l2_normalize else self.parameter)[None]

    def embed(self, ids: jax.Array) -> jax.Array:
        """Return the codes' vectors [B,h,w,c] of ids [B,h,w,1]."""
        return self.codebook()[0][ids[..., 0]]

    def scores(self, z: jax.Array) -> jax.Array:
        """Return the logits of the choice, without noise, [B,h,w,V] float32, of z [B,h,w,c]."""
        z = z.astype(jnp.float32)
        if self.logits == "dense":
            return self.dense(z)
        z = l2_normalize(z) if self.l2_normalize else z
        return -squared_distances(z.reshape(-1, z.shape[-1]), self.codebook()[0]).reshape(
            *z.shape[:-1], self.codes
        )

    def chosen(self, logits: jax.Array, noisy: jax.Array, train: bool) -> jax.Array:
        """Return ids [B,h,w] int32 by logits [B,h,w,V], which are `noisy` with noise added."""
        return jnp.argmax(noisy, axis=-1).astype(jnp.int32)

    def __call__(
        self, z: jax.Array, train: bool = False, noise: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`.

        noise: [B,h,w,V], instead of what is drawn in training. The probabilities at `temperature`
          are sown in the collection "intermediates" as `probabilities`.
        """
        logits = self.scores(z)
        soft, temperature = jax.nn.softmax(logits), jnp.asarray(self.temperature, jnp.float32)
        kl = jnp.mean(jnp.sum(soft * jnp.log(soft * self.codes + 1e-10), axis=-1))  # 1e-10: VQGAN
        if train:
            if self.anneal:
                temperature = self._annealed()
            if noise is None:
                noise = jax.random.gumbel(self.make_rng("codebook"), logits.shape)
        noisy = logits if noise is None else logits + noise
        ids = self.chosen(logits, noisy, train)[..., None]
        z_q = self.embed(ids)
        if train:
            soft = jax.nn.softmax(noisy / temperature)
            self.sow("intermediates", "probabilities", soft)
            if self.hard:  # adding zero, with the gradient of the soft choice
                mixture = soft @ jax.lax.stop_gradient(self.codebook()[0])
                z_q = z_q + (mixture - jax.lax.stop_gradient(mixture))
            else:
                z_q = jnp.matmul(soft, self.codebook()[0], precision="highest")
        counts = jnp.sum(jax.nn.one_hot(ids.reshape(-1), self.codes), axis=0)
        usage, perplexity = codebook_statistics(counts[None])
        aux = {
            "quantizer_loss": self.kl_weight * kl,
            "kl": kl,
            "temperature": temperature,
            "usage": usage,
            "perplexity": perplexity,
        }
        return z_q, ids, aux

    def _annealed(self) -> jax.Array:
        """Return the temperature of this step, and count it."""
        done = jnp.minimum(self.steps.value / self.anneal, 1.0)
        if self.annealing == "geometric":
            temperature = self.temperature * (self.final_temperature / self.temperature) ** done
        else:
            span = self.temperature - self.final_temperature
            temperature = self.final_temperature + span * (1 + jnp.cos(jnp.pi * done)) / 2
        if self.is_mutable_collection("codebook") and not self.is_initializing():
            self.steps.value = self.steps.value + 1
        return temperature
