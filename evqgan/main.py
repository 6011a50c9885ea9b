"""python -m evqgan.main --config=FILE[:variant] --workdir=DIR [--mode=MODE] [--config.key=value]; the modes:

train     stage 1 or 2 as the config says, or the quickstart; the same workdir again goes on where it stopped
encode    --workdir=TOKENIZER --views=1 --seed=0 --out=DIR       stored ids of config.dataset, the same again goes on;
                                                                 train a generator with --config.dataset.codes=DIR
sample    --num=64 --labels=3,5|cat --seed=0 --out=DIR           samples.npz, grid.png, images/ of PNGs;
                                                                 stopped, the same again goes on
          --steps_strip                                          steps.png: images being filled block by block
          --acceptance=0.5 --classifier=resnet101|module:function --classifier_weights=DIR
                                                                 the best of more
edit      --image=FILE and one of --mask=FILE (white = anew), --box=left,top,right,bottom and
          --outpaint=left,top,right,bottom (pixels); --margin=TOKENS --feather=PIXELS
          --label= --num= --seed= --out=
                                                                 edit_000.png ..., masked.png, strip.png
reconstruct  --image=FILE|FOLDER --out=DIR                       input | reconstruction, a PNG a picture
evaluate  --metrics=reconstruction,...                           evaluation.json

--force begins what takes so much work that it is taken for a slip, such as --views=1000000000.

The config may be left out where the workdir has it: a tokenizer's or a generator's, and in all modes but train a
quickstart's. Without --workdir it is workdirs/ and the config's name: workdirs/quickstart, workdirs/quickstart_tiny.
"""

import functools
import os
import pathlib
import re
import sys
import traceback

from absl import flags, logging

from evqgan.core.build import nearest
from evqgan.core.config_files import OVERRIDE, default_workdir, of_workdir, override, read_file
from evqgan.core.errors import InputError

MODES = ("train", "encode", "sample", "edit", "reconstruct", "evaluate")
HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")


def definitions():
    """The flags -> absl FlagValues; those of the config's keys, --config.key=value, come with the config.

    A help text that begins with modes and a colon is of a flag of these modes alone.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    text, whole, several = (
        functools.partial(define, flag_values=values)
        for define in (flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_list)
    )
    text("config", None, "FILE[:variant] of an experiment, or its name in configs/; --config.key=value changes a key")
    text("workdir", None, "where a run keeps everything it makes")
    flags.DEFINE_enum("mode", "train", MODES, "what to do", flag_values=values)
    whole("num", None, "sample, edit: how many images (64) or results (4)", lower_bound=1)
    whole("views", 1, "encode: how many random crops and flips of each training image", lower_bound=1)
    several("labels", [], "sample: classes by number or name, in turn (default: all)")
    text("label", None, "edit: the class by number or name")
    whole("seed", 0, "encode, sample, edit: the random seed", lower_bound=0, upper_bound=2**63 - 1)
    whole("batch_size", None, "encode, sample, edit, reconstruct, evaluate: images a device at a time", lower_bound=1)
    flags.DEFINE_boolean("steps_strip", False, "sample: also draw how images are filled", flag_values=values)
    share = {"lower_bound": 0.0, "upper_bound": 1.0, "flag_values": values}
    flags.DEFINE_float("acceptance", 1.0, "sample: which share of candidates to keep, the best", **share)
    text("classifier", None, "sample: what judges candidates, resnet101 (default), resnet50 or package.module:function")
    text("classifier_weights", "", "sample: where its weights lie (default: ~/.cache/evqgan/weights), or random")
    text("out", None, "encode, sample, edit, reconstruct: where results go (default: inside the workdir)")
    text("image", None, "edit, reconstruct: a picture; reconstruct: or a folder of them")
    text("mask", None, "edit: a picture, white where the image is made anew")
    several("box", None, "edit: left,top,right,bottom of what is made anew")
    several("outpaint", None, "edit: how far the image grows at the left,top,right,bottom")
    whole("margin", None, "edit: tokens made anew too around the hidden ones (1; on small grids 0)", lower_bound=0)
    whole("feather", None, "edit: over how many known pixels a result fades in (half a token)", lower_bound=0)
    several("metrics", [], "evaluate: which evaluators (default: all of the config's, and samples if there are any)")
    flags.DEFINE_boolean("force", False, "encode, sample, edit: begin even what may take weeks", flag_values=values)
    flags.DEFINE_boolean("debug", False, "show tracebacks", flag_values=values)
    return values


def parse(argv):
    """argv as of sys -> FlagValues (workdir filled in), config; InputError for all that is wrong with them."""
    values = definitions()
    try:
        rest = values(argv, known_only=True)[1:]
    except flags.IllegalFlagValueError as error:
        name, given, reason = re.match(r"flag --(\w+)=(.*?): (.*)", str(error), re.DOTALL).groups()
        kind = getattr(values[name].parser, "syntactic_help", "")
        raise InputError(f"--{name}={given}: {f'expected {kind}' if kind else reason}") from error
    except flags.Error as error:
        raise InputError(f"{error}; see --help") from error
    for arg in rest:
        if re.match(r"--?[A-Za-z]", arg) and not OVERRIDE.match(arg):
            name = arg.lstrip("-").split("=")[0]
            raise InputError(f"there is no flag --{name}: {nearest(f'--{name}', [f'--{other}' for other in values])}")
    for name in values:
        of = re.match(r"[a-z, ]+(?=: )", values[name].help or "")
        if of and values[name].present and values.mode not in of[0].split(", "):
            raise InputError(
                f"--{name} is a flag of --mode={of[0].replace(', ', ' and ')}, not of --mode={values.mode}"
            )
    if values.config is not None:
        config = read_file(values.config)
    elif values.mode == "train" and not (values.workdir and (pathlib.Path(values.workdir) / "config.json").is_file()):
        raise InputError("--config=FILE is needed to train, such as --config=configs/quickstart.py; see --help")
    elif not values.workdir:
        raise InputError(f"--workdir=DIR is needed to {values.mode}: the workdir of a training run")
    else:
        from evqgan.inference.token_cache import tokenizer_config

        config, _ = (tokenizer_config if values.mode == "encode" else of_workdir)(values.workdir)
    override(config, rest)
    for name in ("workdir", "out", "image", "mask", "classifier_weights"):
        if values[name].value:
            values[name].value = os.path.expanduser(values[name].value)
    if not values.workdir:  # what encodes for a generator is its tokenizer
        weights = config.get("tokenizer", {}).get("weights") if values.mode == "encode" else None
        values.workdir = weights or default_workdir(values.config)
    return values, config


def run(values, config):
    """One mode, done."""
    import jax

    flags.FLAGS.mark_as_parsed()  # libraries with absl flags of their own look at them
    logging.set_verbosity(logging.WARNING)
    if not values.debug:  # orbax logs the traceback of what it also raises
        logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/evqgan/jax"))
    jax.config.update("jax_compilation_cache_dir", cache)
    devices(jax)
    alike(values, config)
    workdir = pathlib.Path(values.workdir)
    if values.mode == "train":
        from evqgan import quickstart
        from evqgan.training import loop

        runner = quickstart.run if config.stage == "quickstart" else loop.train
        runner(config, workdir)
        return
    if values.mode == "encode":
        from evqgan.inference import token_cache

        token_cache.encode(config, workdir, values.out, values.views, values.seed, values.batch_size, values.force)
        return
    from evqgan.inference import commands, evaluation

    if values.config is not None:
        from evqgan.training import claims

        config = claims.settings(config, workdir)
    given = {"config": config, "workdir": workdir, "out": values.out and pathlib.Path(values.out)}
    rows = {} if values.batch_size is None else {"batch_size": values.batch_size}
    if values.mode == "sample":
        names = ("acceptance", "classifier", "classifier_weights", "steps_strip", "force")
        choice = {key: values[key].value for key in names}
        commands.sample(**given, **rows, num=values.num or 64, labels=values.labels, seed=values.seed, **choice)
    elif values.mode == "edit":
        where = {"mask": values.mask, "box": values.box, "outpaint": values.outpaint}
        what = {"image": values.image, "label": values.label, "num": values.num or 4, "seed": values.seed}
        how = {key: values[key].value for key in ("margin", "feather", "force") if values[key].present}
        commands.edit(**given, **rows, **where, **what, **how)
    elif values.mode == "reconstruct":
        commands.reconstruct(**given, **rows, image=values.image)
    else:
        evaluation.evaluate(**given, **rows, metrics=values.metrics)


def devices(jax):
    """Starts JAX; InputError when the devices (JAX_PLATFORMS) or processes (EVQGAN_DISTRIBUTED) wanted are absent."""
    try:
        if os.environ.get("EVQGAN_DISTRIBUTED") == "1":
            from evqgan.core import cluster

            cluster.start()
        jax.devices()
    except (RuntimeError, ValueError, AssertionError) as error:  # an assertion: this JAX was built without the platform
        asked = [f"{k}={os.environ[k]}" for k in ("JAX_PLATFORMS", "EVQGAN_DISTRIBUTED") if os.environ.get(k)]
        reason = (str(error).splitlines() or ["there is no such device, or JAX is installed without support for it"])[0]
        raise InputError(f"JAX cannot start{' with ' if asked else ''}{' '.join(asked)}: {reason}") from error


def alike(values, config):
    """InputError in all processes of a run unless they were started with the same flags, config and code."""
    from evqgan.core import cluster, versions

    if cluster.several():  # how training sees one workdir by several paths: `cluster.check_shared`
        apart = ("config", "debug", *(["workdir"] if values.mode == "train" else []))
        given = {name: values[name].value for name in values if name not in apart}
        cluster.check_alike(command_line=sorted(given.items()), config=config.to_json(), code=versions.code())


def main(argv=None):
    """Runs the command line -> exit code. What a user can mend ends in one line and code 2; defects are raised.

    A process of several that fails ends here at once, and the others soon after it (`cluster.leave`).
    """
    argv = sys.argv if argv is None else argv
    if any(arg in HELP for arg in argv):
        values = definitions()
        print(__doc__ + "".join(f"\n  --{name:9s} {values[name].help}" for name in values))
        return 0
    from evqgan.core import cluster

    try:
        run(*parse(argv))
        return 0
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is saved", file=sys.stderr)
        code = 130  # as the shell reports a SIGINT
    except Exception as error:
        code = say(error, any(arg.lstrip("-").startswith("debug") for arg in argv))
    cluster.leave(code)
    return code


def say(error, debug):
    """Prints what ended a run in one line -> exit code; a defect is raised, or of one process of several printed."""
    from evqgan.core import cluster
    from evqgan.core.log import NonFinite

    reason = " ".join(str(error).split())
    if lost := cluster.lost(error):
        reason = f"another process of this run has ended or cannot be reached: start all again ({reason[:300]})"
    elif not isinstance(error, (InputError, NonFinite, OSError)):
        if not cluster.several():
            raise error
        traceback.print_exception(error)
        return 1
    if debug:
        traceback.print_exception(error)
    print(f"error: {reason}", file=sys.stderr)
    return 1 if lost or isinstance(error, NonFinite) else 2


if __name__ == "__main__":
    sys.exit(main())
