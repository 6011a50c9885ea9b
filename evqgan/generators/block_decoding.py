"""Block-by-block decoding: autoregressive over blocks, mask-predict inside each (paper, Sec. 3.3).

A grid of one block is MaskGIT's decoding, blocks of one token are autoregression (paper, Sec. 4.4).
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from evqgan.generators import Decoded, KeepHistory, kept
from evqgan.generators.blocks import NOWHERE, Layout, Order, blocks_of, decoding_order, grid_of
from evqgan.generators.mask_predict import MaskPredict, ToLogits, mask_predict


class BlockModel(Protocol):
    """A model as `block_by_block` calls it, for one batch.

    `begin` makes the carry: what is kept from step to step, a tree of arrays such as a KV cache.
    Each step calls `context`, then `complete`. A grid is int32 [B,h,w], unknown tokens = codes.
    """

    codes: int  # V
    layout: Layout

    def begin(self) -> Any:
        """Return the carry before the first step."""

    def context(self, carry: Any, grid: jax.Array, blocks: jax.Array, /) -> ToLogits:
        """Return the logits function of the tokens [B*K,window*window] of a step's blocks.

        grid: before the step. blocks: int32 [K], traced.
        """

    def complete(self, carry: Any, grid: jax.Array, blocks: jax.Array, /) -> Any:
        """Return the carry after a step.

        grid: with the step's blocks in it. blocks: int32 [K], NOWHERE where a step has fewer.
        """


def block_by_block(
    model: BlockModel,
    ids: jax.Array,
    mask: jax.Array,
    keys: jax.Array,
    settings: MaskPredict,
    order: Order = "raster",
    keep_history: KeepHistory = False,
) -> Decoded:
    """Generate the tokens of a grid where the mask is True, block by block.

    Steps in which nothing is to be generated are skipped. One compilation serves all of them.

    ids: int32 [B,h,w]; mask: bool [B,h,w]; keys: a random key [B] for each image.
    settings: of the steps within a block.
    order: of the blocks, see `blocks.step_of_block`.
    keep_history: also return the grids after each step [steps,B,h,w], see `KeepHistory`.
    """
    codes, (h, w, window, _) = model.codes, model.layout
    if h % window or w % window:
        sides = f"{window} x {window}"
        raise ValueError(f"a grid of {h} x {w} tokens cannot be cut into blocks of {sides}")
    batch = ids.shape[0]  # which is symbolic where a program is exported: it has no len
    start = blocks_of(jnp.where(mask, codes, ids), window)
    number = start.shape[1]

    def fill(now: jax.Array, blocks: jax.Array, carry: Any) -> tuple:
        is_block = now != NOWHERE
        at = jnp.where(is_block, now, now[0])  # what fills a narrow step up is computed and dropped
        tokens_to_logits = model.context(carry, grid_of(blocks, h, w, window), at)
        block_keys = jax.vmap(lambda key: jax.vmap(lambda n: jax.random.fold_in(key, n))(at))(keys)
        tokens = blocks[:, at].reshape(batch * len(at), -1)
        given = tokens_to_logits, tokens, block_keys.reshape(-1), settings
        made = mask_predict(*given, codes=codes, grid=(window, window))
        tokens = made.tokens.reshape(batch, len(at), -1)
        blocks = blocks.at[:, jnp.where(is_block, now, number)].set(tokens, mode="drop")
        return blocks, model.complete(carry, grid_of(blocks, h, w, window), now)

    def step(loop: tuple, now: jax.Array) -> tuple[tuple, jax.Array | None]:
        blocks, _ = loop
        is_now = jnp.any(now[None, :] == jnp.arange(number)[:, None], axis=1)
        is_due = jnp.any(is_now[None, :, None] & (blocks == codes))
        loop = jax.lax.cond(is_due, fill, lambda _, *loop: loop, now, *loop)
        return loop, kept(grid_of(loop[0], h, w, window), keep_history)

    steps = jnp.asarray(decoding_order(*model.layout, order))
    (blocks, _), history = jax.lax.scan(step, (start, model.begin()), steps)
    return Decoded(grid_of(blocks, h, w, window), history)
