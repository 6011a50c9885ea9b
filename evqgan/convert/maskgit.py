"""Tables of weight names: google-research/maskgit, flattened with "/" -> ours."""

from evqgan.convert.mapping import Row


def _both(theirs, ours, *names, index=""):
    return tuple(Row(f"{theirs}/{name}", f"params/{ours}/{name}{index}") for name in names)


def _layer(theirs, ours, *names):
    return _both(f"TransformerLayer_{{i}}/{theirs}", f"blocks/{ours}", *names, index="[{i}]")


DENSE, NORM = ("kernel", "bias"), ("scale", "bias")

# nets/maskgit_transformer.py -> generators/maskgit.py
TRANSFORMER = (
    Row("Embed_0/word_embeddings/embedding", "params/words"),
    Row("Embed_0/position_embeddings/embedding", "params/positions"),
    *_both("Embed_0/embeddings_ln", "embedding_norm", *NORM),
    *_layer("Attention_0/self_attention/query", "query", *DENSE),
    *_layer("Attention_0/self_attention/key", "key", *DENSE),
    *_layer("Attention_0/self_attention/value", "value", *DENSE),
    *_layer("Attention_0/self_attention/out", "out", *DENSE),
    *_layer("Attention_0/attention_output_ln", "attention_norm", *NORM),
    *_layer("Mlp_0/intermediate_output", "mlp_hidden", *DENSE),
    *_layer("Mlp_0/layer_output", "mlp_out", *DENSE),
    *_layer("Mlp_0/layer_output_ln", "mlp_norm", *NORM),
    *_both("MlmLayer_0/mlm_dense", "head", *DENSE),
    *_both("MlmLayer_0/mlm_ln", "head_norm", *NORM),
    Row("MlmLayer_0/mlm_bias/bias", "params/logits_bias"),
)
