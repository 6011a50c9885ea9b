"""The network of Efficient-VQGAN's second stage: multi-grained attention (paper, Sec. 3.2).

One sequence for each target block:   class | globals | ring | target

Its three grains: globals (G_T of Eq. 2) are one token for each block of the image, a convolution
with kernel = stride = window over the block's code embeddings (`Model._globals`); the ring is the
local tokens of the extended window around the target block, and the target those of the block
itself (both are L_T; `Model._local`). Only target tokens are predicted. What a global token may say
of a block that is not generated yet is a choice: `Model.global_tokens`.

K: target blocks of an image; G: class and globals, R: ring, T = window^2: target, in tokens.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, PartialShare, Positive
from evqgan.generators import check_heads
from evqgan.generators.blocks import NOWHERE, Layout, blocks_of, ring_and_target
from evqgan.generators.guidance import check_class_dropout
from evqgan.nn.linear import Dense, products_in
from evqgan.nn.segments import SegmentTransformer

GLOBAL, RING, TARGET = range(3)  # rows of the type embedding
AttentionMask = Literal["joint", "prefix"]
OwnGlobal = Literal["masked", "dropped", "partial"]
GlobalTokens = Literal["ordered", "masked"]
GLOBAL_TOKENS = get_args(GlobalTokens)


class Model(nn.Module):
    """Logits of the codes of target blocks.

    Defaults: 24 x 768 x 16 as in MaskGIT, codes of 256 as VQGAN's: 184.9 M parameters with 1000
    classes at 16 x 16 (the paper: 185 M; it gives no widths).
    """

    codes: Positive  # V
    latent: tuple[Positive, Positive]  # (h, w), the token grid
    window: Positive = 8  # W_s, the side of a block in tokens
    extend: int = 4  # E_s, the width of the ring around the target, in tokens
    classes: int = 0  # 0 for unconditional models
    # "joint": everything attends to everything (the paper's text). "prefix": segments attend only
    # to themselves and those to their left, so that the context does not depend on the tokens being
    # predicted. Differs from the paper: "prefix" is the default, as its context can be cached.
    attention: AttentionMask = "prefix"
    # "ordered": a global token holds its whole block, and only what is generated after that block
    # sees it: globals of the same step or later ones, rings and targets of later steps. So one set
    # of globals serves all targets of an image, each in the state that sampling meets, and sampling
    # computes a block's global token once, when the block is complete. "masked": the paper's (Sec.
    # 3.3); all globals see each other, and those of unknown blocks hold [MASK].
    # Differs from the paper: the configs take "ordered" (docs/design.md, "Where it differs ...").
    global_tokens: GlobalTokens = "masked"
    # What stands for the target's own block among the globals; the paper does not say. "masked":
    # the global token of [MASK]. "dropped" (of masked globals alone): nobody attends to it.
    # "partial": in front of the target stands a global token of its partly masked tokens, too.
    own: OwnGlobal = "masked"
    # The share of training images without their class, which guidance in sampling needs.
    class_dropout: PartialShare = 0.0
    layers: Positive = 24
    width: Positive = 768
    heads: Positive = 16
    mlp_ratio: Above0 = 4.0
    code_width: Positive = 256
    dropout: PartialShare = 0.1  # MaskGIT
    # None: as `dropout`, which is MaskGIT's way. With 0 a fused kernel can be used, where a device
    # has one.
    attention_dropout: PartialShare | None = None
    # Of local tokens. "grid": a vector for each position. "axes": the sum of one for its row and
    # one for its column, so that parameters do not grow with the grid (ours, for 128 x 128 tokens).
    positions: Literal["grid", "axes"] = "grid"
    remat: bool = False  # keep only the layers' inputs for the backward pass
    # How many targets of an image go through a layer at a time: less memory, same numbers; 0 = all.
    chunk: int = 0
    # How many layers the compiler sees in a turn of training's loop over them; 0 = all, no loop, in
    # sampling, too. It compiles longer, but what layers keep for the backward pass need not be
    # stacked then, nor the parameters of a layer be copied each time that sampling applies it.
    unroll: int = 1
    # Of all products and of the residual stream; sums of biases, logits and tables' gradients are
    # in float32. A stream in float32 is no better: after 300 equal steps on the digits (8 layers of
    # 128, one seed) held-out cross-entropy is 2.598 nats with all in bfloat16, 2.604 with the
    # stream in float32, 2.612 with all in float32.
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        (h, w), window, extend = self.latent, self.window, self.extend
        grid = f"the {h} x {w} token grid"
        check_heads(self.width, self.heads)
        if h % window or w % window:
            fits = ", ".join(str(k) for k in range(1, h + 1) if h % k == w % k == 0)
            raise InputError(f"generator.window = {window} does not divide {grid}: {fits} do")
        if extend > max(h, w):
            raise InputError(f"generator.extend = {extend} reaches beyond {grid} from anywhere")
        if self.own == "dropped" and self.global_tokens == "ordered":
            raise InputError('generator.own = "dropped" is of global_tokens = "masked" alone')
        check_class_dropout(self.class_dropout, self.classes)

    @property
    def layout(self) -> Layout:
        """How the grid is cut into blocks."""
        return Layout(*self.latent, self.window, self.extend)

    @property
    def blocks(self) -> int:
        """The number of blocks of the grid."""
        return self.layout.blocks

    def setup(self) -> None:
        normal = nn.initializers.truncated_normal(0.02)  # MaskGIT
        dtype = jnp.dtype(self.dtype)

        def dense(width: int) -> Dense:
            return Dense(width, dtype=dtype, kernel_init=normal)

        # Tables are float32 and cast after rows are taken, or their gradients would be summed up in
        # bfloat16.
        self.codes_and_mask = nn.Embed(self.codes + 1, self.code_width, embedding_init=normal)
        self.global_convolution, self.code_projection = dense(self.width), dense(self.width)
        if self.classes:  # and a row for "no class"
            self.label = nn.Embed(self.classes + 1, self.width, embedding_init=normal)
        h, w = self.latent
        if self.positions == "axes":
            rows = self.param("position_rows", normal, (h, self.width))
            columns = self.param("position_columns", normal, (w, self.width))
            self.position = (rows[:, None] + columns[None]).reshape(h * w, self.width)
        else:
            self.position = self.param("position", normal, (h * w, self.width))
        self.position_global = self.param("position_global", normal, (self.blocks, self.width))
        self.kind = self.param("kind", normal, (3, self.width))
        self.transformer = SegmentTransformer(
            self.layers,
            self.heads,
            self.mlp_ratio,
            self.dropout,
            dtype,
            remat=self.remat,
            chunk=self.chunk,
            attention_dropout=self.attention_dropout,
            unroll=self.unroll,
        )
        self.norm = nn.LayerNorm(dtype=dtype)
        self.logits = nn.Dense(self.codes, kernel_init=normal, dot_general=products_in(dtype))

    def __call__(
        self,
        grid: jax.Array,
        ring: jax.Array,
        target: jax.Array,
        block: jax.Array,
        rank: jax.Array | None = None,
        label: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return logits [B,K,T,V] float32 for K target blocks of every image.

        grid: int32 [B,1 or K,h,w], what the global tokens summarize, for all targets or for each.
        ring: int32 [B,K,R], target: int32 [B,K,T], the local tokens; [MASK] = V.
        block: int32 [B,K], which blocks the targets are, as numbered in raster order.
        rank: int32 [B,blocks], needed by "ordered" globals: 0 for a block that is given, else the
          step that generates it, from 1.
        label: int32 [B] if classes > 0; `classes` = none.
        """
        segments, masks = self._context(grid, ring, block, rank, label)
        segments = [*segments, self._target(target, block)]
        masks = [*masks, (None, None)]
        if self.attention == "joint":
            segments, masks = self._joined(segments, masks)
        segments, _ = self.transformer(segments, masks, deterministic=deterministic)
        return self._predict(segments[-1], target.shape[-1])

    def context(
        self,
        grid: jax.Array,
        ring: jax.Array,
        block: jax.Array,
        rank: jax.Array | None = None,
        label: jax.Array | None = None,
        globals_kv: jax.Array | None = None,
    ) -> list[tuple]:
        """Return the KV cache of class, globals and ring, with its masks, for `continued`.

        With "prefix" attention it does not depend on the target: sampling computes it once a block.

        globals_kv: the part of class and globals, if it is known already (`begin`, `complete`).
        """
        segments, masks = self._context(grid, ring, block, rank, label)
        if globals_kv is None:
            _, cache = self.transformer(segments, masks, keep=True)
        else:
            prefix = [globals_kv], [masks[0][0]]
            _, (ring_kv,) = self.transformer(segments[1:], masks[1:], *prefix, keep=True)
            cache = [globals_kv, ring_kv]
        return [(kv, right) for kv, (right, _) in zip(cache, masks, strict=True)]

    def continued(self, context: list[tuple], target: jax.Array, block: jax.Array) -> jax.Array:
        """Return the logits of `__call__`, given the `context` of these blocks."""
        prefix, prefix_masks = zip(*context, strict=True)
        segments = [self._target(target, block)]
        segments, _ = self.transformer(segments, [(None, None)], prefix, prefix_masks)
        return self._predict(segments[-1], target.shape[-1])

    def begin(self, grid: jax.Array, rank: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """Return the KV cache of class and "ordered" globals before anything is generated.

        [layers,B,1,G,2,heads,d]. Only blocks of rank 0 are valid in it; `complete` adds the others.

        grid: int32 [B,h,w]; rank: int32 [B,blocks].
        """
        x = self._globals(grid[:, None], label)
        _, (kv,) = self.transformer([x], [(None, at_most(self._ranks(rank)))], keep=True)
        return kv

    def complete(
        self,
        kv: jax.Array,
        grid: jax.Array,
        blocks: jax.Array,
        rank: jax.Array,
    ) -> jax.Array:
        """Return the cache `kv` of `begin` after a step that generated `blocks`, now in `grid`.

        A global token sees those of earlier steps and of its own. Blocks of rank 0 stay unchanged.

        grid: int32 [B,h,w]; blocks: int32 [K], NOWHERE where the step has fewer.
        """
        is_block = blocks != NOWHERE
        at = jnp.where(is_block, blocks, 0)
        x = self._summary(blocks_of(grid, self.window)[:, None, at])
        table = self.position_global[at] + self.kind[GLOBAL][None]
        x = self._add_table(x, table[None, None])
        new_rank, ranks = rank[:, at], self._ranks(rank)  # [B,K], [B,G]
        is_before = (ranks[:, None] < new_rank[..., None])[:, None, None]  # [B,1,1,K,G]
        is_same_step = (new_rank[:, None] == new_rank[..., None]) & is_block[None, None]
        masks = [(None, is_same_step[:, None, None])]
        _, (new,) = self.transformer([x], masks, [kv], [is_before], keep=True)
        position = at + ranks.shape[1] - self.blocks
        is_made = (new_rank > 0)[None, :, None, :, None, None, None]
        new = jnp.where(is_made, new, kv[:, :, :, position])
        position = jnp.where(is_block, position, ranks.shape[1])
        return kv.at[:, :, :, position].set(new, mode="drop")

    def _context(
        self,
        grid: jax.Array,
        ring: jax.Array,
        block: jax.Array,
        rank: jax.Array | None,
        label: jax.Array | None,
    ) -> tuple[list, list]:
        """Return the segments class and globals [B,1 or K,G,c], and ring [B,K,R,c]; their masks.

        For masks see `SegmentTransformer`.
        """
        index = jnp.asarray(ring_and_target(*self.layout)[0])[block]  # [B,K,R]
        is_inside = (index != NOWHERE)[:, :, None, None]
        if self.global_tokens == "ordered":
            if rank is None:
                raise ValueError("ordered global tokens need the ranks of their blocks")
            x, ranks = self._globals(grid, label), self._ranks(rank)
            target_rank = jnp.take_along_axis(rank, block, axis=-1)
            is_seen = ranks[:, None] < target_rank[..., None]  # [B,K,G]
            masks: tuple[jax.Array | None, ...] = is_seen[:, :, None, None], at_most(ranks)
        else:
            is_own = jax.nn.one_hot(block, self.blocks, dtype=bool)  # [B,K,blocks]
            of_each = grid.shape[1] == is_own.shape[1]
            hidden = is_own if of_each else jnp.any(is_own, axis=1, keepdims=True)
            x = self._globals(grid, label, hidden)
            beside_class = ((0, 0), (0, 0), (bool(self.classes), 0))
            is_seen = jnp.pad(~is_own, beside_class, constant_values=True)
            masks = is_seen[:, :, None, None] if self.own == "dropped" else None, None
        return [x, self._local(ring, index, RING)], [masks, (is_inside, is_inside)]

    def _globals(
        self,
        grid: jax.Array,
        label: jax.Array | None,
        hidden: jax.Array | None = None,
    ) -> jax.Array:
        """Embed class and globals of grid [B,K,h,w] -> [B,K,G,c].

        hidden: bool [B,K,blocks], True where a global token summarizes [MASK] alone.
        """
        blocks = jax.vmap(lambda x: blocks_of(x, self.window), in_axes=1, out_axes=1)(grid)
        blocks = blocks if hidden is None else jnp.where(hidden[..., None], self.codes, blocks)
        table = self.position_global + self.kind[GLOBAL][None]
        x = self._add_table(self._summary(blocks), table[None, None])
        if self.classes:
            if label is None:
                raise ValueError("a class-conditional model needs labels")
            label = self.label(label).astype(x.dtype)[:, None, None]
            label = jnp.broadcast_to(label, (*x.shape[:2], 1, x.shape[-1]))
            x = jnp.concatenate([label, x], axis=2)
        return x

    def _ranks(self, rank: jax.Array) -> jax.Array:
        """Put the rank of the class, -1, before those of blocks: [B,blocks] -> [B,G]."""
        return jnp.pad(rank, ((0, 0), (bool(self.classes), 0)), constant_values=-1)

    def _target(self, target: jax.Array, block: jax.Array) -> jax.Array:
        """Embed target tokens [B,K,T] -> [B,K,T,c].

        With own = "partial" their global token is put in front: [B,K,1+T,c].
        """
        index = jnp.asarray(ring_and_target(*self.layout)[1])[block]
        x = self._local(target, index, TARGET)
        if self.own != "partial":
            return x
        table = self.position_global[block] + self.kind[TARGET][None, None]
        own_global = self._add_table(self._summary(target), table)
        return jnp.concatenate([own_global[:, :, None], x], axis=2)

    def _embed(self, tokens: jax.Array) -> jax.Array:
        """Return the codes' embeddings [...,code_width] of tokens [...]."""
        return self.codes_and_mask(tokens).astype(self.dtype)

    def _summary(self, blocks: jax.Array) -> jax.Array:
        """Return one vector [...,c] for the tokens of each of blocks [...,T]."""
        x = self._embed(blocks)
        return self.global_convolution(x.reshape(*x.shape[:-2], -1))

    def _local(self, tokens: jax.Array, index: jax.Array, kind: int) -> jax.Array:
        """Embed tokens [B,K,S] at positions `index` in the whole grid -> [B,K,S,c]."""
        x = self.code_projection(self._embed(tokens))
        return self._add_table(x, self.position[index] + self.kind[kind][None, None, None])

    def _add_table(self, x: jax.Array, table: jax.Array) -> jax.Array:
        """Return x + table, added in float32, so that the table's gradient is summed in float32."""
        return (x + table).astype(self.dtype)

    def _joined(self, segments: list, masks: list) -> tuple[list, list]:
        """Join the segments to one for each target, which sees all of itself."""
        batch, number = segments[-1].shape[:2]
        shapes = [(batch, number, *x.shape[2:]) for x in segments]
        parts = [jnp.broadcast_to(x, s) for x, s in zip(segments, shapes, strict=True)]
        every = [jnp.ones((batch, number, 1, 1, s[2]), bool) for s in shapes]
        mask = [x if m is None else m for x, (m, _) in zip(every, masks, strict=True)]
        return [jnp.concatenate(parts, axis=2)], [(None, jnp.concatenate(mask, axis=-1))]

    def _predict(self, x: jax.Array, tokens: int) -> jax.Array:
        return self.logits(self.norm(x[:, :, -tokens:]))


def at_most(ranks: jax.Array) -> jax.Array:
    """Return which globals each one sees, those of its rank and below: [B,G] -> [B,1,1,G,G]."""
    return (ranks[:, None] <= ranks[..., None])[:, None, None]
