"""Generation of images of a class, with and without rejection (paper, Table 5).

--workdir=[NAME=]PATH ...: trained generators with classes, of --config=configs/imagenet_stage2.py.
Without them VIM, MaskGIT, VQGAN's GPT and ours are trained small on bundled digits: some seven
minutes. Half of the samples are rejected in a second row of VQGAN and ours, and of any workdir
with classes: by ResNet-101 where there are its weights and ImageNet's classes, else by a
logistic regression of the held-out images. fid and inception_score need the weights of Inception.
"""

from typing import Any

from evqgan.benchmark.paper import generation
from evqgan.benchmark.paper.published import TABLE5
from evqgan.benchmark.paper.small import Small

FLAGS = generation.FLAGS
SYSTEMS = ("vit_vqgan", "maskgit", "vqgan", "efficient_vqgan")
ACCEPTED = {"VQGAN": 0.5, "ours": 0.5}


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows."""
    systems = [Small(system, given.data) for system in SYSTEMS]
    return generation.run(given, TABLE5, systems, ACCEPTED)
