"""How well a tokenizer reconstructs held-out images, and how much of its codebook it uses."""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import pictures
from evqgan.tokenizers.quantizers import codebook_statistics


@jax.jit
def distances(a, b):
    """uint8 [B,H,W,3] twice -> mse [B] (in [-1,1]^2), psnr [B] (dB), ssim [B] (Gaussian window 11, sigma 1.5)."""
    a, b = a.astype(jnp.float32) / 255, b.astype(jnp.float32) / 255
    mse = jnp.mean(jnp.square(a - b), axis=(1, 2, 3))
    psnr = -10 * jnp.log10(jnp.maximum(mse, 1e-10))  # 100 dB at most: of identical images
    return 4 * mse, psnr, dm_pix.ssim(a, b)


class Evaluator:
    """mse, psnr, ssim: means over the validation images; usage, perplexity: of the codebook over all of them.

    Reconstructions are rounded to 8 bits first, as they would be in a file. Also a picture: input | reconstruction |
    four times the error, for the first `show` images.
    """

    def __init__(self, predict, batches, config, sample=None, show=8):
        self.predict, self.batches, self.show = predict, batches, show
        self.codes = config.tokenizer.quantizer.codes

    def run(self, state):
        """Yields (name, value) for this state; depends on nothing else."""
        rows, shown, counts = [], [], 0
        for i, batch in enumerate(self.batches()):
            out = self.predict(state, batch, jax.random.fold_in(jax.random.key(0), i))
            valid = np.asarray(out["valid"])
            pair = out["image"], out["reconstruction"]
            rows.append(np.stack([np.asarray(x) for x in distances(*pair)], axis=-1)[valid])
            ids = np.asarray(out["ids"])[valid]
            counts = counts + np.stack(
                [np.bincount(x.reshape(-1), minlength=self.codes) for x in np.moveaxis(ids, -1, 0)]
            )
            if len(shown) < self.show:
                images = [np.asarray(x)[valid][: self.show - len(shown)] for x in pair]
                shown += [pictures.column([a, b, pictures.error_map(a, b)]) for a, b in zip(*images, strict=True)]
        for name, value in zip(("mse", "psnr", "ssim"), np.concatenate(rows).mean(axis=0), strict=True):
            yield name, float(value)
        usage, perplexity = codebook_statistics(counts)
        yield "codebook_usage", float(usage)
        yield "codebook_perplexity", float(perplexity)
        yield "reconstructions", pictures.row(shown)
