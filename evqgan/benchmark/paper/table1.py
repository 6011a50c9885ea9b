"""Reconstruction of held-out images (paper, Table 1), beside the paper's rows.

--workdir=[NAME=]PATH ...: trained tokenizers, each on its own data set. Without them VQGAN's,
ViT-VQGAN's and ours are trained small on bundled digits, some two minutes. rfid needs the weights
of Inception.
"""

from typing import Any

from evqgan.benchmark.paper import beside, quality, reconstructed, workdirs
from evqgan.benchmark.paper.published import TABLE1

FLAGS = reconstructed.FLAGS


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows."""
    models, scale = reconstructed.chosen(given, TABLE1)
    rows = []
    for name, model in models:
        numbers, card = quality.of_tokenizer(model, given)
        row = {
            "system": name,
            "data": card["real"]["source"],
            "codes": model.codes,
            "latent": workdirs.latent(model),
        }
        rows.append({**row, **numbers, "card": card})
    return f"{TABLE1.name}, {TABLE1.title}; measured here: {scale}", beside.beside(TABLE1, rows)
