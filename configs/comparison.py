"""The compared systems, small: both stages of each in minutes on a CPU.

python -m evqgan.benchmark comparison --config=configs/comparison.py:digits \
  --out=workdirs/comparison

Equal for all: data, steps, batches, tokens a step, rates, the L2 loss, about 0.25 and 0.85 million
parameters, codebooks as moving averages with revival, 64 codes an image. Their own: networks, shape
of the codes, sampling.
:digits       scikit-learn's, 32x32, 64 codes; 8x8 tokens, of RQ-VAE 4x4 of four codes.
:photographs  32x32 pieces of nine photographs, more steps for the tokenizers; all else as above.
:attention    ours alone, with attention in windows of 4x4 and over the whole map in the tokenizer:
              64x64 pieces of the photographs, f = 8, maps of 16x16 and 8x8 tokens.
:drawings     generators alone, on the tokenizer that ships, `drawings`: 64x64, 8x8 tokens, 512
              codes. Ours with prefix and with joint attention, GPT, MaskGIT; 0.9 million
              parameters, dropout, 600 steps of 16 images.
:drawings_long  the same with 4,000 steps: each drawing is seen 28 times, and not four times.
:tiny         a few steps on generated images.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("digits", "photographs", "attention", "drawings", "drawings_long")
SIZE, CODES = 32, 64
DATA = {
    "digits": {"name": "digits", "flip": False},
    "photographs": {"name": "photographs", "crop": "native"},
    "drawings": {"name": "drawings", "flip": False},
}
CLASSES = {"digits": 10, "photographs": 9, "drawings": 9}
# Of drawings: as in drawings_stage2.py, against learning them by heart.
DROPOUT = 0.2


def get_config(variant: str = "digits") -> ConfigDict:
    """Return the config of `variant`.

    It is one of VARIANTS or "tiny"; "" is "digits".
    """
    common.variant(variant, VARIANTS)
    base = variant.removesuffix("_long")
    data = {"attention": "photographs"}.get(base, base if base in DATA else "digits")
    size = 2 * SIZE if base in ("attention", "drawings") else SIZE
    config = ConfigDict({"stage": "comparison", "systems": {}})
    # The real images that samples are measured against: so many crops of each, and whether colours
    # tell classes.
    config.real = {"views": 16 if data == "photographs" else 1, "colour": data != "digits"}
    systems = {"attention": attention, "drawings": drawings}.get(base, compared)
    config.systems = systems()
    for system in config.systems.values():
        system.generator = stage2(system.generator, size, data)
        if variant == "drawings_long":
            system.generator.duration = "4000 steps"
        parts = [system.generator]
        if not isinstance(system.tokenizer, str):  # that of a trained one
            system.tokenizer = stage1(system.tokenizer, size, data)
            parts.append(system.tokenizer)
        if variant == "tiny":
            for part in parts:
                part.dataset = {**common.GENERATED, "size": SIZE, "classes": 10}
                part.dataset.num_examples = 64
                part.update({"batch_size": 4, "duration": "2 steps", "log_every": "1 step"})
                part.optimizer.warmup = "0 steps"
    return config


def compared() -> ConfigDict:
    """Return the tokenizers and generators of the compared systems, by name."""
    tokenizers, generators = tokenizers_of(SIZE), generators_of()
    systems = ConfigDict()
    for name, keys in generators.items():
        systems[name] = {"tokenizer": tokenizers[name], "generator": keys}
    # Ours (Table 7 of the paper) and MaskGIT on the tokenizer of VQGAN, as its own GPT.
    for name in ("efficient_vqgan", "maskgit"):
        systems[f"{name}_on_vqgan"] = {
            "tokenizer_of": "vqgan",
            "tokenizer": tokenizers["vqgan"],
            "generator": generators[name],
        }
    return systems


def attention() -> ConfigDict:
    """Return our system with a tokenizer of windows, and of attention over the whole map."""
    keys, systems = generators_of()["efficient_vqgan"], ConfigDict()
    quantizer = {"name": "ema", "codes": CODES, "width": 16, "decay": 0.9, "revive": 0.1}
    for name, window in (("windows", 4), ("whole_map", 16)):  # 16: the larger map's side
        swin = {"name": "swin", "width": 48, "depths": (2, 2), "window": window, "head_dim": 24}
        systems[name] = {"tokenizer": tokenizer(swin, swin, quantizer), "generator": keys}
    return systems


def drawings() -> ConfigDict:
    """Return generators on the tokenizer that ships: ours with either attention, GPT, MaskGIT."""
    generators, systems = generators_of(), ConfigDict()
    ours = generators["efficient_vqgan"]
    compared = {
        "prefix": {**ours, "attention": "prefix"},
        "joint": {**ours, "attention": "joint"},
        "gpt": generators["vqgan"],
        "maskgit": generators["maskgit"],
    }
    for name, keys in compared.items():
        systems[name] = {"tokenizer": "drawings", "generator": {**keys, "dropout": DROPOUT}}
    return systems


def tokenizers_of(size: int) -> dict[str, ConfigDict]:
    """Return the tokenizers of the systems for images of `size`, by name."""
    swin, cnn, vit, rq = coders(size)
    bare = {"attention": (), "middle": 1, "middle_attention": False, "z_width": 0, "bias": False}
    bare |= {"shortcut_of_output": True}
    down = {**cnn, **bare, "down": "pool"}
    quantizer = {"name": "ema", "codes": CODES, "width": 16, "decay": 0.9, "revive": 0.1}
    return {
        "efficient_vqgan": tokenizer(swin, swin, quantizer),
        "vqgan": tokenizer(cnn, cnn, {**quantizer, "commitment": 1.0}),
        "vit_vqgan": tokenizer(vit, vit, {**quantizer, "l2_normalize": True}, pixels="unit"),
        "rq_vae": tokenizer(rq, rq, {**quantizer, "name": "residual", "depth": 4}),
        "maskgit": tokenizer(down, {**cnn, **bare}, quantizer, pixels="unit"),
    }


def generators_of() -> dict[str, dict]:
    """Return the sections config.generator of the systems, by name."""
    small = {"layers": 4, "width": 128, "heads": 4, "dropout": 0.0}
    ours = {"name": "multigrained", "global_tokens": "ordered", "code_width": 32}
    ours |= {"window": 4, "extend": 1}
    return {
        "efficient_vqgan": {**ours, **small},
        "vqgan": {"name": "gpt", **small},
        "vit_vqgan": {"name": "gpt", "tables": "separate", **small},
        "rq_vae": {"name": "rqtransformer", "head_layers": 2, **small, "layers": 2},
        "maskgit": {"name": "maskgit", **small},
    }


def coders(size: int) -> tuple[dict, dict, dict, dict]:
    """Return networks of factor 4, some 0.2 M parameters a pair; of factor 8 for RQ-VAE."""
    swin = {"name": "swin", "width": 64, "depths": (2,), "window": 4, "head_dim": 32}
    cnn = {
        "name": "cnn",
        "width": 32,
        "multipliers": (1, 1, 1),
        "blocks": 1,
        "attention": (4,),
        "z_width": 32,
    }
    vit = {
        "name": "vit",
        "size": size,
        "patch": 4,
        "width": 64,
        "layers": 2,
        "heads": 2,
        "head_dim": 32,
    }
    vit["mlp_width"] = 256
    return swin, cnn, vit, {**cnn, "multipliers": (1, 1, 1, 1), "attention": (8,)}


def tokenizer(encoder: dict, decoder: dict, quantizer: dict, **more: Any) -> ConfigDict:
    """Return a section config.tokenizer; more: its other keys."""
    return ConfigDict(
        {"encoder": dict(encoder), "decoder": dict(decoder), "quantizer": quantizer, **more}
    )


def stage1(tokenizer: ConfigDict, size: int, data: str) -> ConfigDict:
    """Return the training of a tokenizer: L2 alone. data: of DATA."""
    config = common.stage1((2,), size)
    config.tokenizer, config.dtype = tokenizer, "float32"
    config.batch_size, config.duration = 32, "200 steps" if data == "digits" else "400 steps"
    return on_data(config, 2e-3, "20 steps", data)


def stage2(generator: dict, size: int, data: str) -> ConfigDict:
    """Return the training of a generator, conditional on the class. data: of DATA."""
    config = common.stage2("", size)
    config.generator = {**generator, "classes": CLASSES[data]}
    # Of ours two blocks an image: 76 tokens pass each layer, of the others 64 and their classes.
    config.loss = {"targets": 2} if generator["name"] == "multigrained" else {}
    config.sample, config.dtype = {}, "float32"
    config.batch_size, config.duration = 32, "500 steps"
    if data == "drawings":  # four times as many pixels
        config.batch_size, config.duration = 16, "600 steps"
    config.optimizer.moment_dtype = "float32"
    return on_data(config, 2e-3, "50 steps", data)


def on_data(config: ConfigDict, rate: float, warmup: str, data: str) -> ConfigDict:
    """Set data, learning rate and how often a run says what, and return the config."""
    config.dataset.update(DATA[data])
    config.optimizer.update(
        {"learning_rate": rate, "warmup": warmup, "decay": "cosine", "ema": 0.99}
    )
    return common.cadence(config, "50 steps", "1000 steps", "1000 steps")
