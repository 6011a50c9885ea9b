"""python -m evqgan.main --config=FILE[:variant] --workdir=DIR [--mode=train|sample|edit|evaluate] [--config.key=value]

train     stage 1 or 2 as the config says, or the quickstart; the same workdir again goes on where it stopped
sample    --num=64 --labels=3,5|cat --seed=0 --out=DIR           samples.npz, grid.png, one PNG an image
edit      --image=FILE and one of --mask=FILE (white = anew), --box=left,top,right,bottom and
          --outpaint=left,top,right,bottom (pixels); --label= --num=   edit_000.png ..., masked.png, strip.png
evaluate  --metrics=reconstruction,...                           evaluation.json
In sample, edit and evaluate the config is read from the workdir, a tokenizer's, a generator's or a quickstart's.
"""

import os
import pathlib
import sys
import traceback

from absl import flags, logging
from ml_collections import config_dict, config_flags

from evqgan.core.errors import InputError

MODES = ("train", "sample", "edit", "evaluate")
WORKDIR = flags.DEFINE_string("workdir", None, "where a run keeps everything it makes")
MODE = flags.DEFINE_enum("mode", "train", MODES, "what to do")
NUM = flags.DEFINE_integer("num", None, "sample: how many images (64); edit: how many results (4)", lower_bound=1)
LABELS = flags.DEFINE_list("labels", [], "sample: classes by number or name, in turn (default: all)")
LABEL = flags.DEFINE_string("label", None, "edit: the class by number or name")
SEED = flags.DEFINE_integer("seed", 0, "sample, edit: the random seed", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "where results go (default: inside the workdir)")
IMAGE = flags.DEFINE_string("image", None, "edit: the picture")
MASK = flags.DEFINE_string("mask", None, "edit: a picture, white where the image is made anew")
BOX = flags.DEFINE_list("box", None, "edit: left,top,right,bottom of what is made anew")
OUTPAINT = flags.DEFINE_list("outpaint", None, "edit: how far the image grows at the left,top,right,bottom")
METRICS = flags.DEFINE_list("metrics", [], "evaluate: which of the config's evaluators (default: all)")
DEBUG = flags.DEFINE_boolean("debug", False, "show tracebacks")


def parse(argv):
    """absl's parser, with --config from the file named or, in other modes than train, from the workdir."""
    flags.FLAGS.unparse_flags()
    given = [a for a in argv[1:] if a == "--config" or a.startswith("--config=")]
    if given:
        config_flags.DEFINE_config_file("config", lock_config=True)
    else:
        workdir = next((a.split("=", 1)[1] for a in argv[1:] if a.startswith("--workdir=")), None)
        if any(a.startswith("--mode=") and a != "--mode=train" for a in argv[1:]) and workdir:
            from evqgan.sample import read_config

            config_flags.DEFINE_config_dict("config", read_config(workdir)[0], lock_config=True)
        else:
            config_flags.DEFINE_config_dict("config", config_dict.ConfigDict(), lock_config=True)
    try:
        rest = flags.FLAGS(argv)
    except InputError:
        raise
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError, ImportError, SyntaxError) as error:
        raise InputError(" ".join(str(error).strip('"').split())) from error
    if rest[1:]:
        raise InputError(f"expected flags as --name=value, got {rest[1]!r}")
    if not WORKDIR.value:
        raise InputError("--workdir=DIR is needed: where the run keeps everything it makes")
    if not given and MODE.value == "train":
        raise InputError("--config=FILE is needed to train, such as --config=configs/quickstart.py")
    return rest


def run(config):
    """One mode, done."""
    import jax

    if os.environ.get("EVQGAN_DISTRIBUTED") == "1":
        jax.distributed.initialize()
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/evqgan/jax"))
    jax.config.update("jax_compilation_cache_dir", cache)
    logging.set_verbosity(logging.INFO)
    workdir = pathlib.Path(WORKDIR.value)
    if MODE.value == "train":
        from evqgan import quickstart, train

        runner = quickstart.run if config.stage == "quickstart" else train.train
        runner(config, workdir)
        return
    from evqgan import commands

    given = {"config": config, "workdir": workdir, "out": OUT.value and pathlib.Path(OUT.value)}
    if MODE.value == "sample":
        commands.sample(**given, num=NUM.value or 64, labels=LABELS.value, seed=SEED.value)
    elif MODE.value == "edit":
        where = {"mask": MASK.value, "box": BOX.value, "outpaint": OUTPAINT.value}
        commands.edit(**given, image=IMAGE.value, **where, label=LABEL.value, num=NUM.value or 4, seed=SEED.value)
    else:
        commands.evaluate(**given, metrics=METRICS.value)


def main():
    """Runs the command line; what a user can mend ends in one line and exit code 2."""
    from evqgan.core.log import NonFinite

    try:
        parse(sys.argv)
        run(flags.FLAGS.config)
    except (InputError, NonFinite) as error:
        if DEBUG.present and DEBUG.value:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)


if __name__ == "__main__":
    main()
