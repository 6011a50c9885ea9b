"""Run `python -m evqgan.main`, whose flags and help are in `evqgan.flags`."""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from evqgan import flags as table
from evqgan.aot import topology
from evqgan.core import (
    build,
    cli,
    config_files,
    exported,
    output,
    presets,
    quickstart_record,
    replacing,
    signals,
    stores,
)
from evqgan.core.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Run the command line, sys.argv by default, and return its exit code (`cli.main`)."""
    argv = sys.argv if argv is None else argv
    return cli.main(argv[1:], run, lambda: cli.describe(table.__doc__ or "", table.FLAGS))


def program() -> None:
    """Run the command line, and end the process with its exit code."""
    startup.begin()
    sys.exit(signals.leave(main()))


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    flags, config = cli.prepare(parse, argv)
    check_alike(flags, config)
    workdir = stores.path(flags.workdir)
    if flags.compile_only and flags.layout:
        from evqgan.aot import layout

        layout.run(config, flags.compile_only, flags.json or "")
    elif flags.compile_only:
        from evqgan.aot import compile_only

        size = flags.batch_size
        given = flags.compile_only, flags.mode, size, flags.tries or 0, flags.json or ""
        compile_only.run(config, *given)
    elif flags.mode == "train":
        with output.outlived():
            train(flags, config, workdir, keys_of(argv))
    else:
        use(flags, config, workdir)


def keys_of(argv: Sequence[str]) -> list[str]:
    """Return the keys of the config among arguments, as "--config.KEY=VALUE".

    A key given as -config.KEY, which absl takes, too, is returned with two dashes.
    """
    found = []
    for word, after in zip(argv, [*argv[1:], "--"], strict=True):
        if config_files.OVERRIDE.match(word):
            is_whole, key = "=" in word or after.startswith("--"), f"--{word.lstrip('-')}"
            found.append(key if is_whole else f"{key}={after}")
    return found


def train(flags: Any, config: ConfigDict, workdir: pathlib.Path, keys: Sequence[str]) -> None:
    """Train, and say what can be done next with what was trained.

    keys: those of the config that were given, "--config.KEY=VALUE".
    """
    from evqgan import next_steps, quickstart
    from evqgan.core import platforms, processes, progress
    from evqgan.own_images import config as own_images
    from evqgan.training import loop, workdir_check

    stores.require_bucket(workdir)
    workdir_check.check(workdir, config.stage == "quickstart")
    if (line := platforms.warning_of_unused_device()) and processes.this()[0] == 0:
        progress.warn(line)
    command = (
        quickstart_record.Command(flags.config, ())
        if flags.config
        else quickstart_record.read(workdir)
    )
    command = command and command.with_keys(keys)
    if own_images.is_one(config):
        config = own_images.begin(config, workdir, lambda x: quickstart.check_all(x, workdir))
    if config.stage == "quickstart":
        if flags.profile:
            raise InputError("--profile traces steps of one stage: give its config, not both")
        quickstart.run(config, workdir, command)
    else:
        loop.train(config, workdir, flags.profile or 0)
    if processes.this()[0] == 0:
        file, keys = command or ("", keys)
        follows = next_steps.after_training(file, config, workdir, keys)
        print(f"next: {follows}", flush=True)


def use(flags: Any, config: ConfigDict, workdir: pathlib.Path) -> None:
    """Run the mode of the flags, any but train, on a trained workdir."""
    from evqgan import next_steps
    from evqgan.core import processes
    from evqgan.inference import (
        evaluation,
        mode_edit,
        mode_encode,
        mode_reconstruct,
        mode_repeat,
        mode_sample,
    )
    from evqgan.own_images import config as own_images
    from evqgan.training import resume_rules

    if own_images.is_one(config):
        config = own_images.saved(config, workdir)
    tokenizer = None  # the config of a quickstart's, where it is given
    if flags.mode != "encode" and flags.config is not None:
        inner, is_both = exported.find(workdir) / "tokenizer", config.stage == "quickstart"
        if flags.mode == "evaluate" and is_both and (inner / "config.json").is_file():
            tokenizer = resume_rules.settings(config, inner)
        # The workdir's config; --config has to be the same but for keys of sampling and evaluation.
        config = resume_rules.settings(config, workdir)
    elif flags.mode != "encode":
        check_model(config, workdir)
    out = flags.out and stores.path(flags.out)
    if flags.mode == "sample" and flags.image:
        mode_repeat.repeat(config, workdir, out, flags.image, flags.batch_size, flags.step)
    elif flags.mode == "encode":
        mode_encode.encode(config, workdir, out, cli.request(mode_encode.EncodeRequest, flags))
    elif flags.mode == "sample":
        mode_sample.sample(config, workdir, out, cli.request(mode_sample.SampleRequest, flags))
        if processes.this()[0] == 0:
            follows = next_steps.after_samples(config, workdir, out, flags.step)
            print(f"next: {follows}", flush=True)
    elif flags.mode == "edit":
        mode_edit.edit(config, workdir, out, cli.request(mode_edit.EditRequest, flags))
    elif flags.mode == "reconstruct":
        tiles = flags.tiles if flags["tiles"].present else None
        given = flags.image, flags.batch_size, tiles, flags.step
        mode_reconstruct.reconstruct(config, workdir, out, *given)
    else:
        metrics, size = flags.metrics or [], flags.batch_size
        evaluation.evaluate(config, workdir, out, metrics, size, tokenizer, flags.step)


def check_model(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raise InputError for a config that is not of the kinds of its keys, or of another model.

    config: that of the workdir, with keys of the command line. What a model computes in, and what
      saves memory, may be another.
    """
    from evqgan.core import schema
    from evqgan.training import resume_rules, stage, stage2

    schema.check(config)
    if config.stage == "stage2":
        build.call(stage2.tokenizer_section, config.tokenizer, "config.tokenizer")
    saved, folder = config_files.of_workdir(workdir)
    for key, (now, then) in build.differences(
        stage.with_defaults(config), stage.with_defaults(saved)
    ).items():
        is_model = build.within(key, ("generator", "tokenizer")) and key != "tokenizer.dtype"
        if is_model and not resume_rules.may_change(key):
            raise InputError(
                f"config.{key} = {now!r}, but the weights in {folder} were trained with {then!r}: "
                f"leave --config.{key} out"
            )


def parse(argv: list[str]) -> tuple[Any, ConfigDict]:
    """Return the flags of a command line, and the config that --config and --config.KEY make.

    The flag workdir is filled in where it is not given. argv: the arguments, without the program's
    name. Raises InputError for any of them that is wrong.
    """
    flags, rest = flags_of(argv)
    check_compile_only(flags)
    config = config_of(flags)
    if flags.preset:
        presets.apply(config, flags.preset)
    config_files.override(config, rest)
    if not flags.workdir:  # what encodes for a generator is its tokenizer
        tokenizer = config.get("tokenizer", {}) if flags.mode == "encode" else {}
        flags.workdir = tokenizer.get("weights") or config_files.default_workdir(flags.config)
    if flags.mode != "train" and not flags.compile_only:  # which reads no workdir of the config
        for arg in rest:
            if found := config_files.OVERRIDE.match(arg):
                check_read(flags, config, found[1])
    return flags, config


def flags_of(argv: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the flags of a command line, and its keys of the config, which are not read yet.

    Raises InputError for what is wrong with the flags alone.
    """
    flags: Any
    flags, rest = cli.parse(table.FLAGS, argv)
    cli.check_mode(table.FLAGS, flags)
    files = ("config", "workdir", "out", "preset", "image", "mask", "json")
    for name in (*files, "classifier", "classifier_weights", "compile_only"):
        if flags[name].value == "":
            raise InputError(f"--{name}= is empty: give a value, or leave it out")
    check_repeat(flags, rest)
    return flags, rest


def check_compile_only(flags: Any) -> None:
    """Make JAX ready for --compile_only; InputError for flags that need it or that it excludes."""
    if flags.compile_only is None:
        for name in ("layout", "tries", "json"):
            if flags[name].present:
                raise InputError(f"--{name} is a flag of --compile_only=TOPOLOGY")
        return
    if os.environ.get("EVQGAN_DISTRIBUTED") == "1":
        raise InputError("--compile_only is for one process: leave EVQGAN_DISTRIBUTED out")
    if flags.json:
        replacing.begin(flags.json, "layout" if flags.layout else "compile_only", "--json")
    topology.prepare(flags.compile_only)


def check_repeat(flags: Any, rest: list[str]) -> None:
    """Raise InputError for flags beside --mode=sample --image that the PNG itself answers."""
    if flags.mode != "sample" or not flags.image:
        return
    names = [name for name in table.IN_RECORD if flags[name].present]
    keys = [f"config.{found[1]}" for arg in rest if (found := config_files.OVERRIDE.match(arg))]
    given = [*names, *(key for key in keys if key.startswith("config.sample"))]
    if given:
        raise InputError(
            f"--image={flags.image} makes one image as the PNG says: leave --{given[0]} out"
        )


def check_read(flags: Any, config: ConfigDict, key: str) -> None:
    """Raise InputError for a key of the command line that the mode does not read.

    With --config it may be one of those that the workdir was trained with.
    """
    part, _, inner = key.partition(".")
    nested = config.stage == "quickstart" and part in ("tokenizer", "generator")
    part, inner = (part, inner) if nested else ("", key)
    value = build.plain(config_files.at(config, key.split(".")))
    if reads(flags.mode, inner):
        return
    if flags.config is not None and flags.mode != "encode":
        place = stores.path(flags.workdir) / part.replace("generator", "")
        if value == trained_with(place, inner.split(".")):
            return
    name = table.STANDS_FOR.get(inner, inner)
    hint = f"it reads {', '.join(f'config.{x}' for x in table.READ[flags.mode])}"
    if any(flag.name == name and flags.mode in flag.modes for flag in table.FLAGS):
        hint = f"there it is --{name}"
    raise InputError(f"--config.{key} = {value!r} is not read by --mode={flags.mode}: {hint}")


def trained_with(workdir: pathlib.Path, names: list[str]) -> Any:
    """Return the value of a key, given as its parts, in the config of a workdir; None for none."""
    value: Any = build.plain(config_files.of_workdir(workdir)[0])
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def reads(mode: str, key: str) -> bool:
    """Return whether a mode reads a dotted key of a config, see `flags.READ`."""
    is_read = build.within(key, table.READ[mode])
    return is_read and (mode == "encode" or not build.within(key, table.TRAINED))


def config_of(flags: Any) -> ConfigDict:
    """Return the config of --config, or else that of the workdir."""
    if flags.config is not None:
        return config_files.read_file(flags.config)
    place = stores.path(flags.workdir) if flags.workdir else None
    if flags.mode == "train" and not (place and (place / "config.json").is_file()):
        if place and (both := quickstart_record.going_on(place)):
            return both
        raise InputError(
            "--config=FILE is needed to train, or to compile it: such as "
            "--config=configs/quickstart.py; see --help"
        )
    if not flags.workdir:
        raise InputError(f"--workdir=DIR is needed to {flags.mode}: the workdir of a training run")
    if flags.mode == "encode":
        return config_files.of_tokenizer(flags.workdir)[0]
    return config_files.of_workdir(flags.workdir)[0]


def check_alike(flags: Any, config: ConfigDict) -> None:
    """Raise InputError in all processes of a run unless their flags, config and code are the same.

    So must be Python and the libraries that decide a run's numbers. That processes call one workdir
    by several paths is found by `cluster.check_shared`.
    """
    from evqgan.core import cluster, versions

    if cluster.several():
        apart = ("config", "debug", *(["workdir"] if flags.mode == "train" else []))
        given = sorted((name, flags[name].value) for name in flags if name not in apart)
        text = config.to_json()
        libraries = {
            name: x for name, x in versions.now().items() if name not in ("code", "commit")
        }
        cluster.check_alike(
            command_line=given, config=text, code=versions.code(), set_of_library_versions=libraries
        )


if __name__ == "__main__":
    program()
