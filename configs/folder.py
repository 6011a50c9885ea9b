"""Your own images in one go: both stages, samples, reconstructions, edits and their numbers.

bash launch/local.sh --config=configs/folder.py --config.dataset.folder=FOLDER

The folder is looked through first; size, tokens, models, batches and durations are proposed for it
and for the device, and kept in the workdir (docs/own_images.md). Whatever is None here is proposed,
and can be given instead. These keys are of both stages; factor and critic are the tokenizer's.
batch_size, duration, seed, checkpoint_every and init can be given for one stage alone, as
--config.generator.duration="4000 steps"; the learning rate of one is
--config.generator.optimizer.learning_rate:
  dataset.folder, dataset.size, ...   which images, and how large
  factor      f: the pixels of a token's side, 4, 8 or 16
  critic      whether the tokenizer learns by a perceptual and an adversarial term, too
  batch_size, duration, learning_rate, seed, checkpoint_every
  init        a workdir, an exported model, or the name of one that ships: fine-tune that model
:tiny  a few steps on generated images.
Expected: depends on the images.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import common, quickstart


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "" or "tiny"."""
    common.variant(variant, [])
    if variant == "tiny":
        return quickstart.get_config("tiny")
    config = ConfigDict({"stage": "quickstart", "samples": 256})
    config.dataset = {"folder": "", "size": placeholder(object)}
    config.factor, config.batch_size = placeholder(int), placeholder(int)
    config.critic, config.changed_data = placeholder(bool), placeholder(bool)
    config.duration, config.init = placeholder(str), placeholder(str)
    config.learning_rate, config.seed = placeholder(float), placeholder(int)
    config.checkpoint_every = placeholder(str)
    config.tokenizer, config.generator = tokenizer(), generator()
    return config


def proposed(config: ConfigDict) -> ConfigDict:
    """Leave to the proposal what both stages have, and return the config."""
    config.dtype, config.duration = placeholder(str), placeholder(str)
    config.batch_size, config.seed = placeholder(int), placeholder(int)
    config.dataset = {"size": placeholder(object)}
    config.optimizer.learning_rate = placeholder(float)
    config.optimizer.ema = placeholder(float)
    config.optimizer.update({"warmup": "5%", "decay": "cosine"})
    config.keep = 2
    return common.cadence(config, "50 steps", "25%", placeholder(str))


def tokenizer() -> ConfigDict:
    """Return stage 1: a Swin tokenizer of proposed size, with its critic."""
    config = proposed(common.with_critic(common.stage1((2,), 64), "efficientnet_distance"))
    for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
        coder.width, coder.window = placeholder(int), placeholder(int)
        coder.depths = placeholder(tuple)
    for key, kind in {"codes": int, "width": int, "decay": float}.items():
        config.tokenizer.quantizer[key] = placeholder(kind)
    config.adversarial.update({"start": "30%", "ramp": "10%"})  # first something to judge
    return config


def generator() -> ConfigDict:
    """Return stage 2: by class where the folder has classes."""
    config = proposed(common.stage2("", 64, classes=None))
    for key in ("window", "extend", "layers", "width", "heads"):
        config.generator[key] = placeholder(int)
    config.generator.dropout = placeholder(float)
    config.generator.update({"code_width": 32, "remat": False})
    config.loss.targets = placeholder(int)
    config.optimizer.moment_dtype = "float32"
    return config
