"""Ours and VQGAN's GPT on the same tokenizer, VQGAN's (paper, Table 7), beside the paper's rows.

--workdir=[NAME=]PATH ...: trained generators, of --config=configs/imagenet_stage2.py:vqgan and
configs/baselines/vqgan_imagenet_stage2.py. Without them both are trained small on bundled digits:
some four minutes. Workdirs on other tokenizers are refused. fid needs the weights of Inception.
"""

from typing import Any

from evqgan.benchmark.paper import generation, workdirs
from evqgan.benchmark.paper.published import TABLE7
from evqgan.benchmark.paper.small import Small

FLAGS = generation.FLAGS
SYSTEMS = ("efficient_vqgan_on_vqgan", "vqgan")


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows."""
    systems = [Small(system, given.data) for system in SYSTEMS]
    return generation.run(given, TABLE7, systems, check=workdirs.check_on_vqgan)
