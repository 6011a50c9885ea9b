"""The network of Efficient-VQGAN's second stage: a transformer with multi-grained attention (paper, Sec. 3.2).

One sequence a target block:   class | globals (one a block) | ring (the extension) | target (window x window)

Only target tokens are predicted. A global token is a convolution with kernel = stride = window over the code
embeddings of a block. What it may say of a block that is not made yet is the question; see `Model.global_tokens`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, PartialShare, Positive
from evqgan.generators.blocks import NOWHERE, blocks_of, layout
from evqgan.nn.groups import Groups
from evqgan.nn.linear import Dense

GLOBAL, RING, TARGET = range(3)  # rows of the type embedding
OWN = ("masked", "dropped", "partial")
GLOBAL_TOKENS = ("ordered", "masked")


class Model(nn.Module):
    """Logits of the codes of target blocks.

    codes: V; latent: (h, w), the token grid; window: W_s; extend: E_s; classes: 0 for unconditional models.
    attention: "joint" = everything attends to everything (the paper's text); "prefix" = groups attend only to
    themselves and the groups to their left, so that the context does not depend on the tokens being predicted.
    Differs from the paper: "prefix" is the default, because its context can be cached (README).
    global_tokens: "ordered" = a global token holds its whole block, and is seen by what is generated after it alone: by
    the globals from its turn on, and by rings and targets of later turns. So one set of them serves all targets of an
    image, each in the state that sampling meets, and in sampling a block's is computed once, when it is complete.
    "masked" = the paper's (Sec. 3.3): all see each other, those of blocks that are not known hold [MASK] instead.
    Differs from the paper: the configs take "ordered" (README).
    own: a target's own global token, with "masked" ones, is that of a "masked" block; or "dropped": not attended to.
    "partial": beside the target stands a global token of its tokens as they are. The paper does not say.
    class_dropout: the share of training images without their class, which guidance in sampling needs.
    layers, width, heads: 24 x 768 x 16 as in MaskGIT; code_width 256 as VQGAN's codes: 184.9 M parameters with 1000
    classes at 16 x 16 (the paper: 185 M; it gives no widths). dropout: MaskGIT's 0.1.
    positions: of local tokens; "grid" = a vector for each place; "axes" = the sum of one for its row and one
    for its column, so that the parameters do not grow with the grid (ours, for 128 x 128 tokens).
    remat: keep only the layers' inputs for the backward pass. chunk: so many targets of an image at a time go through
    a layer, 0 = all: less memory for many targets, the same numbers.
    dtype: of all products and of the residual stream; sums of biases, logits and tables' gradients are in float32. A
    stream in float32 is no better: after 300 equal steps on the digits (8 layers of 128, one seed) held-out
    cross-entropy is 2.598 nats with all in bfloat16, 2.604 with the stream in float32, 2.612 with all in float32.
    """

    codes: Positive
    latent: tuple[Positive, Positive]
    window: Positive = 8
    extend: int = 4
    classes: int = 0
    attention: str = "prefix"
    global_tokens: str = "masked"
    own: str = "masked"
    class_dropout: PartialShare = 0.0
    layers: Positive = 24
    width: Positive = 768
    heads: Positive = 16
    mlp_ratio: Above0 = 4.0
    code_width: Positive = 256
    dropout: PartialShare = 0.1
    positions: str = "grid"
    remat: bool = False
    chunk: int = 0
    dtype: str = "float32"

    def __post_init__(self):
        super().__post_init__()
        h, w = self.latent
        if h % self.window or w % self.window:
            raise InputError(f"generator.window = {self.window} does not divide the {h} x {w} token grid")
        if self.extend > max(h, w):
            raise InputError(f"generator.extend = {self.extend} reaches beyond the {h} x {w} token grid from anywhere")
        if self.attention not in ("joint", "prefix"):
            raise InputError(f"generator.attention is 'joint' or 'prefix', not {self.attention!r}")
        if self.global_tokens not in GLOBAL_TOKENS:
            raise InputError(f"generator.global_tokens is 'ordered' or 'masked', not {self.global_tokens!r}")
        if self.own not in OWN:
            raise InputError(f"generator.own is one of {', '.join(OWN)}, not {self.own!r}")
        if self.own == "dropped" and self.global_tokens == "ordered":
            raise InputError('generator.own = "dropped" is of generator.global_tokens = "masked" alone')
        if self.positions not in ("grid", "axes"):
            raise InputError(f"generator.positions is 'grid' or 'axes', not {self.positions!r}")
        if not 0 <= self.class_dropout < 1 or (self.class_dropout and not self.classes):
            raise InputError(
                f"generator.class_dropout is a share in [0, 1), and 0 without classes, not {self.class_dropout}"
            )

    @property
    def blocks(self):
        """The number of blocks of the grid."""
        return self.latent[0] * self.latent[1] // self.window**2

    def setup(self):
        normal = nn.initializers.truncated_normal(0.02)  # MaskGIT
        dtype = jnp.dtype(self.dtype)

        def dense(width):
            return Dense(width, dtype=dtype, kernel_init=normal)

        # Tables are float32 and cast after rows are taken, or their gradients would be summed up in bfloat16.
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
        self.transformer = Groups(
            self.layers, self.heads, self.mlp_ratio, self.dropout, dtype, remat=self.remat, chunk=self.chunk
        )
        self.norm = nn.LayerNorm(dtype=dtype)
        self.logits = nn.Dense(self.codes, kernel_init=normal, dot_general=products_in(dtype))

    def __call__(self, grid, ring, target, block, rank=None, label=None, deterministic=True):
        """-> logits [B,K,T,V] float32 for K target blocks of every image.

        grid [B,1 or K,h,w] int32: what the global tokens summarize, for all targets or for each; ring [B,K,R], target
        [B,K,T] int32: the local tokens; MASK = V. block [B,K] int32: the targets' numbers. rank [B,blocks] int32, of
        "ordered" globals: 0 of blocks that were given, else the turn in which they are made, from 1. label [B] int32
        when `classes` > 0; `classes` = none.
        """
        groups, masks = self._context(grid, ring, block, rank, label)
        groups, masks = [*groups, self._target(target, block)], [*masks, (None, None)]
        if self.attention == "joint":
            groups, masks = self._joined(groups, masks)
        groups, _ = self.transformer(groups, masks, deterministic=deterministic)
        return self._predict(groups[-1], target.shape[-1])

    def context(self, grid, ring, block, rank=None, label=None, before=None):
        """The keys and values of everything but the targets, for `continued`: what "prefix" computes once a block.

        before: those of class and globals, if they are there already (`begin`, `complete`).
        """
        groups, masks = self._context(grid, ring, block, rank, label)
        if before is None:
            _, pairs = self.transformer(groups, masks, keep=True)
        else:
            _, (of_ring,) = self.transformer(groups[1:], masks[1:], [before], [masks[0][0]], keep=True)
            pairs = before, of_ring
        return [(pair, right) for pair, (right, _) in zip(pairs, masks, strict=True)]

    def continued(self, context, target, block):
        """`__call__` given the `context` of these blocks: the same logits."""
        before, masks = zip(*context, strict=True)
        groups, _ = self.transformer([self._target(target, block)], [(None, None)], before, masks)
        return self._predict(groups[-1], target.shape[-1])

    def begin(self, grid, rank, label=None):
        """The keys and values of class and "ordered" globals [layers,B,1,G,2,heads,d] before anything is generated.

        grid [B,h,w] int32, rank [B,blocks]. They hold for blocks of rank 0; those of the others `complete` puts there.
        """
        x, ranks = self._globals(grid[:, None], rank, label)
        _, (pair,) = self.transformer([x], [(None, at_most(ranks))], keep=True)
        return pair

    def complete(self, pair, grid, front, rank):
        """`pair`, of `begin`, after the turn of the blocks `front` [K] int32 (NOWHERE: none), which `grid` now holds.

        grid [B,h,w] int32. A global sees those before it and those of its own turn. Blocks of rank 0 stay as they are.
        """
        real = front != NOWHERE
        at = jnp.where(real, front, 0)
        x = self._summary(blocks_of(grid, self.window)[:, None, at])
        x = self._widened(x, (self.position_global[at] + self.kind[GLOBAL][None])[None, None])
        own, ranks = rank[:, at], self._ranks(rank)  # [B,K], [B,G]
        before = (ranks[:, None] < own[..., None])[:, None, None]  # [B,1,1,K,G]
        itself = ((own[:, None] == own[..., None]) & real[None, None])[:, None, None]
        _, (new,) = self.transformer([x], [(None, itself)], [pair], [before], keep=True)
        place = at + ranks.shape[1] - self.blocks
        made = (own > 0)[None, :, None, :, None, None, None]
        new = jnp.where(made, new, pair[:, :, :, place])
        return pair.at[:, :, :, jnp.where(real, place, ranks.shape[1])].set(new, mode="drop")

    def _context(self, grid, ring, block, rank, label):
        """Class and globals [B,1 or K,G,c] and ring [B,K,R,c] embedded, and their masks, see `Groups`."""
        index = jnp.asarray(layout(*self.latent, self.window, self.extend)[0])[block]  # [B,K,R]
        inside = (index != NOWHERE)[:, :, None, None]
        if self.global_tokens == "ordered":
            x, ranks = self._globals(grid, rank, label)
            seen = ranks[:, None] < jnp.take_along_axis(rank, block, axis=-1)[..., None]  # [B,K,G]
            masks = seen[:, :, None, None], at_most(ranks)
        else:
            own = jax.nn.one_hot(block, self.blocks, dtype=bool)  # [B,K,blocks]
            hidden = own if grid.shape[1] == own.shape[1] else jnp.any(own, axis=1, keepdims=True)
            x, _ = self._globals(grid, None, label, hidden)
            seen = jnp.pad(~own, ((0, 0), (0, 0), (bool(self.classes), 0)), constant_values=True)
            masks = seen[:, :, None, None] if self.own == "dropped" else None, None
        return [x, self._place(ring, index, RING)], [masks, (inside, inside)]

    def _globals(self, grid, rank, label, hidden=None):
        """Class and globals of grid [B,K,h,w] embedded -> [B,K,G,c], and their ranks [B,G], of which the class has -1.

        hidden: bool [B,K,blocks], whose globals are of [MASK] alone.
        """
        blocks = jax.vmap(lambda x: blocks_of(x, self.window), in_axes=1, out_axes=1)(grid)
        blocks = blocks if hidden is None else jnp.where(hidden[..., None], self.codes, blocks)
        x = self._widened(self._summary(blocks), (self.position_global + self.kind[GLOBAL][None])[None, None])
        if self.classes:
            if label is None:
                raise ValueError("a class-conditional model needs labels")
            label = self.label(label).astype(x.dtype)[:, None, None]
            x = jnp.concatenate([jnp.broadcast_to(label, (*x.shape[:2], 1, x.shape[-1])), x], axis=2)
        return x, None if rank is None else self._ranks(rank)

    def _ranks(self, rank):
        """rank [B,blocks] -> [B,G], with that of the class in front."""
        return jnp.pad(rank, ((0, 0), (bool(self.classes), 0)), constant_values=-1)

    def _target(self, target, block):
        """Target tokens [B,K,T] embedded -> [B,K,T,c]; with own = "partial" one more in front, their global token."""
        index = jnp.asarray(layout(*self.latent, self.window, self.extend)[1])[block]
        x = self._place(target, index, TARGET)
        if self.own != "partial":
            return x
        own = self._widened(self._summary(target), self.position_global[block] + self.kind[TARGET][None, None])
        return jnp.concatenate([own[:, :, None], x], axis=2)

    def _embedded(self, tokens):
        """Tokens [...] -> their codes' embeddings [...,code_width]."""
        return self.codes_and_mask(tokens).astype(self.dtype)

    def _summary(self, blocks):
        """The tokens of blocks [...,T] -> one vector each [...,c]."""
        x = self._embedded(blocks)
        return self.global_convolution(x.reshape(*x.shape[:-2], -1))

    def _place(self, tokens, index, kind):
        """Tokens [B,K,S] at their places in the whole grid -> [B,K,S,c]."""
        x = self.code_projection(self._embedded(tokens))
        return self._widened(x, self.position[index] + self.kind[kind][None, None, None])

    def _widened(self, x, table):
        """x + table, added in float32, so that the table's gradient is summed up in float32."""
        return (x + table).astype(self.dtype)

    def _joined(self, groups, masks):
        """Groups as one that sees all of itself, for each target its own."""
        batch, number = groups[-1].shape[:2]
        shapes = [(batch, number, *x.shape[2:]) for x in groups]
        whole = jnp.concatenate([jnp.broadcast_to(x, s) for x, s in zip(groups, shapes, strict=True)], axis=2)
        every = [jnp.ones((batch, number, 1, 1, s[2]), bool) for s in shapes]
        mask = jnp.concatenate([x if m is None else m for x, (m, _) in zip(every, masks, strict=True)], axis=-1)
        return [whole], [(None, mask)]

    def _predict(self, x, tokens):
        return self.logits(self.norm(x[:, :, -tokens:]))


def at_most(ranks):
    """ranks [B,G] -> which globals each one sees, bool [B,1,1,G,G]: those of its rank and below."""
    return (ranks[:, None] <= ranks[..., None])[:, None, None]


def products_in(dtype):
    """A dot_general of float32 arrays whose products are of `dtype` numbers, and whose sums are float32."""

    def dot_general(x, y, dimensions, **_):
        return jax.lax.dot_general(x.astype(dtype), y.astype(dtype), dimensions, preferred_element_type=jnp.float32)

    return dot_general
