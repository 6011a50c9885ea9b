"""A tokenizer of your own images: a folder with a sub-folder for each class, or none.

python -m evqgan.main --config=configs/folder_stage1.py --workdir=workdirs/folder_stage1 \
  --config.dataset.folder=FOLDER

64x64, f = 8: 8x8 tokens, 256 codes, L2 alone: for a CPU. One image in ten is held out.
:128     128x128, f = 16: 8x8 tokens, 512 codes; for a CPU.
:256     256x256, f = 16: 16x16 tokens, 512 codes; for a CPU, and patience.
:gpu64   64x64, f = 4: 16x16 tokens, 1024 codes; all terms of the paper's loss, for one GPU.
:gpu128  128x128, f = 8: 16x16 tokens, likewise.
:gpu256  256x256, f = 16: 16x16 tokens, likewise. The GPU's variants look through VGG16, LPIPS and
         EfficientNet: get these first (docs/pretrained.md).
:tiny    a few steps on generated images.
Expected: depends on the images; not measured yet. Longer training, for more than some thousand
images, is --config.duration="20000 steps".
"""

from ml_collections import ConfigDict

from configs import common

DEPTHS = {
    "64": (2, 2),
    "128": (2, 2, 2),
    "256": (2, 2, 2),
    "gpu64": (2,),
    "gpu128": (2, 2),
    "gpu256": (2, 2, 2),
}


def chosen(variant: str) -> tuple[str, int, bool]:
    """Return what a variant of either stage is of: its name in DEPTHS, its size, if for a GPU."""
    known = [name for name in DEPTHS if name != "64"]
    name = common.variant(variant, known).replace("tiny", "") or "64"
    return name, int(name.removeprefix("gpu")), name.startswith("gpu")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "128", "256", "gpu64", "gpu128", "gpu256" or "tiny"."""
    name, size, gpu = chosen(variant)
    if gpu:
        config = common.with_critic(common.stage1(DEPTHS[name], size))
        config.batch_size, config.duration = 32, "60000 steps"  # ours: two million images
        for optimizer in (config.optimizer, config.adversarial.optimizer):
            optimizer.update({"decay": "cosine", "final": optimizer.learning_rate / 10})
        config.optimizer.warmup = "2000 steps"
        common.cadence(config, "100 steps", "2000 steps", "2000 steps")
    else:
        config = common.stage1(
            DEPTHS[name], size, codes=256 if size == 64 else 512, width=32, window=4
        )
        config.dtype, config.batch_size, config.duration = "float32", 16, "1000 steps"
        config.tokenizer.quantizer.update({"width": 16, "decay": 0.9})
        config.optimizer.update(
            {"learning_rate": 2e-3, "warmup": "50 steps", "decay": "cosine", "ema": 0.99}
        )
        common.cadence(config, "50 steps", "250 steps", "250 steps")
    config.keep = 2
    config.dataset.folder = "images"
    return common.tiny(config) if variant == "tiny" else config
