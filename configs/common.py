"""What the experiments share. A config file holds only how it differs from these.

Hours in the heads of full-size configs are estimates, nothing was timed: images x TFLOP an image /
(devices x peak x MFU). TFLOP: all products of one training step, all terms of the loss. Peaks in
bfloat16: 197 TFLOP/s of a v5e, 990 of an H100. MFU of tokenizers on a v5e: by its compiler's
estimate for each (docs/fits.md), 7 to 21 %, and for paper16 and paper128 as for the default; of
encoding images for a generator, which stored ids save (config.dataset.codes), 15 %. Of both on an
H100 18 % (an H200 took 19 % with L2 and LPIPS, docs/results.md). Of generators: 41 % of a v5e, with
:512 28 and with :1024 21 % (docs/fits.md), and 28 % of an H100, 24 with :512 and :1024, which take
a block at a time (an H200, docs/results.md). With one or two images a device it is less.
"""

from collections.abc import Collection

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Batches by two readings of "batch size of 16 in 8 A100" (paper, Sec. 4.1): 16 in all, or on each.
READINGS = {"paper16": 16, "paper128": 128}

# Adam of ViT-VQGAN's tokenizer (its appendix); averaged weights of MaskGIT's.
TOKENIZER_ADAM = {
    "learning_rate": 1e-4,
    "b1": 0.9,
    "b2": 0.99,
    "weight_decay": 1e-4,
    "warmup": "5000 steps",
    "clip": 1.0,
    "ema": 0.999,
}
# MaskGIT's configuration; the first moment as in "Scaling Vision Transformers" (Zhai et al., 2022).
# Ours: the clipping, and slower averages (MaskGIT: 0.999).
GENERATOR_ADAM = {
    "learning_rate": 1e-4,
    "b1": 0.9,
    "b2": 0.96,
    "weight_decay": 0.045,
    "warmup": "5000 steps",
    "clip": 1.0,
    "ema": 0.9999,
    "moment_dtype": "bfloat16",
}
# T: paper, Sec. 4.2; the rest as MaskGIT samples: the paper does not say.
SAMPLER = {"steps": 8, "temperature": 1.0, "choice_temperature": 4.5, "schedule": "cosine"}
# Codes as moving averages with revival (ours; decay: RQ-VAE; the paper has VQGAN's, by gradient).
# Held-out PSNR and perplexity of photos_stage1.py:small with 1024 codes (400 steps of 32, Swin, two
# or three seeds), all revived at a tenth of the average use: as here 27.8 +- 0.4 dB, 104; by
# gradient 27.6 +- 0.4, 115; narrow codes (width 32) as averages 28.2 +- 0.8, 110, l2-normalized by
# gradient 28.1 +- 0.8, 117, as averages 27.3 +- 0.7, 87; MaskGIT's entropy term 23.4, 68 (one
# seed). Seeds differ more than all but the last two do. With dense layers for coders (500 steps of
# 1,024 vectors, two seeds) averages had 27.90 +- 0.04 dB, 188, the gradient 27.51 +- 0.03, 145.
# Revived at a hundredth, a code nobody chooses is dead for 458 steps: after 300, 1.4 % of them were
# in use.
EMA = {"name": "ema", "width": 256, "decay": 0.99, "revive": 0.1}
# FFHQ's own division. VQGAN and RQ-VAE divide it otherwise, by lists of names (docs/data.md).
FACES = {
    "folder": "data/ffhq",
    "label_key": "",
    "train": "sorted[:60000]",
    "validation": "sorted[60000:]",
}
# What `tiny` makes of an experiment, by the names of modules.
TINY_CODERS = {
    "swin": {"width": 16, "head_dim": 8},
    "vit": {"width": 32, "layers": 2, "heads": 2, "head_dim": 16, "mlp_width": 64},
    "cnn": {"width": 32, "blocks": 1},
}
TINY_GENERATORS = {"multigrained": {"code_width": 8}, "rqtransformer": {"head_layers": 1}}
GENERATED = {"name": "generated", "num_examples": 16, "train": "train", "validation": "train"}


def stage1(
    depths: tuple[int, ...], size: int, codes: int = 1024, width: int = 128, window: int = 8
) -> ConfigDict:
    """Return the config of a Swin tokenizer; f = 2 * 2 ** len(depths).

    1024 codes: paper, Sec. 4.1; width: Swin-B (the paper gives none).
    """
    swin = {"name": "swin", "width": width, "depths": depths, "window": window}
    config = ConfigDict()
    config.stage = "stage1"
    config.seed = 0
    config.dtype = "bfloat16"
    # MaskGIT's tokenizer: 1 M steps of 256 on ImageNet.
    config.batch_size, config.duration = 256, "200 epochs"
    config.dataset = {"size": size}
    quantizer = {**EMA, "codes": codes}
    config.tokenizer = {"encoder": swin, "decoder": dict(swin), "quantizer": quantizer}
    config.optimizer = dict(TOKENIZER_ADAM)
    config.loss = {}  # L2 alone
    config.evals = {"reconstruction": {}}
    config.best = "val/mse"  # where there is no critic, see `with_critic`
    # Ours: half of the best so far.
    config.alarm = {"val/codebook_usage": 0.5, "val/codebook_perplexity": 0.5}
    cadence(config, "100 steps", "1 epoch", "5000 steps")
    return config


def with_critic(config: ConfigDict, distance: str = "lpips", weights: str = "") -> ConfigDict:
    """Add the perceptual and the adversarial term (paper, Eq. 1) to a stage 1, and return it.

    distance: the perceptual one, a module of evqgan/losses: the paper's LPIPS, or
      "efficientnet_distance", which needs no other network than Projected GAN's critic does.
    weights: of the frozen networks; "" = the cache, where `python -m evqgan.convert` puts them;
      "random" = untrained.
    """
    config.perceptual = {"distance": {"name": distance}, "weights": weights}
    config.adversarial = {
        "critic": {"name": "projected"},
        "weights": weights,
        "factor": 1.0,
        # Ours: the paper gives no start. VQGAN+ waits for 1.5 % of its steps, VQGAN for the first
        # 30,001 (of faces).
        "start": "5%",
        "ramp": "5%",
        # Projected GAN's, with its FastGAN generator.
        "optimizer": {"learning_rate": 2e-4, "b1": 0.0, "b2": 0.99},
    }
    config.evals.reconstruction = {"perceptual": distance}
    # The critic makes val/mse worse.
    config.best = f"val/{distance}"
    if weights == "random":
        config.best += "_untrained"
    return config


def full_size(config: ConfigDict, evaluation: str) -> ConfigDict:
    """Set the training of a tokenizer of ours that is to be as good as it gets, and return it.

    Ours; the paper's own words are `as_published`. Its rFID 2.34 has not been reached by others at
    1024 codes and 16x16 tokens with 20 epochs of large batches: MaskGIT's tokenizer (2.28) saw 256
    M images, VQGAN+ (1.67) 1.35 M steps. So the length is MaskGIT's (`stage1`), and both rates fall
    to a tenth along a cosine, as VQGAN+'s do.
    evaluation: how often, a duration.
    """
    config.keep = 2  # the two latest checkpoints, in case one is damaged, beside the best
    # On a TPU, to keep what the layers compute takes longer than to compute it again, and heads of
    # 32, Swin Transformer's, fill a quarter of its lanes; the paper gives none. Together 0.65 of
    # the cycles of a step with L2 alone, and half the memory (docs/accelerators.md).
    for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
        coder.update({"remat": True, "head_dim": 64})
    for optimizer in (config.optimizer, config.adversarial.optimizer):
        optimizer.update({"decay": "cosine", "final": optimizer.learning_rate / 10})
    return cadence(config, "100 steps", evaluation, "5000 steps")


def as_published(config: ConfigDict, reading: str, epochs: int) -> ConfigDict:
    """Set the training in the words of the paper (Sec. 4.1): so many `epochs`; and return it.

    reading: one of `READINGS`, which gives the batch.
    paper16: 1.6 M steps on ImageNet. The rate is by VQGAN's rule, 4.5e-6 for each image of the
      batch.
    paper128: 200,000 steps. By that rule the rate would be 5.8e-4; we take 1e-4, as ViT-VQGAN and
      MaskGIT do for batches of 256.

    Rates are constant but for a warm-up, ours: the paper names neither. All else is as in
    `full_size`.
    """
    config.batch_size, config.duration = READINGS[reading], f"{epochs} epochs"
    config.eval_every = "1 epoch"
    rate = 4.5e-6 * 16 if reading == "paper16" else 1e-4
    config.optimizer.update({"learning_rate": rate, "warmup": "2%"})
    for optimizer in (config.optimizer, config.adversarial.optimizer):
        optimizer.update({"decay": "constant", "final": 0.0})
    return config


def stage2(tokenizer: str, size: int, classes: int | None = 0) -> ConfigDict:
    """Return the config of the multi-grained generator on the tokenizer of the workdir `tokenizer`.

    185 M parameters (paper, Table 6).
    classes: 0 is unconditional, None as many as the data have, of which there may be none.
    """
    config = ConfigDict()
    config.stage = "stage2"
    config.seed = 0
    config.dtype = "bfloat16"
    config.batch_size = 256  # MaskGIT (its Sec. 4.1); the paper does not say
    config.duration = "200 epochs"  # paper, Sec. 4.2
    config.dataset = {"size": size}
    config.tokenizer = {"weights": tokenizer, "model": {}}
    config.generator = {
        "name": "multigrained",
        "global_tokens": "ordered",
        "window": 8,
        "extend": 4,
        # Ours; the paper does not say, MaskGIT has 16. Heads of 128 channels fill the rows of a
        # TPU's units: its layer takes 0.4 times the cycles of one with 16 heads of 48.
        "heads": 6,
        # Ours: dropout of the residual branches, not of attention weights, too, as
        # in MaskGIT: a fused attention can then be used, without which a step takes 1.4 times as
        # long on a GPU (docs/results.md, "On a GPU").
        "attention_dropout": 0.0,
        # On an H200 a step of 128 images is no faster without it, and takes nine times the memory.
        "remat": True,
        "classes": placeholder(int) if classes is None else classes,
        # All target blocks at once: on an H200 17 % faster than one at a time. Of large images one
        # at a time, to save memory (Table 6).
        "chunk": 0 if size <= 256 else 1,
        # The paper does not say; "axes" where parameters would grow with the grid (Table 6).
        "positions": "grid" if size <= 256 else "axes",
        # Of classifier-free guidance (Ho and Salimans, 2022).
        "class_dropout": 0.0 if classes == 0 else 0.1,
    }
    # Eq. 2: all blocks of an image are predicted. Ours: a tenth of the images train edits, a
    # twentieth another order; more of them cost generation (docs/results.md, "Choices of
    # stage 2", where with masks = raster all images train generation in raster order).
    config.loss = {"masks": "matched", "targets": 0, "edits": 0.1, "wavefronts": 0.05}
    config.optimizer = dict(GENERATOR_ADAM)
    config.sample = dict(SAMPLER)
    config.evals = {"generation": {}}
    config.best = "val/cross_entropy"
    cadence(config, "100 steps", "1 epoch", "5000 steps")
    return config


def without_loop(config: ConfigDict) -> ConfigDict:
    """Compute no layer of the generator twice, with no loop over them, and return the config.

    On a TPU a training step then takes 0.7 to 0.85 of the time: nothing that layers keep for the
    backward pass is stacked. Of the paper's generator and MaskGIT's 32 images a device of 16 GiB
    fit, and it compiles longer (docs/accelerators.md).
    """
    config.generator.update({"remat": False, "unroll": 0})
    return config


def as_written(config: ConfigDict) -> ConfigDict:
    """Set the paper's text as it stands (Sec. 3.2 and 3.3), and return the config.

    That is one joint attention, masks of all tokens and of whole blocks; Eq. 2 over all blocks,
    with one-hot targets: as many supervised tokens an image as ours.
    """
    config.generator.update({"attention": "joint", "global_tokens": "masked", "class_dropout": 0.0})
    config.loss = {"masks": "paper", "targets": 0, "label_smoothing": 0.0}
    return config


def cadence(config: ConfigDict, log: str, evaluation: str, checkpoint: str) -> ConfigDict:
    """Set how often a run logs, evaluates and saves, as durations, and return the config."""
    config.log_every, config.eval_every, config.checkpoint_every = log, evaluation, checkpoint
    return config


def variant(name: str, allowed: Collection[str]) -> str:
    """Return `name` if it is one of `allowed`, "" or "tiny".

    Raises ValueError with what there is, if it is not.
    """
    if name not in ("", "tiny", *allowed):
        raise ValueError(
            f"there is no variant {name!r} of this config: "
            f"expected one of {', '.join([*allowed, 'tiny'])}"
        )
    return name


def tiny(config: ConfigDict, tokenizer: ConfigDict | None = None) -> ConfigDict:
    """Make an experiment small enough for a minute on a CPU, and return it.

    A few steps on generated images of the same shapes.
    tokenizer: the tiny config of a stage 2's tokenizer; without it, Swin's with f = 16 (paper,
      Sec. 4.2).
    """
    classes = config.generator.get("classes", 0) if "generator" in config else 0
    classes = 3 if classes is None else classes  # as many as the generated data have
    config.dataset = ConfigDict({**GENERATED, "size": config.dataset.size, "classes": classes})
    config.dtype = "float32"
    config.batch_size, config.duration = 2, "4 steps"
    shorter = {"warmup": "0 steps", "hold": "0 steps", "accumulate": 1}
    used = {key: value for key, value in shorter.items() if key in config.optimizer}
    config.optimizer.update(used)
    cadence(config, "1 step", "4 steps", "4 steps")
    if config.stage == "stage1":
        return tiny_tokenizer(config)
    return tiny_generator(config, tokenizer, classes)


def tiny_tokenizer(config: ConfigDict) -> ConfigDict:
    """Make the model of a stage 1 and its loss small, and return the config."""
    shrink(config.tokenizer)
    if "perceptual" not in config:
        return config
    # Untrained frozen networks: nothing to fetch.
    config.perceptual.weights = config.adversarial.weights = "random"
    # Projected GAN's critic, StyleGAN's, and LPIPS in evaluation, take more than a minute to
    # compile.
    critic = "blurpool" if config.adversarial.critic.name == "blurpool" else "patchgan"
    config.adversarial.critic = {"name": critic, "width": 8}
    config.adversarial.update({"start": "0 steps", "ramp": "2 steps", "r1": 0.0})
    if "optimizer" in config.adversarial:
        config.adversarial.optimizer.warmup = "0 steps"
    # VGG16 takes two seconds for a step at 256x256; what is no Swin takes longer to compile, too.
    largest = 128 if config.tokenizer.encoder.name == "swin" else 64
    config.dataset.size = min(config.dataset.size, largest)
    config.evals.reconstruction, config.best = ConfigDict(), "val/mse"
    for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
        if coder.name == "vit":
            coder.size = config.dataset.size
    return config


def tiny_generator(config: ConfigDict, tokenizer: ConfigDict | None, classes: int) -> ConfigDict:
    """Make the model of a stage 2 small, on an untrained tokenizer, and return the config.

    This shows that the machinery runs, nothing else. tokenizer: see `tiny`.
    """
    if tokenizer:
        model, config.dataset.size = tokenizer.tokenizer, tokenizer.dataset.size
    else:
        model = shrink(stage1((2, 2, 2), config.dataset.size).tokenizer)
    config.tokenizer.update({"weights": "random", "model": model})
    config.generator.update({"layers": 2, "width": 32, "heads": 2})
    config.generator.update(TINY_GENERATORS.get(config.generator.name, {}))
    if config.generator.name == "gpt" and classes:  # the classes are words of the same table
        resize(config.tokenizer.model.quantizer, 1024, 8)
    config.evals.generation = ConfigDict({"show": 2})
    return config


def shrink(tokenizer: ConfigDict) -> ConfigDict:
    """Make a tokenizer's config one of few narrow blocks a stage, and return it."""
    for coder in (tokenizer.encoder, tokenizer.decoder):
        if "depths" in coder:  # as many stages as before, as they decide the factor
            coder.depths = (2,) * len(coder.depths)
        coder.update(TINY_CODERS[coder.name])
        if coder.name == "cnn":
            levels = len(coder.get("multipliers", (1, 1, 2, 2, 4)))
            coder.update({"multipliers": (1,) * levels})
            coder.z_width = min(coder.get("z_width", 256), 8)
    resize(tokenizer.quantizer, 64, 8)
    return tokenizer


def resize(quantizer: ConfigDict, codes: int, width: int) -> None:
    """Set a quantizer's config to `codes` codes, in whichever keys decide how many there are.

    A key that the config does not have is not added.
    codes: a power of 4.
    width: the length of a code's vector, of quantizers that have it as a key.
    """
    bits = codes.bit_length() - 1
    # FSQ has levels for each channel, LFQ a bit for each; others have a codebook.
    small = {"codes": codes, "width": width, "levels": (4,) * (bits // 2), "bits": bits}
    for key, value in small.items():
        if isinstance(quantizer.get(key), type(value)):
            quantizer[key] = value
