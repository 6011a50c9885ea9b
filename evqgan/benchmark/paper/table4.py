"""Generation at high resolution (paper, Table 4: faces at 1024x1024), beside the paper's rows.

--workdir=[NAME=]PATH ...: trained generators, of --config=configs/ffhq_stage2.py:1024. Without them
ours is trained small at twice the resolution of the other tables, 64x64, on bundled photographs:
some four minutes. fid needs the weights of Inception.
"""

from typing import Any

from evqgan.benchmark.paper import generation
from evqgan.benchmark.paper.published import TABLE4
from evqgan.benchmark.paper.small import Small

FLAGS = generation.FLAGS
SIZE = 64  # ours: twice that of the other small models


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows."""
    data = "photographs" if given.data == "digits" else given.data
    systems = [Small("efficient_vqgan", data, SIZE, conditional=False)]
    return generation.run(given, TABLE4, systems)
