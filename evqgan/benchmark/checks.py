"""Whether what an accelerator computes fast is right, on fresh random numbers."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.benchmark import generator_step
from evqgan.core.config_files import read_file
from evqgan.nn.attention import attend_pieces
from evqgan.tokenizers.quantizers.codebooks import nearest

STEPS = 50  # of training in bfloat16 and in float32


def rows(small: bool) -> list[dict[str, Any]]:
    """Return {"program", "error", "bound"} of each check; an error is relative."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    rng = np.random.default_rng(seed)
    found = [*attention(rng, small), codes(rng)]
    if jax.default_backend() != "cpu":  # which takes minutes to compile bfloat16
        found.append(training())
    for row in found:
        if is_off(row):
            print(f"WARNING {row['program']} is off, seed {seed}", flush=True)
    return found


def is_off(row: Mapping[str, Any]) -> bool:
    """Return whether the error of a row is beyond its bound, or no number."""
    return not row["error"] <= row["bound"]


def attention(rng: np.random.Generator, small: bool) -> list[dict[str, Any]]:
    """Return the rows of attention over three pieces with masks, and of its gradients."""
    images, targets, heads, channels = (1, 2, 2, 16) if small else (4, 4, 6, 128)
    lengths = 5, 80, 64

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(jnp.bfloat16).astype(np.float64)

    query, pieces = normal(images, targets, lengths[-1], heads, channels), []
    for i, length in enumerate(lengths):
        of = images, 1 if i == 0 else targets, length, heads, channels
        is_seen = rng.random((images, targets, 1, 1, length)) < 0.7
        pieces.append((normal(*of), normal(*of), is_seen if i < 2 else None))
    slope = normal(*query.shape)

    expected = in_float64(query, pieces, slope)
    masks = [mask for *_, mask in pieces]

    def total(query: jax.Array, sides: list) -> tuple[jax.Array, jax.Array]:
        given = [(*side, mask) for side, mask in zip(sides, masks, strict=True)]
        out = attend_pieces(query, given)
        return jnp.sum(out.astype(jnp.float32) * slope.astype(np.float32)), out

    given = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (query, [p[:2] for p in pieces]))
    gradients, out = jax.jit(jax.grad(total, (0, 1), has_aux=True))(*given)
    names = ["output", "query"]
    names += [
        f"{side} of {p}" for p in ("globals", "ring", "target") for side in ("keys", "values")
    ]
    made = [out, *jax.tree.leaves(gradients)]
    return [
        {"program": f"attention, {name}", "error": relative(a, b), "bound": 0.02}
        for name, a, b in zip(names, made, expected, strict=True)
    ]


def in_float64(query: np.ndarray, pieces: list, slope: np.ndarray) -> list[np.ndarray]:
    """Return the output of attention, and the gradients of sum(output * slope), by NumPy.

    They are of the query, and of keys and values of each piece.
    """
    rows = query.shape[:2]
    lengths = [key.shape[2] for key, *_ in pieces]
    key, value = (
        np.concatenate([np.broadcast_to(p[i], (*rows, *p[i].shape[2:])) for p in pieces], axis=2)
        for i in (0, 1)
    )
    logits = np.einsum("abshd,abthd->abhst", query, key) * query.shape[-1] ** -0.5
    ends = np.cumsum(lengths)
    for (*_, mask), end, length in zip(pieces, ends, lengths, strict=True):
        if mask is not None:
            logits[..., end - length : end] += np.where(mask, 0, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = np.einsum("abhst,abthd->abshd", weights, value)
    of_weights = np.einsum("abshd,abthd->abhst", slope, value)
    of_logits = weights * (of_weights - (weights * of_weights).sum(-1, keepdims=True))
    of_logits *= query.shape[-1] ** -0.5
    of_query = np.einsum("abhst,abthd->abshd", of_logits, key)
    of_key = np.einsum("abhst,abshd->abthd", of_logits, query)
    of_value = np.einsum("abhst,abshd->abthd", weights, slope)
    found = [out, of_query]
    for end, length, (piece, *_) in zip(ends, lengths, pieces, strict=True):
        for x in (of_key, of_value):
            part = x[:, :, end - length : end]
            found.append(part.sum(1, keepdims=True) if piece.shape[1] == 1 else part)
    return found


def codes(rng: np.random.Generator) -> dict[str, Any]:
    """Return the row of nearest codes: the share that float64 would choose otherwise."""
    x, book = (rng.normal(size=(n, 256)).astype(np.float32) for n in (4096, 1024))
    distances = np.square(book.astype(np.float64)).sum(1) - 2 * x.astype(np.float64) @ book.T
    wrong = np.mean(np.asarray(jax.jit(nearest)(x, book)) != distances.argmin(1))
    return {"program": "nearest codes", "error": float(wrong), "bound": 0.001}


def training() -> dict[str, Any]:
    """Return the row of a small generator's losses in bfloat16, beside those in float32."""
    losses = {dtype: losses_in(dtype) for dtype in ("bfloat16", "float32")}
    error = relative(losses["bfloat16"], losses["float32"])
    return {"program": f"losses of {STEPS} steps", "error": error, "bound": 0.02}


def losses_in(dtype: str) -> np.ndarray:
    """Return the losses [STEPS] of a small generator on one batch of random ids."""
    config = read_file(generator_step.CONFIG)
    with config.unlocked():
        config.tokenizer = {"weights": "random", "model": generator_step.TOKENIZER}
        config.dataset = {"name": "generated", "size": 256}
        config.dtype, config.batch_size = dtype, 8
        config.generator.update({"layers": 4, "width": 192, "heads": 4, "dropout": 0.0})
        config.optimizer.update({"warmup": "5 steps", "learning_rate": 1e-3})
        config.loss.targets = 0
    _, init, update, batch = generator_step.prepared(config)
    ids = np.random.default_rng(0).integers(0, 1024, batch["ids"].shape, np.int32)
    batch = {**batch, "ids": jax.device_put(ids, batch["ids"].sharding)}
    state, losses = init(), []
    for _ in range(STEPS):
        state, metrics = update(state, batch)
        losses.append(metrics["loss"])
    return np.asarray(losses)


def relative(found: Any, expected: Any) -> float:
    """Return |found - expected| / |expected| in float64."""
    found, expected = (np.asarray(x).astype(np.float64) for x in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
