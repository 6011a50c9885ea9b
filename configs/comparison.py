"""The compared systems, small: both stages of each in minutes on a CPU, for `python -m evqgan.benchmark comparison`.

python -m evqgan.benchmark comparison --config=configs/comparison.py:digits --out=workdirs/comparison

Equal for all: data, steps, batches, tokens a step, rates, the L2 loss, about 0.25 and 0.85 million parameters,
codebooks as moving averages with revival, 64 codes an image. Their own: networks, shape of the codes, sampling.
:digits       scikit-learn's, 32x32, 64 codes; 8x8 tokens, of RQ-VAE 4x4 of four codes.
:photographs  32x32 pieces of nine photographs, more steps for the tokenizers; all else as above.
:tiny         a few steps on generated images.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("digits", "photographs")


def get_config(variant="digits"):
    """The config of `variant`: "digits", "photographs" or "tiny"; "" is "digits"."""
    common.variant(variant, VARIANTS)
    photographs = variant == "photographs"
    size, codes = 32, 64
    swin, cnn, vit, rq = coders(size)
    bare = {"attention": (), "middle": 1, "middle_attention": False, "z_width": 0, "bias": False}
    bare |= {"shortcut_of_output": True}
    quantizer = {"name": "ema", "codes": codes, "width": 16, "decay": 0.9, "revive": 0.1}
    tokenizers = {
        "efficient_vqgan": tokenizer(swin, swin, quantizer),
        "vqgan": tokenizer(cnn, cnn, {**quantizer, "commitment": 1.0}),
        "vit_vqgan": tokenizer(vit, vit, {**quantizer, "l2_normalize": True}, pixels="unit"),
        "rq_vae": tokenizer(rq, rq, {**quantizer, "name": "residual", "depth": 4}),
        "maskgit": tokenizer({**cnn, **bare, "down": "pool"}, {**cnn, **bare}, quantizer, pixels="unit"),
    }
    small = {"layers": 4, "width": 128, "heads": 4, "dropout": 0.0}
    ours = {"name": "multigrained", "global_tokens": "ordered", "window": 4, "extend": 1, "code_width": 32}
    generators = {
        "efficient_vqgan": {**ours, **small},
        "vqgan": {"name": "gpt", **small},
        "vit_vqgan": {"name": "gpt", "tables": "separate", **small},
        "rq_vae": {"name": "rqtransformer", "head_layers": 2, **small, "layers": 2},
        "maskgit": {"name": "maskgit", **small},
    }
    config = ConfigDict({"stage": "comparison", "systems": {}})
    # The real images that samples are measured against: so many crops of each, and whether colours tell classes.
    config.real = {"views": 16, "colour": True} if photographs else {"views": 1, "colour": False}
    for name, keys in generators.items():
        config.systems[name] = {"tokenizer": tokenizers[name], "generator": keys}
    # Table 7 of the paper: ours and GPT on one tokenizer.
    config.systems.efficient_vqgan_on_vqgan = {
        "tokenizer_of": "vqgan", "tokenizer": tokenizers["vqgan"], "generator": generators["efficient_vqgan"],
    }
    for system in config.systems.values():
        system.tokenizer = stage1(system.tokenizer, size, photographs)
        system.generator = stage2(system.generator, size, photographs)
        if variant == "tiny":
            for part in (system.tokenizer, system.generator):
                part.dataset = {
                    "name": "generated", "size": size, "classes": 10, "num_examples": 64, "train": "train",
                    "validation": "train",
                }
                part.update({"batch_size": 4, "duration": "2 steps", "log_every": "1 step"})
                part.optimizer.warmup = "0 steps"
    return config


def coders(size):
    """Networks of factor 4 for images of `size`, each pair of some 0.2 M parameters; RQ-VAE's of factor 8."""
    swin = {"name": "swin", "width": 64, "depths": (2,), "window": 4, "head_dim": 32}
    cnn = {"name": "cnn", "width": 32, "multipliers": (1, 1, 1), "blocks": 1, "attention": (4,), "z_width": 32}
    vit = {"name": "vit", "size": size, "patch": 4, "width": 64, "layers": 2, "heads": 2, "head_dim": 32}
    vit["mlp_width"] = 256
    return swin, cnn, vit, {**cnn, "multipliers": (1, 1, 1, 1), "attention": (8,)}


def tokenizer(encoder, decoder, quantizer, **more):
    return ConfigDict({"encoder": dict(encoder), "decoder": dict(decoder), "quantizer": quantizer, **more})


def stage1(tokenizer, size, photographs):
    """Training of a tokenizer: L2 alone."""
    config = common.stage1((2,), size)
    config.tokenizer, config.dtype = tokenizer, "float32"
    config.batch_size, config.duration = 32, "400 steps" if photographs else "200 steps"
    return data(config, 2e-3, "20 steps", photographs)


def stage2(generator, size, photographs):
    """Training of a generator, conditional on the digit or the photograph."""
    config = common.stage2("", size)
    config.generator = {**generator, "classes": 9 if photographs else 10}
    # Of ours two blocks an image: 76 tokens pass each layer, of the others 64 and their classes.
    config.loss = {"targets": 2} if generator["name"] == "multigrained" else {}
    config.sample, config.dtype = {}, "float32"
    config.batch_size, config.duration = 32, "500 steps"
    config.optimizer.moment_dtype = "float32"
    return data(config, 2e-3, "50 steps", photographs)


def data(config, rate, warmup, photographs):
    if photographs:
        config.dataset.update({"name": "photographs", "crop": "native"})
    else:
        config.dataset.update({"name": "digits", "flip": False})
    config.optimizer.update({"learning_rate": rate, "warmup": warmup, "decay": "cosine", "ema": 0.99})
    return common.cadence(config, "50 steps", "1000 steps", "1000 steps")
