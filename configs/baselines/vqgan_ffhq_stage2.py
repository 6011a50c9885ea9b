"""VQGAN's GPT of faces (Esser et al., 2021; the FacesHQ configuration of taming-transformers).

Paper, Tables 4 and 7.

python -m evqgan.main --config=configs/baselines/vqgan_ffhq_stage2.py \
  --workdir=workdirs/vqgan_ffhq_stage2 \
  --config.dataset.folder=FOLDER

Needs the tokenizer of configs/baselines/vqgan_ffhq_stage1.py. It is told where each token lies, so
that it slides over larger images, too. Table 7's other half: configs/ffhq_stage2.py:vqgan.
Published: gFID 9.6 (of a later, larger model).   Ours: not trained yet.
:1024  1024x1024, 64x64 tokens, of which it sees 16x16 at a time.
:tiny  a few steps on generated images.
Hours and hardware: not published. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.baselines import common as baselines
from configs.baselines import vqgan_ffhq_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "1024" or "tiny"."""
    common.variant(variant, ["1024"])
    generator = {
        "name": "gpt",
        "layers": 24,
        "width": 1024,
        "heads": 16,
        "dropout": 0.0,
        "condition": "coordinates",
        "positions": 512,
    }
    config = baselines.stage2("vqgan_ffhq_stage1", generator, {**common.FACES, "flip": False})
    if variant == "1024":
        config.dataset.size, config.generator.window = 1024, (16, 16)
    # Ours: its yaml says 2 on each GPU, and no duration.
    config.batch_size, config.duration = 16, "200 epochs"
    rate = 4.5e-6 * config.batch_size  # its rule; the rest: its code
    baselines.optimizer(config, learning_rate=rate, b1=0.9, b2=0.95, weight_decay=0.01, ema=0.0)
    config.sample = {"temperature": 1.0, "top_k": 250}  # its sampling script
    config = common.without_loop(config)
    if variant == "tiny":
        return common.tiny(config, vqgan_ffhq_stage1.get_config("tiny"))
    return config
