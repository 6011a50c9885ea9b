"""What benchmarks of many runs share: parts of the work, and numbers of samples beside real images."""

import contextlib
import dataclasses

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.evals import samples as sample_statistics


def split(text):
    """ "2/3" -> 2, 3."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"expected --part=I/N with I from 1 to N, such as 1/2, got {text!r}")
    return int(part), int(parts)


def against_real(config, images, labels, views, colour):
    """What `evals.samples` says of samples beside real images, as training crops and mirrors them -> {name: number}.

    images uint8 [N,H,W,3], labels int32 [N]. views: how many of each image of the data set `config`; more than 1 where
    a random part of it is an example. colour: whether the classifier sees colours.
    """
    dataset, real = build.call(pipeline.Dataset, config, "config.dataset").of_images(), []
    for part in (dataset.train, dataset.validation):
        number, of_part = views * len(pipeline.open_split(dataset, part)), dataclasses.replace(dataset, train=part)
        with contextlib.closing(pipeline.train_batches(of_part, number, seed=0)) as batches:
            real.append(next(batches))
    (train, train_labels), held = (tuple(batch[key] for key in ("image", "label")) for batch in real)
    numbers = sample_statistics.frechet(images, train, held[0])
    numbers |= sample_statistics.spread(images, labels, train, train_labels)
    return numbers | sample_statistics.classifier_agreement(train, train_labels, images, labels, *held, colour)
