"""Makes weights of ours from public files, without PyTorch and without running what stands in them.

python -m evqgan.convert SYSTEM --download [DEST]   fetches the file from its official address and verifies it
python -m evqgan.convert SYSTEM SOURCE [DEST]       from a file that is there: .pth, .pt, .ckpt or .safetensors

Of a frozen network, listed below, DEST is a folder, where SYSTEM.safetensors is written, or a file that ends in
.safetensors. Without it, it is the folder where training looks: EVQGAN_WEIGHTS, or ~/.cache/evqgan/weights.

python -m evqgan.convert taming|maskgit|rqvae|vitvqgan SOURCE DEST          a whole model: DEST is a new workdir
python -m evqgan.convert taming|maskgit|rqvae|vitvqgan --back WORKDIR DEST  a workdir's averaged weights under the
                                                    original names: a .safetensors file; of maskgit, flax's msgpack

--tokenizer=WORKDIR   of a file that holds a generator alone (maskgit, rqvae), its converted tokenizer
--config=FILE         a config whose model it has to be; the workdir then has its data and training
--size= --heads= --classes= --condition=class|coordinates   what the weights of some do not tell; said if it is missed
--weights=raw|ema     of a file that holds both, raw weights and averaged ones
--debug shows tracebacks.
"""

import argparse
import pathlib
import sys
import traceback

import jax

from evqgan.convert import download, frozen, names, torch_files, workdirs
from evqgan.convert.mapping import to_ours
from evqgan.convert.systems import LICENCES, Given
from evqgan.core import weights
from evqgan.core.build import nearest
from evqgan.core.config_files import read_file
from evqgan.core.errors import InputError

SYSTEMS = tuple(download.FILES)  # frozen networks; whole models are those of `systems`


def listing():
    """The table of --help: a line for each system."""
    rows = [
        (name, file.name, f"{file.size / 1e6:,.1f} MB" if file.size > 1e5 else f"{file.size:,} B", file.licence)
        for name, file in download.FILES.items()
    ]
    rows.insert(0, ("SYSTEM", "file", "size", "licence"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = (f"{a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in rows)
    addresses = (f"{name:{widths[0]}}  {file.url}" for name, file in download.FILES.items())
    return "\n".join([*lines, "", *addresses])


def parse(argv):
    """argv without the program -> system, source or None to download, the file to write, --weights; InputError."""
    parser = argparse.ArgumentParser(prog="python -m evqgan.convert", add_help=False, allow_abbrev=False)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--weights", default="")
    values, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise InputError(
            f"there is no flag {unknown[0]}: {nearest(unknown[0], ['--download', '--debug', '--weights', '--help'])}"
        )
    check_which(values.weights)
    system, *paths = values.paths or [None]
    if system not in SYSTEMS:
        what = f"there is no system {system!r}" if system else "a system is needed"
        known = [*SYSTEMS, *LICENCES]
        raise InputError(f"{what}: {nearest(system or '', known)}; see python -m evqgan.convert --help")
    if not values.download and not paths:
        raise InputError(f"give the path of {download.FILES[system].name} after {system}, or --download to fetch it")
    source = None if values.download else pathlib.Path(paths.pop(0)).expanduser()
    if len(paths) > 1:
        raise InputError(f"expected one DEST, got {' '.join(paths)}")
    dest = pathlib.Path(paths[0] if paths else weights.folder()).expanduser()
    dest = dest if dest.suffix == ".safetensors" else weights.path(dest, system)
    if source is not None and source.resolve() == dest.resolve():
        raise InputError(f"{source} would be written over itself: give another DEST")
    return system, source, dest, values.weights


def check_which(which):
    """InputError unless --weights names one of the two kinds, or none."""
    if which not in ("", *names.WHICH):
        raise InputError(f"--weights is raw or ema, not {which!r}")


def convert(system, source, dest, which=""):
    """Writes the weights of `system` in the file `source` to `dest` -> what is to be said of it, one line.

    InputError if the source cannot be read, or its weights are not those of `system`, all and no others; `dest` is then
    as it was.
    """
    table, ignored, like = frozen.NETWORKS[system]
    published = download.FILES[system]
    theirs = torch_files.read(source, which)
    try:
        tree = to_ours(table, theirs, like(), ignored)
    except InputError as error:
        raise InputError(f"{source} is not a file of {system} such as {published.name}: {error}") from error
    sha256 = download.digest(source)
    known = sha256.startswith(published.sha256)
    licence = published.licence if known else f"as its source (the published {published.name}: {published.licence})"
    weights.save(dest, tree, {"network": system, "source": source.name, "sha256": sha256, "licence": licence})
    numbers = sum(leaf.size for leaf in jax.tree.leaves(tree))
    origin = "the published file" if known else f"another file than the published {published.name}"
    return f"wrote {dest}: {numbers:,} numbers from {source.name} ({origin}); licence: {licence}"


def there(system, dest):
    """Whether the file `dest` holds all of the published weights already."""
    if dest != weights.path(dest.parent, system):
        return False
    try:
        weights.load(dest.parent, system, frozen.NETWORKS[system].like())
        sha256 = weights.source(dest.parent, system).get("sha256", "")
    except InputError:
        return False
    return sha256.startswith(download.FILES[system].sha256)


def run(system, source, dest, which=""):
    """One command, done."""
    if source is not None:
        print(convert(system, source, dest, which))
    elif there(system, dest):
        print(f"{dest} is there already")
    else:
        file = download.FILES[system]
        fetched = dest.parent / file.name
        download.download(file.url, file.sha256, fetched, file.size)
        print(convert(system, fetched, dest))
        fetched.unlink(missing_ok=True)


def run_model(argv):
    """The command line of a whole model, done."""
    parser = argparse.ArgumentParser(prog="python -m evqgan.convert", add_help=False, allow_abbrev=False)
    parser.add_argument("paths", nargs="*")
    for name in ("--back", "--debug"):
        parser.add_argument(name, action="store_true")
    for name in ("--size", "--heads", "--classes"):
        parser.add_argument(name, default="0")
    for name in ("--condition", "--tokenizer", "--config", "--weights"):
        parser.add_argument(name, default="")
    values, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        flag = unknown[0].split("=")[0]
        raise InputError(f"there is no flag {flag}: {nearest(flag, known)}")
    system, *paths = values.paths
    if len(paths) != 2:
        what = "WORKDIR and DEST after --back" if values.back else "SOURCE and DEST"
        raise InputError(f"expected {what} of {system}, got {' '.join(paths) or 'nothing'}; see --help")
    source, dest = (pathlib.Path(path).expanduser() for path in paths)
    if values.back:
        print(workdirs.back(system, source, dest))
        return
    numbers = [getattr(values, name) for name in ("size", "heads", "classes")]
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--size, --heads and --classes are whole numbers, got {', '.join(numbers)}")
    check_which(values.weights)
    given = Given(*map(int, numbers), values.condition, values.weights)
    config = read_file(values.config) if values.config else None
    print(workdirs.convert(system, source, dest, given, values.tokenizer, config))
    print(
        f"licence: {LICENCES[system]}; sample, edit and evaluate with --workdir={dest}, train it further the same way"
    )


def main(argv=None):
    """Runs the command line -> exit code. What a user can mend ends in one line and code 2; defects are raised."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or "--help" in argv or "-h" in argv:
        print(f"{__doc__}\n{listing()}")
        return 0 if argv else 2
    try:
        if next((arg for arg in argv if not arg.startswith("-")), "") in LICENCES:
            run_model(argv)
        else:
            run(*parse(argv))
        return 0
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130  # as the shell reports a SIGINT
    except (InputError, OSError) as error:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # shapes are all that is asked of JAX: accelerators are left alone
    sys.exit(main())
