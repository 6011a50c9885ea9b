"""A generator of your own images, by class where the folder has sub-folders.

python -m evqgan.main --config=configs/folder_stage2.py --workdir=workdirs/folder_stage2 \
  --config.dataset.folder=FOLDER

64x64, 8x8 tokens, blocks of 4x4, T = 8, for a CPU. On the tokenizer of configs/folder_stage1.py and
the same folder.
:128   128x128, 8x8 tokens; on configs/folder_stage1.py:128, in workdirs/folder_stage1_128.
:256   256x256, 16x16 tokens, blocks of 8x8; likewise on :256, in workdirs/folder_stage1_256.
:gpu64, :gpu128, :gpu256
       16x16 tokens, blocks of 8x8, for one GPU; likewise on :gpu64, :gpu128, :gpu256.
:tiny  a few steps on generated images.
Expected: depends on the images; not measured yet. Few images are learned by heart: compare
val/cross_entropy with the training loss; the checkpoint where it was lowest is kept, and
--mode=sample --step=best takes it.
"""

from ml_collections import ConfigDict

from configs import common, folder_stage1


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of `variant`: "", "128", "256", "gpu64", "gpu128", "gpu256" or "tiny"."""
    name, size, gpu = folder_stage1.chosen(variant)
    workdir = "workdirs/folder_stage1" + (f"_{name}" if name != "64" else "")
    config = common.stage2(workdir, size, classes=None)
    if gpu:
        config.generator.update({"layers": 12, "width": 512, "heads": 8, "remat": False})
        config.batch_size, config.duration = 64, "60000 steps"
        config.optimizer.update({"learning_rate": 3e-4, "warmup": "2000 steps", "decay": "cosine"})
        common.cadence(config, "100 steps", "2000 steps", "2000 steps")
    else:
        window = 8 if size == 256 else 4
        config.generator.update(
            {"window": window, "extend": window // 4, "layers": 4, "width": 128, "heads": 4}
        )
        config.generator.update({"code_width": 32, "remat": False, "chunk": 0})
        config.dtype, config.batch_size, config.duration = "float32", 32, "2000 steps"
        config.optimizer.update(
            {"learning_rate": 1e-3, "warmup": "100 steps", "decay": "cosine", "ema": 0.99}
        )
        config.optimizer.moment_dtype = "float32"
        # At equal compute, one block of each of many images teaches no less than all blocks of few
        # (docs/results.md, "Choices of stage 2").
        config.loss.targets = 1
        common.cadence(config, "50 steps", "500 steps", "500 steps")
    config.dataset.folder = "images"
    return common.tiny(config, folder_stage1.get_config("tiny")) if variant == "tiny" else config
