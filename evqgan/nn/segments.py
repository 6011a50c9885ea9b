"""A transformer over segments of a sequence, each of which sees itself and those to its left."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.mesh import platform
from evqgan.nn.attention import Block
from evqgan.nn.layers import scan_layers


class SegmentTransformer(nn.Module):
    """Transformer over a list of token segments, each seeing itself and all segments on its left.

    A segment does not depend on those to its right: keys and values that were kept take its place
    exactly.
    """

    layers: int
    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    dtype: Any = "float32"
    epsilon: float = 1e-5
    remat: bool = False  # keep only the layers' inputs for the backward pass
    # How many of the K targets go through a layer at a time, to save memory; 0 = all.
    chunk: int = 0
    attention_dropout: float | None = None  # as in `Block`
    # How many layers the compiler sees in a turn of training's loop over them; 0 = all, no loop.
    # Without training there is a loop, or none with parameters from `layers.separate`.
    unroll: int = 1

    @nn.compact
    def __call__(
        self,
        segments: list[jax.Array],
        masks: list[tuple],
        prefix: Sequence[jax.Array] = (),
        prefix_masks: Sequence = (),
        deterministic: bool = True,
        keep: bool = False,
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Return the segments, and their KV cache [layers,B,K,S,2,heads,d]; [] unless `keep`.

        segments: each [B,K,S,c]; K is the number of independent targets of an image. The first ones
          may have K = 1: they are shared by all targets, and broadcast, not copied.
        masks: for each segment a pair (which of its tokens the segments to its right see, which of
          them the segment itself sees); bool [B,K,1,1,S] or [B,K,1,S,S], None = all.
        prefix: keys and values of segments further left, kept by an earlier call; prefix_masks: the
          first of each one's pair of masks.
        keep: whether to return the KV cache.
        """
        number = segments[-1].shape[1]
        chunk = next(n for n in range(min(self.chunk or number, number), 0, -1) if number % n == 0)
        at_once = chunk == number or keep or prefix
        shared = len(segments) if at_once else sum(x.shape[1] == 1 for x in segments)

        def apply_block(block: nn.Module, segments: list, masks: list, prefix: list) -> tuple:
            out: list[jax.Array] = []
            new: list[tuple[jax.Array, jax.Array, jax.Array | None]] = []
            for x, (right, itself) in zip(segments, masks, strict=True):
                x, (key, value) = block(x, (*prefix, *new), itself, deterministic)
                new.append((key, value, right))
                out.append(x)
            return out, new

        if self.remat:
            again = from_inputs if platform() == "cpu" else nn.remat
            # A loop already keeps XLA from merging the recomputation.
            apply_block = again(apply_block, prevent_cse=self.unroll != 1)

        def layer_step(block: nn.Module, segments: list, prefix: list) -> tuple:
            known = [
                (kv[..., 0, :, :], kv[..., 1, :, :], mask)
                for kv, mask in zip(prefix, prefix_masks, strict=True)
            ]
            out, new = apply_block(block, segments[:shared], masks[:shared], known)
            if shared < len(segments):
                of_targets = in_chunks(apply_block, number // chunk)
                out += of_targets(block, segments[shared:], masks[shared:], known + new)
            return out, [jnp.stack([k, v], axis=-3) for k, v, _ in new] if keep else []

        given = self.heads, self.mlp_ratio, self.dropout, self.dtype, self.epsilon
        block = Block(*given, attention_dropout=self.attention_dropout, name="blocks")
        unroll = 1 if deterministic else self.unroll
        return scan_layers(
            layer_step, block, segments, self.layers, per_layer=list(prefix), unroll=unroll
        )


def from_inputs(apply_block: Callable, prevent_cse: bool) -> Callable:
    """Return apply_block(block, segments, masks, prefix) that keeps only segments for backward.

    prevent_cse: see `jax.checkpoint`.
    """

    def again(block: nn.Module, segments: list, bits: list, masks: list, prefix: list) -> tuple:
        segments = [stored(b, x) for b, x in zip(bits, segments, strict=True)]
        return apply_block(block, segments, masks, prefix)

    again = nn.remat(again, prevent_cse=prevent_cse)

    def run(block: nn.Module, segments: list, masks: list, prefix: list) -> tuple:
        return again(block, segments, [bits_of(x) for x in segments], masks, prefix)

    return run


def bits_of(x: jax.Array) -> jax.Array:
    """Return the bits of x as whole numbers of its size, without a gradient."""
    kind = jnp.uint16 if x.dtype.itemsize == 2 else jnp.uint32
    return jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), kind)


@jax.custom_jvp
def stored(bits: jax.Array, x: jax.Array) -> jax.Array:
    """Return x, read from its bits: they are what the backward pass keeps.

    XLA's CPU backend computes in float32, and would otherwise widen what all layers keep in
    bfloat16 at once.
    """
    return jax.lax.bitcast_convert_type(bits, x.dtype)


@stored.defjvp
def _stored_jvp(primals: tuple, tangents: tuple) -> tuple:
    return stored(*primals), tangents[1]


def in_chunks(apply_block: Callable, chunks: int) -> Callable:
    """Return the segments of apply_block(block, segments, masks, prefix), chunk by chunk."""

    def cut(x: jax.Array) -> jax.Array:  # [B,K,...] -> [chunks,B,K/chunks,...]
        return jnp.moveaxis(x.reshape(x.shape[0], chunks, -1, *x.shape[2:]), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])

    def run(block: nn.Module, segments: list, masks: list, prefix: list) -> list:
        # Masks of the prefix that differ between targets are cut, too.
        varies = [mask is not None and mask.shape[1] > 1 for *_, mask in prefix]
        cut_masks = [mask if own else None for (*_, mask), own in zip(prefix, varies, strict=True)]

        def one(block: nn.Module, _: None, part: tuple) -> tuple:
            segments, masks, cut_masks = part
            known = [
                (*kv, part_of_mask if own else mask)
                for (*kv, mask), part_of_mask, own in zip(prefix, cut_masks, varies, strict=True)
            ]
            return None, apply_block(block, segments, masks, known)[0]

        parts = jax.tree.map(cut, (segments, masks, cut_masks))
        rngs: dict[Any, bool] = {"params": False, "dropout": True}
        scan = nn.scan(one, variable_broadcast="params", split_rngs=rngs, length=chunks)
        return jax.tree.map(join, scan(block, None, parts)[1])

    return run
