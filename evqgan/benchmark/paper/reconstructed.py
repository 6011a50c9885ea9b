"""What the paper's tables and figures of tokenizers share: which ones, trained or small."""

from typing import Any

from evqgan.benchmark.paper import quality, small, workdirs
from evqgan.benchmark.paper.published import Table
from evqgan.benchmark.paper.small import Small
from evqgan.core.cli import Flag
from evqgan.inference.mode_inputs import load_model
from evqgan.inference.model import Model

FLAGS: tuple[Flag, ...] = (
    quality.WORKDIR,
    quality.FEATURES,
    quality.WEIGHTS,
    small.OUT,
    small.DATA,
)
SYSTEMS = ("vqgan", "vit_vqgan", "efficient_vqgan")  # those of the paper's Table 1


def chosen(given: Any, table: Table | None = None) -> tuple[list[tuple[str, Model]], str]:
    """Return tokenizers by name, of --workdir or small, and in words how large they are.

    table: of the paper, which they stand beside.
    """
    small.check_unused(given)
    quality.check_names(given.workdir or ())
    if "features" in given:
        quality.check(given, "stage1")
    if given.workdir:
        opened = [quality.opened(text, "stage1") for text in given.workdir]
        return opened, workdirs.title(opened, table)
    systems = [Small(system, given.data) for system in SYSTEMS]
    trained = small.tokenizers(given.out, systems)
    pairs = zip(SYSTEMS, trained, strict=True)
    found = [(small.TOKENIZERS[name], load_model(None, path)) for name, path in pairs]
    return found, small.scale(systems)
