"""The training step of a generator as a program by itself, on stored ids."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan.core import mesh
from evqgan.core.config_files import SHIPPED
from evqgan.training import stage2
from evqgan.training.prepare import jitted

# Unconditional, as Table 6's parameters are; positions that do not grow with the grid.
CONFIG = f"{SHIPPED / 'configs' / 'ffhq_stage2.py'}:1024"
# A tokenizer only fixes the grid and the codebook's size here: f = 16 and 1024 codes, as in every
# stage 2 of configs/.
CODER = {"name": "swin", "width": 8, "depths": (2, 2, 2), "window": 8, "head_dim": 8}
TOKENIZER = {
    "encoder": CODER,
    "decoder": CODER,
    "quantizer": {"name": "vq", "codes": 1024, "width": 8},
}


def prepared(config: ConfigDict) -> tuple[Any, Any, Any, Any]:
    """Return what `prepare.jitted` makes of the stage without its tokenizer, and a batch of ids.

    The former is the shapes of the state, init, and update. A tokenizer stays whose codebook is
    part of the step: RQ-Transformer's.
    """
    stage = stage2.make(config, examples=10**6)
    tokenizer = stage.model.tokenizer
    dropped = () if stage.model.traits.codebook else ("tokenizer",)

    def init() -> dict[str, Any]:
        return {key: value for key, value in stage.init().items() if key not in dropped}

    def update(state: Any, batch: Any) -> tuple[dict[str, Any], Any]:
        state, metrics = stage.update({**{key: {} for key in dropped}, **state}, batch)
        return {key: value for key, value in state.items() if key not in dropped}, metrics

    device_mesh = mesh.make(devices=jax.devices()[:1])
    depth = tokenizer.network.quantizer.depth
    ids = np.zeros((config.batch_size, *tokenizer.grid, depth), np.int32)
    batch = mesh.put({"ids": ids, "label": np.zeros(config.batch_size, np.int32)}, device_mesh)
    return *jitted(SimpleNamespace(init=init, update=update), device_mesh), batch
