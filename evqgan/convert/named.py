"""Public models by name: fetched, verified, and converted into a workdir that every mode accepts.

python -m evqgan.convert NAME --download [DEST]     fetches the files from their official addresses;
                                                    a stopped download goes on where it was
python -m evqgan.convert NAME SOURCE [DEST]         from its file, or a folder with its files
python -m evqgan.convert --list                     the models, their files, licences

Without DEST it is EVQGAN_MODELS/NAME, or ~/.cache/evqgan/models/NAME, where `evqgan.load(NAME)` and
--workdir=NAME look. A model of two parts is a folder of two workdirs, tokenizer/ and generator/.
"""

import contextlib
import pathlib
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from evqgan.convert import download, names, workdirs
from evqgan.convert.public import TABLE, PublicFile, PublicModel, Source
from evqgan.core import cli, files, public
from evqgan.core.build import suggestion
from evqgan.core.cli import DEBUG, SWITCH, TEXT, Flag, whole
from evqgan.core.errors import InputError, of_system

FLAGS = (
    Flag("download", SWITCH, (), "fetch the file"),
    Flag("source", TEXT, (), "whose files of a public model: official, or another of --list", ""),
    Flag("heads", whole(0), (), "of attention", 0),
    Flag("weights", TEXT, (), "raw or ema, of a file that holds both", ""),
    DEBUG,
)
ONLY = "the file's only ones"  # weights, of a file that does not hold raw and averaged ones
DAMAGED = (tarfile.TarError, EOFError, zlib.error, OSError)


def run(argv: Sequence[str]) -> None:
    """Fetch and convert a public model, as the arguments say, which begin with its name."""
    values, words = cli.parse(FLAGS, argv, words=True)
    name, *paths = words
    model, which = TABLE[name], values.weights
    if which not in ("", *names.WHICH):
        raise InputError(f"--weights is raw or ema, not {which!r}")
    source = values.source or "official"
    if source not in model.sources:
        hint = suggestion(source, model.sources)
        raise InputError(f"{name} has no files of --source={source}: {hint}")
    if not values.download and not paths:
        wish = "--download to fetch its files, or their folder"
        raise InputError(f"give {wish}, after {name}")
    given = None if values.download else pathlib.Path(paths.pop(0)).expanduser()
    if len(paths) > 1:
        raise InputError(f"expected one DEST, got {' '.join(paths)}")
    dest = pathlib.Path(paths[0]).expanduser() if paths else public.folder(name)
    if is_there(name, dest, which):
        print(f"{dest} is there already: {name}, nothing is fetched or converted")
        return
    make(name, model, source, given, dest, which, values.heads)
    place = name if dest == public.folder(name) else str(dest)
    print(f"licence: code {model.code}; weights {model.weights}")
    print(f"use it by --workdir={place}, or evqgan.load({place!r})")


def is_there(name: str, dest: pathlib.Path, which: str) -> bool:
    """Return whether the folder `dest` holds the converted model of a name already.

    which: --weights.

    Raises InputError if it holds anything else, or the model with the other weights.
    """
    file = dest / public.SOURCE
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return False
    found = files.read_json(file) if file.is_file() else {}
    if found.get("name") != name:
        wish = f"expected a new folder for {name}"
        raise InputError(f"{wish}, {dest} is there already and is something else: give a DEST")
    kept = found.get("weights", {}).values()
    if which and any(kind in names.WHICH and kind != which for kind in kept):
        what = f"{dest} is there already, with its {', '.join(sorted(set(kept)))} weights"
        raise InputError(f"{what}: give another DEST for --weights={which}")
    return True


def make(
    name: str,
    model: PublicModel,
    source: str,
    given: pathlib.Path | None,
    dest: pathlib.Path,
    which: str,
    heads: int,
) -> None:
    """Make the folder of a public model, whole or not at all.

    source: the key of its files.
    given: the file, or the folder with the files; None: they are fetched, into DEST.download, which
        is removed when all is converted.
    dest: the folder, which is new or empty.
    which: raw, ema or "", of files that hold both.
    heads: of attention, 0: as published.

    Raises InputError for what is wrong with an address, a file or a disk.
    """
    parts = model.sources[source]
    folder = given or dest.with_name(f"{dest.name}.download")
    both = [parts.tokenizer, *([parts.generator] if parts.generator else [])]
    wanted = {one.name: one for one in both}
    if given is not None and len(wanted) > 1 and not given.is_dir():
        raise InputError(f"expected a folder with {' and '.join(wanted)}, got {given}")
    with files.writable(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
    instead = other_ways(name, model, source)
    records = [obtained(file, folder, given, instead) for file in wanted.values()]
    part = dest.with_name(f".{dest.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with files.writable(dest):
            part.mkdir(parents=True)
        weights = convert(model, parts, folder, part, which, heads)
        said = {"code": model.code, "weights": model.weights}
        about = {"name": name, "source": source, "files": records, "weights": weights}
        files.save_json(part / public.SOURCE, {**about, "licences": said})
        with files.writable(dest):
            part.replace(dest)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if given is None:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"wrote {dest}: {model.title}")


def other_ways(name: str, model: PublicModel, source: str) -> str:
    """Return what can be done where the server of a source has no file for us."""
    others = [other for other in model.sources if other != source]
    ways = [f"take --source={other}, {model.sources[other].note}" for other in others]
    ways += [f"fetch the files elsewhere, and give their folder: {name} FOLDER"]
    return "; or ".join(ways)


def obtained(
    file: PublicFile, folder: pathlib.Path, given: pathlib.Path | None, instead: str
) -> dict[str, Any]:
    """Return what is kept of a file; fetch it into a folder unless it was given.

    given: its path, or a folder with it, or None.
    instead: what else can be done.

    Raises InputError if it cannot be fetched or is not what it should be.
    """
    if given is None:
        path = folder / file.name
        try:
            download.download(
                file.url, file.sha256 or "", path, file.size or 0, file.md5 or "", file.page
            )
        except InputError as error:
            reason = str(error).removesuffix(f"; {download.ELSEWHERE}")
            reason = reason.removesuffix(f", or {download.ELSEWHERE}")
            raise InputError(f"{reason}; {instead}") from error
    else:
        path = placed(file, given)
    sha256 = download.digest(path)
    size, verified = path.stat().st_size, verified_by(file, path, sha256)
    if verified:
        print(f"{file.name}: {size:,} bytes, the {verified} is right ({file.known})")
    elif file.sha256 or file.md5:
        print(f"{file.name}: another file than the published one, its sha256 is {sha256}")
    else:
        print(f"{file.name}: {size:,} bytes, no public hash is known; its sha256 is {sha256}")
    kept = {"file": file.name, "url": file.url, "bytes": size, "sha256": sha256}
    return {**kept, "verified": verified or "no"}


def verified_by(file: PublicFile, path: pathlib.Path, sha256: str) -> str:
    """Return the kind of hash by which a file is known to be the published one, or ""."""
    if file.sha256:
        return "sha256" if sha256 == file.sha256 else ""
    return "md5" if file.md5 and download.digest(path, "md5") == file.md5 else ""


def placed(file: PublicFile, given: pathlib.Path) -> pathlib.Path:
    """Return where a file lies that was given by its path or that of its folder."""
    path = given / file.name if given.is_dir() else given
    if not path.is_file():
        raise InputError(f"expected {file.name}, there is no file {path}")
    return path


def convert(
    model: PublicModel,
    source: Source,
    folder: pathlib.Path,
    part: pathlib.Path,
    which: str,
    heads: int,
) -> dict[str, str]:
    """Write the workdirs of a model into a folder; return {part: which weights}.

    source: its files, in `folder` (or `folder` is the one file).
    """
    with opened(source.tokenizer, folder) as path:
        if source.generator is None:
            inner = part / "tokenizer"
            kept = {"tokenizer": converted(model, path, inner, which, heads)}
            for one in inner.iterdir():
                one.replace(part / one.name)
            inner.rmdir()
            return kept
        first = part / "tokenizer"
        kept = {"tokenizer": converted(model, path, first, which, heads, only_tokenizer=True)}
    with opened(source.generator, folder) as path:
        whole_file = source.generator == source.tokenizer
        tokenizer = "" if whole_file else str(first)
        second = part / "generator"
        kept["generator"] = converted(model, path, second, which, heads, tokenizer)
    return kept


def converted(
    model: PublicModel,
    path: pathlib.Path,
    dest: pathlib.Path,
    which: str,
    heads: int,
    tokenizer: str = "",
    only_tokenizer: bool = False,
) -> str:
    """Convert one file into a workdir; return which of its weights were taken.

    A file that does not hold raw and averaged weights is taken as it is, whatever `which` says.
    """
    given = model.given._replace(heads=heads or model.given.heads)

    def attempt(weights: str) -> None:
        now = given._replace(weights=weights)
        line = workdirs.convert(
            model.system, path, dest, now, tokenizer, only_tokenizer=only_tokenizer
        )
        what = f"its {weights} weights" if weights else "its weights"
        print(f"{dest.name}: {line.partition(': ')[2]}, {what}")

    try:
        attempt("")
    except InputError as error:
        if names.BOTH not in str(error) or not which:
            raise
        attempt(which)
        return which
    return ONLY


@contextlib.contextmanager
def opened(file: PublicFile, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give the path of a file, or of a file in an archive, which lies beside it meanwhile.

    folder: where it lies, or itself. Of an archive nothing but that file's bytes is used.

    Raises InputError for a damaged archive, or one that does not hold it.
    """
    path = placed(file, folder)
    if not file.member:
        yield path
        return
    out = path.with_name(f"{path.name}.{file.member.replace('/', '-')}")
    try:
        _unpack(path, file.member, out)
        yield out
    finally:
        out.unlink(missing_ok=True)


def _unpack(path: pathlib.Path, member: str, out: pathlib.Path) -> None:
    """Write the one file of an archive whose path ends in `member`."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            found = next(
                (x for x in archive if x.isfile() and f"/{x.name}".endswith(f"/{member}")), None
            )
            stream = archive.extractfile(found) if found else None
            if stream is not None:
                with files.atomic(out) as file:
                    shutil.copyfileobj(stream, file, 2**20)
                return
    except DAMAGED as error:
        reason = of_system(error) if isinstance(error, OSError) and error.errno else str(error)
        raise InputError(f"{path} is damaged: {reason}; fetch it again") from error
    raise InputError(f"{path} holds no {member}")
