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
from ml_collections import ConfigDict, config_dict, config_flags

from evqgan.core.build import nearest
from evqgan.core.errors import InputError

# What holds the folder configs/ that comes with the code: the clone, or of an installed package a folder of its own.
PACKAGE = pathlib.Path(__file__).parent
SHIPPED = PACKAGE.parent if (PACKAGE.parent / "configs" / "quickstart.py").is_file() else PACKAGE / "shipped"
MODES = ("train", "encode", "sample", "edit", "reconstruct", "evaluate")
OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")  # as config_flags reads them; "no" is for booleans
OPTIONAL = ("alarm", "best", "changed_data", "eval_batch_size", "init", "init_optimizer", "keep", "mesh")  # of a stage
HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")


def definitions():
    """The flags -> absl FlagValues; those of the config's keys, --config.key=value, come with the config."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    text, whole, several = (
        functools.partial(define, flag_values=values)
        for define in (flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_list)
    )
    text("config", None, "FILE[:variant] of an experiment, or its name in configs/; --config.key=value changes a key")
    text("workdir", None, "where a run keeps everything it makes")
    flags.DEFINE_enum("mode", "train", MODES, "what to do", flag_values=values)
    whole("num", None, "sample: how many images (64); edit: how many results (4)", lower_bound=1)
    whole("views", 1, "encode: how many random crops and flips of each training image", lower_bound=1)
    several("labels", [], "sample: classes by number or name, in turn (default: all)")
    text("label", None, "edit: the class by number or name")
    whole("seed", 0, "encode, sample, edit: the random seed", lower_bound=0, upper_bound=2**63 - 1)
    whole("batch_size", None, "images a device at a time (64; evaluate: as the config says)", lower_bound=1)
    flags.DEFINE_boolean("steps_strip", False, "sample: also draw how images are filled", flag_values=values)
    share = {"lower_bound": 0.0, "upper_bound": 1.0, "flag_values": values}
    flags.DEFINE_float("acceptance", 1.0, "sample: which share of candidates to keep, the best", **share)
    text("classifier", None, "sample: what judges candidates, resnet101 (default), resnet50 or package.module:function")
    text("classifier_weights", "", "sample: where its weights lie (default: ~/.cache/evqgan/weights), or random")
    text("out", None, "where results go (default: inside the workdir)")
    text("image", None, "edit: the picture; reconstruct: a picture or a folder of them")
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
            raise InputError(f"there is no flag --{name}: {nearest(name, list(values))}")
    if values.config is not None:
        config = read_file(values.config)
    elif values.mode == "train" and not (values.workdir and (pathlib.Path(values.workdir) / "config.json").is_file()):
        raise InputError("--config=FILE is needed to train, such as --config=configs/quickstart.py; see --help")
    elif not values.workdir:
        raise InputError(f"--workdir=DIR is needed to {values.mode}: the workdir of a training run")
    else:
        from evqgan.encode import tokenizer_config
        from evqgan.sample import read_config

        config, _ = (tokenizer_config if values.mode == "encode" else read_config)(values.workdir)
    override(config, rest)
    for name in ("workdir", "out", "image", "mask", "classifier_weights"):
        if values[name].value:
            values[name].value = os.path.expanduser(values[name].value)
    if not values.workdir:  # what encodes for a generator is its tokenizer
        weights = config.get("tokenizer", {}).get("weights") if values.mode == "encode" else None
        values.workdir = weights or default_workdir(values.config)
    return values, config


def default_workdir(file):
    """configs/quickstart.py:tiny -> workdirs/quickstart_tiny."""
    path, _, variant = file.partition(":")
    return str(pathlib.Path("workdirs") / "_".join(filter(None, [pathlib.Path(path).stem, variant])))


def find(name):
    """The path of a config: a file, or one that comes with the code, by its path in the clone or by its name alone."""
    path = pathlib.Path(name).expanduser()
    places = (SHIPPED, SHIPPED / "configs", SHIPPED / "configs" / "baselines")
    for found in (path, *(place / other for place in places for other in (name, f"{name}.py"))):
        if found.is_file():
            return found
    there = [str(other) for other in sorted(path.parent.glob("*.py")) if other.stem != "common"]
    if path.parent == pathlib.Path(".") and path.suffix != ".py":
        there = sorted(other.stem for place in places[1:] for other in place.glob("*.py") if other.stem != "common")
    hint = nearest(path, there) if there else "expected the path of a file in configs/"
    raise InputError(f"there is no file {path}; {hint}")


def read_file(file):
    """FILE[:variant] -> its ConfigDict; InputError if there is none, or it raises. For FILE see `find`."""
    name, colon, variant = file.partition(":")
    try:
        path = find(name)
    except InputError as error:
        raise InputError(f"--config={file}: {error}") from error
    if str(SHIPPED) not in sys.path:
        sys.path.append(str(SHIPPED))  # configs import each other by that name
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["", f"--config={path}{colon}{variant}"])
        values(["", f"--config={path}{colon}{variant}"])
        config = values.config
        found = config is not None and "stage" in config and isinstance(config, ConfigDict)
    except Exception as error:  # whatever a user's file raises
        while error.__cause__ or error.__context__:  # absl and config_flags wrap it
            error = error.__cause__ or error.__context__
        reason = " ".join(str(error).split())
        if not isinstance(error, ValueError):
            lines = [f"line {x.lineno}, " for x in traceback.extract_tb(error.__traceback__) if x.filename == str(path)]
            reason = f"{''.join(lines[-1:])}{type(error).__name__}: {reason}"
        raise InputError(f"--config={file}: {reason}") from error
    if not found:
        raise InputError(f"--config={file}: expected its get_config() to return a ConfigDict with a stage")
    return config


def override(config, args):
    """Sets the keys of `config` that `args`, such as ["--config.seed=1", "--config.dtype", "bfloat16"], name.

    A section takes keys that its config does not mention: the constructor has their defaults, and names wrong ones.
    """
    keys = [found[1] for arg in args if (found := OVERRIDE.match(arg))]
    for key in keys:
        place(config, key)
    args = [arg for arg in args if not set_pair(config, arg)]
    before = {key: functools.reduce(lambda node, name: node[name], key.split("."), config) for key in keys}
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *args])
        extra = values(["", *args])[1:]
    except (flags.Error, TypeError, ValueError, KeyError, AttributeError) as error:
        wrong = re.match(r"flag --config\.(.*?)=(.*?): ", str(error), re.DOTALL)
        if not wrong or wrong[1] not in before:
            raise InputError(" ".join(str(error).split())) from error
        raise mistyped(wrong[1], before[wrong[1]], wrong[2]) from error
    for key, old in before.items():  # config_flags takes a tuple of anything
        new = functools.reduce(lambda node, name: node[name], key.split("."), config)
        if isinstance(old, tuple) and {type(x) for x in new} - {type(x) for x in old}:
            raise mistyped(key, old, new)
    replace_source(config, keys)
    if extra:
        raise InputError(f"expected flags as --name=value, got {extra[0]!r}")


def replace_source(config, keys):
    """A folder that the command line gives, by one of `keys`, takes the place of a config's data set, and it of one."""
    for key in keys:
        *sections, last = key.split(".")
        other = {"folder": "name", "name": "folder"}.get(last)
        if other and sections[-1:] == ["dataset"] and ".".join([*sections, other]) not in keys:
            node = functools.reduce(lambda node, name: node[name], sections, config)
            if node[last] and other in node:
                node[other] = ""


def set_pair(config, arg):
    """Sets a whole number to several, as in --config.dataset.size=32,48 -> whether `arg` is of this form."""
    found = re.fullmatch(r"--?config\.([\w.]+)=(\d+(?:,\d+)+)", arg)
    *sections, last = found[1].split(".") if found else [""]
    node = functools.reduce(lambda node, name: node[name], sections, config)
    if not found or not isinstance(node[last], int):
        return False
    with config.ignore_type():
        node[last] = tuple(map(int, found[2].split(",")))
    return True


def place(config, key):
    """Makes room in `config` for the dotted `key`; InputError if it can have none of that name."""
    *sections, last = key.split(".")
    node, where = config, "config"
    for i, name in enumerate([*sections, last]):
        stage = isinstance(node, ConfigDict) and "stage" in node and node.stage != "quickstart"
        known = {*node, *OPTIONAL} if stage else node
        if not isinstance(node, ConfigDict):
            raise InputError(f"--config.{key}: {where} is {node!r}, which has no keys")
        if name not in node:
            closed = "stage" in node or i < len(sections) or not name.isidentifier()
            if closed and (name not in OPTIONAL or not stage):
                raise InputError(f"{where} has no key {name!r}: {nearest(name, known)}")
            with config.unlocked():
                node[name] = ConfigDict() if i < len(sections) else config_dict.placeholder(object)
        node, where = node[name], f"{where}.{name}"


def mistyped(key, old, new):
    kind = "a dict" if isinstance(old, ConfigDict) else f"a value of type {type(old).__name__}, such as {old!r}"
    return InputError(f"--config.{key} expects {kind}, got {new!r}")


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
        from evqgan import quickstart, train

        runner = quickstart.run if config.stage == "quickstart" else train.train
        runner(config, workdir)
        return
    if values.mode == "encode":
        from evqgan import encode

        encode.encode(config, workdir, values.out, values.views, values.seed, values.batch_size, values.force)
        return
    from evqgan import commands, evaluate

    config = commands.settings(config, workdir) if values.config is not None else config
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
        evaluate.evaluate(**given, **rows, metrics=values.metrics)


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

    if cluster.several():
        given = {name: values[name].value for name in values if name not in ("config", "debug", "workdir")}
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
