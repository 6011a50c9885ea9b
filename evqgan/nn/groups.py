"""A stack of transformer blocks over groups of tokens, each of which sees itself and the groups to its left."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.nn.attention import Block, repeat


class Groups(nn.Module):
    """groups: a list of [B,K,S,c] -> groups, and their pairs of keys and values [layers,B,K,S,2,heads,d] if `keep`.

    K: so many independent rows of groups an image; the first groups may have K = 1 and then serve all rows of the
    others without a copy. A group does not depend on those to its right: pairs that were kept take its place exactly.

    masks: for each group which of its tokens those to the right see, and which itself, bool [B,K,1,1,S] or None = all.
    before: kept pairs of groups further left, with masks_before, the first of their masks. remat: keep only the
    layers' inputs for the backward pass. chunk: so many rows at a time go through a layer, 0 = all: less memory.
    """

    layers: int
    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    dtype: Any = "float32"
    epsilon: float = 1e-5
    remat: bool = False
    chunk: int = 0

    @nn.compact
    def __call__(self, groups, masks, before=(), masks_before=(), deterministic=True, keep=False):
        number = groups[-1].shape[1]
        chunk = next(n for n in range(min(self.chunk or number, number), 0, -1) if number % n == 0)
        whole = chunk == number or keep or before
        shared = len(groups) if whole else sum(x.shape[1] == 1 for x in groups)

        def through(block, groups, masks, seen):
            out, new = [], []
            for x, (right, itself) in zip(groups, masks, strict=True):
                x, pair = block(x, (*seen, *new), itself, deterministic)
                new.append((pair, right))
                out.append(x)
            return out, new

        if self.remat:
            through = from_inputs(through)

        def turn(block, groups, pairs):
            seen = list(zip(pairs, masks_before, strict=True))
            out, new = through(block, groups[:shared], masks[:shared], seen)
            if shared < len(groups):
                out += chunked(through, number // chunk)(block, groups[shared:], masks[shared:], seen + new)
            return out, [pair for pair, _ in new] if keep else None

        block = Block(self.heads, self.mlp_ratio, self.dropout, self.dtype, self.epsilon, name="blocks")
        return repeat(turn, block, groups, self.layers, each=list(before))


def from_inputs(through):
    """`through(block, groups, masks, seen)`, of which only the groups that go in are kept for the backward pass."""

    def again(block, groups, bits, masks, seen):
        return through(block, [stored(b, x) for b, x in zip(bits, groups, strict=True)], masks, seen)

    again = nn.remat(again, prevent_cse=False)  # within loops, which already keep XLA from merging the recomputation

    def run(block, groups, masks, seen):
        kinds = [jnp.uint16 if x.dtype.itemsize == 2 else jnp.uint32 for x in groups]
        bits = [jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), k) for x, k in zip(groups, kinds, strict=True)]
        return again(block, groups, bits, masks, seen)

    return run


@jax.custom_jvp
def stored(bits, x):
    """x, read from its bits: they are what the backward pass keeps.

    XLA's CPU backend computes in float32, and would otherwise widen what all layers keep in bfloat16 at once.
    """
    return jax.lax.bitcast_convert_type(bits, x.dtype)


@stored.defjvp
def _stored_jvp(primals, tangents):
    return stored(*primals), tangents[1]


def chunked(through, pieces):
    """The groups of `through(block, groups, masks, seen) -> groups, pairs`, the rows in `pieces`, one at a time."""

    def cut(x):  # [B,K,...] -> [pieces,B,K/pieces,...]
        return jnp.moveaxis(x.reshape(len(x), pieces, -1, *x.shape[2:]), 1, 0)

    def join(x):
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])

    def run(block, groups, masks, seen):
        of_rows = [mask is not None and mask.shape[1] > 1 for _, mask in seen]

        def one(block, _, part):
            groups, masks, masks_seen = part
            both = zip(seen, masks_seen, of_rows, strict=True)
            now = [(pair, part_of_mask if varies else mask) for (pair, mask), part_of_mask, varies in both]
            return None, through(block, groups, masks, now)[0]

        masks_seen = [mask if varies else None for (_, mask), varies in zip(seen, of_rows, strict=True)]
        parts = jax.tree.map(cut, (groups, masks, masks_seen))
        scan = nn.scan(one, variable_broadcast="params", split_rngs={"params": False, "dropout": True}, length=pieces)
        return jax.tree.map(join, scan(block, None, parts)[1])

    return run
