"""Who attends to whom when a block is generated (paper, Fig. 3), drawn from the code's own indices.

The sequence of a target block is class | globals | ring | target, see
`generators.multigrained_network`.
"""

import dataclasses
from typing import Any, cast

import numpy as np

from evqgan import models
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.generators.blocks import NOWHERE, ring_and_target, step_of_block
from evqgan.generators.multigrained_network import Model
from evqgan.plot.canvas import BLACK, GREY, WHITE, Canvas, Colour

NAME = "multigrained"
BLUE, ORANGE, GREEN = (38, 98, 178), (232, 140, 40), (46, 140, 70)  # target, ring, globals
MASKED, LATER, EDGE = (250, 220, 180), (240, 240, 240), (150, 150, 150)
SIDE, GLOBALS = 384, 152  # ours: pixels of the token grid and the matrix; of the global tokens
LEFT, TOP, GAP, BELOW, LINE = 16, 40, 44, 112, 20


@dataclasses.dataclass(frozen=True)
class Sight:
    """What a target block of a generator sees.

    model: the network, of which sizes and kinds of attention are read.
    block: the target, numbered in raster order.
    """

    model: Model
    block: int

    def __post_init__(self) -> None:
        if not 0 <= self.block < self.model.blocks:
            last = f"--block is a number from 0 to {self.model.blocks - 1}"
            raise InputError(f"{last} of this generator, not {self.block}")

    @property
    def target(self) -> np.ndarray:
        """The target's tokens, int32 [T], as indices of the grid."""
        return self._layout(1)

    @property
    def ring(self) -> np.ndarray:
        """The tokens around it, int32 [R], those that lie in the image."""
        return self._layout(0)

    @property
    def rank(self) -> np.ndarray:
        """The step that generates each block, int32 [blocks], from 1; none is given."""
        return step_of_block(*self.model.layout) + 1

    @property
    def is_known(self) -> np.ndarray:
        """Which tokens were generated before, bool [h,w]."""
        (h, w), window = self.model.latent, self.model.window
        is_before = (self.rank < self.rank[self.block]).reshape(h // window, w // window)
        return is_before.repeat(window, axis=0).repeat(window, axis=1)

    @property
    def globals_seen(self) -> np.ndarray:
        """Which global tokens ring and target see, bool [blocks]."""
        if self.model.global_tokens == "ordered":
            return self.rank < self.rank[self.block]
        is_own = np.arange(self.model.blocks) == self.block
        return ~is_own if self.model.own == "dropped" else np.ones_like(is_own)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many tokens the sequence has: class and globals, ring, target."""
        return bool(self.model.classes) + self.model.blocks, len(self.ring), len(self.target)

    def matrix(self) -> np.ndarray:
        """Return which token (row) attends to which (column), bool [S,S], S = sum of `sizes`."""
        total = sum(self.sizes)
        number = self.sizes[0]
        has_class = number - self.model.blocks
        columns = np.ones(total, bool)
        columns[has_class:number] = self.globals_seen
        found = np.repeat(columns[None], total, axis=0)
        if self.model.attention == "joint":
            return found
        ranks = np.concatenate([np.full(has_class, -1), self.rank])
        of_globals = np.ones((number, number), bool)
        if self.model.global_tokens == "ordered":
            of_globals = ranks[None] <= ranks[:, None]
        found[:number] = False
        found[:number, :number] = of_globals
        found[number : number + self.sizes[1], number + self.sizes[1] :] = False
        return found

    def _layout(self, part: int) -> np.ndarray:
        index = ring_and_target(*self.model.layout)[part][self.block]
        return index[index != NOWHERE]


def of_workdir_or_sizes(workdir: str, sizes: dict[str, Any], block: int | None) -> np.ndarray:
    """Return the picture of a workdir's generator, or of one of these sizes, uint8 [H,W,3].

    workdir: "" takes `sizes`, {"tokens", "window", "extend"}: a square grid, as the configs have
      "ordered" global tokens, and classes.
    block: the target; None: one near the middle.
    """
    if workdir:
        config, folder = of_workdir(workdir)
        if config.stage != "stage2" or config.generator.name != NAME:
            raise InputError(f"{folder} is not the workdir of a generator of blocks ({NAME})")
        model = cast(Model, models.of_stage2(config).network)
    else:
        latent = sizes["tokens"], sizes["tokens"]
        shape = {"latent": latent, "window": sizes["window"], "extend": sizes["extend"]}
        model = Model(codes=1, classes=1, global_tokens="ordered", **shape)
    if block is None:
        rows, columns = (side // model.window for side in model.latent)
        block = rows // 2 * columns + (columns - 1) // 2
    return picture(Sight(model, block))


def picture(sight: Sight) -> np.ndarray:
    """Return the picture, uint8 [H,W,3]: the token grid, the global tokens, and the matrix."""
    canvas = Canvas(2 * LEFT + 2 * SIDE + GLOBALS + 2 * GAP + 40, TOP + SIDE + BELOW)
    draw_grid(canvas, sight, LEFT, TOP)
    draw_globals(canvas, sight, LEFT + SIDE + GAP, TOP)
    draw_matrix(canvas, sight, LEFT + SIDE + GLOBALS + 2 * GAP + 40, TOP)
    for n, (colour, text) in enumerate(texts(sight)):
        y = TOP + SIDE + 16 + n * LINE
        canvas.box((LEFT, y, LEFT + 12, y + 12), colour, EDGE)
        canvas.text(LEFT + 20, y + 11, text, BLACK, 13, "ls")
    return canvas.picture()


def texts(sight: Sight) -> list[tuple[Colour, str]]:
    """Return the lines below the picture, each with the colour that it explains."""
    number, ring, target = sight.sizes
    h, w = sight.model.latent
    known = int(sight.is_known.reshape(-1)[sight.ring].sum())
    seen, blocks = int(sight.globals_seen.sum()), sight.model.blocks
    which = "of blocks generated before" if sight.model.global_tokens == "ordered" else "in all"
    sums = f"{number} + {ring} + {target} = {number + ring + target:,}"
    beside = (
        "class and global tokens, ring and target"
        if sight.model.classes
        else ("global tokens, ring and target")
    )
    return [
        (BLUE, f"target: the {target} tokens of block {sight.block}, generated together"),
        (ORANGE, f"ring: {ring} tokens around it, of which {known} are generated"),
        (MASKED, f"and {ring - known} are still [MASK]"),
        (GREEN, f"global tokens, one a block: {seen} of {blocks} are seen, those {which}"),
        (WHITE, f"a sequence of {sums} tokens ({beside}) in the place of {h * w:,}"),
    ]


def draw_grid(canvas: Canvas, sight: Sight, left: float, top: float) -> None:
    """Draw the token grid: target, ring, what is known, and the borders of blocks."""
    (h, w), window = sight.model.latent, sight.model.window
    cell = SIDE / max(h, w)
    colours = np.where(sight.is_known.reshape(-1, 1), np.array([[205] * 3]), np.array([LATER]))
    is_known = sight.is_known.reshape(-1)[sight.ring]
    colours[sight.ring] = np.where(is_known[:, None], ORANGE, MASKED)
    colours[sight.target] = BLUE
    for n, colour in enumerate(colours):
        y, x = top + n // w * cell, left + n % w * cell
        red, green, blue = map(int, colour)
        canvas.box((x, y, x + cell, y + cell), (red, green, blue), WHITE)
    for n in range(h // window + 1):
        y = top + n * window * cell
        canvas.line([(left, y), (left + w * cell, y)], EDGE, 1.5)
    for n in range(w // window + 1):
        x = left + n * window * cell
        canvas.line([(x, top), (x, top + h * cell)], EDGE, 1.5)
    canvas.text(left, top - 10, f"tokens of an image ({h} x {w}), grey: generated", BLACK, 13, "ls")


def draw_globals(canvas: Canvas, sight: Sight, left: float, top: float) -> None:
    """Draw the global tokens, one a block, and which of them are seen."""
    h, w = (side // sight.model.window for side in sight.model.latent)
    cell = GLOBALS / max(h, w)
    for n, is_seen in enumerate(sight.globals_seen):
        y, x = top + n // w * cell, left + n % w * cell
        edge = BLUE if n == sight.block else EDGE
        canvas.box((x + 2, y + 2, x + cell - 2, y + cell - 2), GREEN if is_seen else WHITE, edge)
        if cell > 20:
            ink = WHITE if is_seen else GREY
            canvas.text(x + cell / 2, y + cell / 2, str(n), ink, 11, "mm")
    canvas.text(left, top - 10, "global tokens", BLACK, 13, "ls")


def draw_matrix(canvas: Canvas, sight: Sight, left: float, top: float) -> None:
    """Draw who attends to whom, a row for each token that does."""
    matrix, sizes = sight.matrix(), sight.sizes
    cell = SIDE / len(matrix)
    kinds = np.repeat(np.arange(3), sizes)
    colours = (GREEN, ORANGE, BLUE)
    bounds = [0, *np.cumsum(sizes)]
    for y, row in enumerate(matrix):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
        runs = [(a, b) for a, b in edges.reshape(-1, 2)]
        for a, b in runs:
            for kind in np.unique(kinds[a:b]):
                start, end = max(a, bounds[kind]), min(b, bounds[kind + 1])
                box = left + start * cell, top + y * cell, left + end * cell, top + (y + 1) * cell
                canvas.box(box, colours[kind])
    for bound in bounds:
        at = bound * cell
        canvas.line([(left, top + at), (left + SIDE, top + at)], EDGE, 1)
        canvas.line([(left + at, top), (left + at, top + SIDE)], EDGE, 1)
    names = "globals", "ring", "target"
    for name, a, b in zip(names, bounds, bounds[1:], strict=False):
        canvas.text(left - 6, top + (a + b) / 2 * cell, name, BLACK, 11, "rm")
        canvas.text(left + (a + b) / 2 * cell, top + SIDE + 5, name, BLACK, 11, "mt")
    canvas.text(left, top - 10, "who (row) attends to whom (column)", BLACK, 13, "ls")
