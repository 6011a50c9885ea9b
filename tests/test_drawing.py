"""Which codes may be drawn from logits; `test_mask_predict` tests how often each is."""

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.generators.sampling import restrict


def test_top_k_and_top_p_keep_the_likeliest():
    logits = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.06, 0.04], [0.05, 0.05, 0.1, 0.7, 0.1]]))
    run = jax.jit(restrict, static_argnames=("top_k", "top_p"))

    def kept(**keywords):
        return np.isfinite(run(logits, **keywords)).astype(int).tolist()

    assert kept() == [[1] * 5] * 2
    assert kept(top_k=2) == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]  # a tie stays
    assert kept(top_p=0.65) == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 0]]
    assert kept(top_p=0.01) == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    # of the two that top_k leaves, the first has 4/7 of the probability
    assert kept(top_k=2, top_p=0.5)[0] == [1, 0, 0, 0, 0]
    np.testing.assert_array_equal(run(logits, top_k=99), logits)
