"""The Inception score of logits (Salimans et al., 2016): classes are certain, and all occur."""

import itertools

import numpy as np
from scipy.special import entr, log_softmax

from evqgan.core.errors import InputError
from evqgan.metrics import chunks


def inception_score(
    logits: np.ndarray, splits: int = 10, seed: int | None = 2020
) -> tuple[float, float]:
    """Return the mean and the standard deviation of the score over splits of the samples.

    The score of a split is exp(mean KL(p(y|x) || p(y))) (Salimans et al., 2016, Section 4), from 1
    to the number of classes. Splits, their order and the deviation (divided by the number of
    splits) are torch-fidelity's; float64 throughout.

    logits: [N,K] of any real dtype, one row a sample, before softmax.
    splits: into how many parts of equal size, up to one, the samples are cut.
    seed: of the permutation before that; None: the samples' own order, as ADM's evaluator has it.

    Raises InputError for NaN, infinity and fewer samples than splits.
    """
    if splits < 1:
        raise InputError(f"an Inception score needs one split or more, got {splits}")
    logits = chunks.checked_features(logits, splits, name="logits")
    number = len(logits)
    order = np.arange(number)
    if seed is not None:
        order = np.random.RandomState(seed).permutation(number)
    bounds = [i * number // splits for i in range(splits + 1)]
    scores = [_score(logits, order[start:end]) for start, end in itertools.pairwise(bounds)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: np.ndarray, rows: np.ndarray) -> float:
    """Return exp of the entropy of the mean prediction less the mean entropy of predictions.

    That is the mean KL divergence of the one from the other.
    """
    sums, entropies = np.zeros(logits.shape[1]), 0.0
    for some in chunks.slices(len(rows), logits.shape[1]):
        log_p = log_softmax(logits[rows[some]].astype(np.float64), axis=1)
        p = np.exp(log_p)
        sums += p.sum(axis=0)
        entropies -= float(np.sum(p * log_p))
    return float(np.exp(entr(sums / len(rows)).sum() - entropies / len(rows)))
