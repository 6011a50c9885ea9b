"""Tables of weight names: enhancing-transformers' GPT <-> `evqgan.generators.gpt`.

Theirs is modules/stage2/layers.py.
"""

from typing import Any

from evqgan.convert.gpt import block, layers_of
from evqgan.convert.mapping import Row, Weights, norm

TABLE = (
    Row("tok_emb_cond.weight", "params/condition_words"),
    Row("pos_emb_cond", "params/condition_positions", "row"),
    Row("tok_emb_code.weight", "params/words"),
    Row("pos_emb_code", "params/positions", "row"),
    *block("p0", "p1"),
    Row("blocks.{i}.attn.time_mix", "params/blocks/time_mix[{i}]"),
    *norm("layer_norm", "params/norm"),
    Row("head.weight", "params/head/kernel", "dense"),
)


def generator_config(theirs: Weights, heads: int) -> dict[str, Any]:
    """Return what config.generator has to say for the weights `theirs`: {key: value}.

    heads are not to be seen in the weights. One word of a condition is taken for an unconditional
    model. `codes` is there to be compared with the tokenizer's.
    """
    (words, width), tokens = theirs["tok_emb_cond.weight"].shape, theirs["pos_emb_cond"].shape[1]
    return {
        "name": "gpt",
        "codes": theirs["tok_emb_code.weight"].shape[0],
        "classes": words if words > 1 else 0,
        "condition_tokens": tokens,
        "tables": "separate",
        "unmasked": tokens if tokens > 1 else 0,  # one token always sees itself
        "layers": layers_of(theirs),
        "width": width,
        "heads": heads,
        "mlp_ratio": theirs["blocks.0.mlp.p0.weight"].shape[0] / width,
        "activation": "squared_relu",
        "time_shift": True,
        "attention_bias": "blocks.0.attn.query.bias" in theirs,
        "mlp_bias": "blocks.0.mlp.p0.bias" in theirs,
    }
