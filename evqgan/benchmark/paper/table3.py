"""Generation of faces at 256x256 (paper, Table 3), beside the paper's rows.

--workdir=[NAME=]PATH ...: trained generators without classes, of --config=configs/ffhq_stage2.py
and configs/celebahq_stage2.py. Without them VQGAN's, VIM and ours are trained small, without
classes, on bundled digits: some five minutes. fid needs the weights of Inception.
"""

from typing import Any

from evqgan.benchmark.paper import generation
from evqgan.benchmark.paper.published import TABLE3
from evqgan.benchmark.paper.small import Small

FLAGS = generation.FLAGS
SYSTEMS = ("vqgan", "vit_vqgan", "efficient_vqgan")


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows."""
    systems = [Small(system, given.data, conditional=False) for system in SYSTEMS]
    return generation.run(given, TABLE3, systems)
