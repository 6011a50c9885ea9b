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
from typing import Any, NamedTuple

from evqgan.convert import download, names, workdirs
from evqgan.convert.public import TABLE, PublicFile, PublicModel, Source
from evqgan.core import cli, files, public_names
from evqgan.core.build import suggestion
from evqgan.core.cli import DEBUG, SWITCH, TEXT, Flag, whole
from evqgan.core.errors import InputError, of_system

DOWNLOAD = Flag("download", SWITCH, (), "fetch the file")
HEADS = Flag("heads", whole(0), (), "of attention", 0)
WEIGHTS = Flag("weights", TEXT, (), "raw or ema, of a file that holds both", "")
FLAGS = (
    DOWNLOAD,
    Flag("source", TEXT, (), "whose files of a public model: official, or another of --list", ""),
    HEADS,
    WEIGHTS,
    DEBUG,
)
ONLY = "the file's only ones"  # weights, of a file that does not hold raw and averaged ones
DAMAGED = (tarfile.TarError, EOFError, zlib.error, OSError)


class Job(NamedTuple):
    """What is to be made."""

    name: str  # of the public model
    source: str  # the key of its files in the table
    given: pathlib.Path | None  # its file or the folder with its files; None: they are fetched
    dest: pathlib.Path  # the folder to make, new or empty
    which: str  # raw, ema or "", of files that hold both
    heads: int  # of attention, 0: as published

    @property
    def model(self) -> PublicModel:
        """Return what the table says of the model."""
        return TABLE[self.name]

    @property
    def files(self) -> Source:
        """Return the files that it is made of."""
        return self.model.sources[self.source]


def run(argv: Sequence[str]) -> None:
    """Fetch and convert a public model, as the arguments say, which begin with its name."""
    job = parse(argv)
    if is_there(job.name, job.dest, job.which):
        print(f"{job.dest} is there already: {job.name}, nothing is fetched or converted")
        return
    files.tried(job.dest)
    make(job)
    place = job.name if job.dest == public_names.folder(job.name) else str(job.dest)
    print(f"licence: code {job.model.code}; weights {job.model.weights}")
    print(f"use it by --workdir={place}, or evqgan.load({place!r})")


def parse(argv: Sequence[str]) -> Job:
    """Return what the arguments ask for; InputError for all that is wrong with them."""
    values, words = cli.parse(FLAGS, argv, words=True)
    if not words or words[0] not in TABLE:  # the name is the value of a flag
        raise InputError("expected NAME, of a public model, before its flags; see --list")
    name, *paths = words
    names.check_which(values.weights)
    sources, source = TABLE[name].sources, values.source or "official"
    if source not in sources:
        hint = suggestion(source, sources)
        raise InputError(f"{name} has no files of --source={source}: {hint}")
    if not values.download and not paths:
        wish = "--download to fetch its files, or their folder"
        raise InputError(f"give {wish}, after {name}")
    given = None if values.download else pathlib.Path(paths.pop(0)).expanduser()
    if len(paths) > 1:
        raise InputError(f"expected one DEST, got {' '.join(paths)}")
    dest = pathlib.Path(paths[0]).expanduser() if paths else public_names.folder(name)
    files.check_elsewhere(dest)
    return Job(name, source, given, dest, values.weights, values.heads)


def is_there(name: str, dest: pathlib.Path, which: str) -> bool:
    """Return whether the folder `dest` holds the converted model of a name already.

    which: --weights.

    Raises InputError if it holds anything else, or the model with the other weights.
    """
    file = dest / public_names.SOURCE
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return False
    found = files.read_json(file, public_names.CONVERTED) if file.is_file() else {}
    if found.get("name") != name:
        wish = f"expected a new folder for {name}"
        raise InputError(f"{wish}, {dest} is there already and is something else: give a DEST")
    kept = found.get("weights", {}).values()
    if which and any(kind in names.WHICH and kind != which for kind in kept):
        what = f"{dest} is there already, with its {', '.join(sorted(set(kept)))} weights"
        raise InputError(f"{what}: give another DEST for --weights={which}")
    return True


def make(job: Job) -> None:
    """Make the folder of a public model, whole or not at all.

    What is fetched lies in DEST.download, which is gone once all is converted.

    Raises InputError for what is wrong with an address, a file or a disk.
    """
    work, parts = job.dest.with_name(f"{job.dest.name}.download"), job.files
    both = [parts.tokenizer, *([parts.generator] if parts.generator else [])]
    wanted = {file.name: file for file in both}
    if job.given is not None and len(wanted) > 1 and not job.given.is_dir():
        raise InputError(f"expected a folder with {' and '.join(wanted)}, got {job.given}")
    with files.owned(work, "another DEST"):
        records = [obtained(file, job, work) for file in wanted.values()]
        part = work / "workdir"
        shutil.rmtree(part, ignore_errors=True)
        try:
            with files.writable(job.dest):
                part.mkdir()
            weights = convert(job, work, part)
            said = {"code": job.model.code, "weights": job.model.weights}
            about = {"name": job.name, "source": job.source, "files": records, "weights": weights}
            files.save_json(part / public_names.SOURCE, {**about, "licences": said})
            with files.writable(job.dest):
                part.replace(job.dest)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for name in wanted:
            (work / name).unlink(missing_ok=True)
    print(f"wrote {job.dest}: {job.model.title}")


def other_ways(job: Job) -> str:
    """Return what can be done where the server of a source has no file for us."""
    others = {key: x for key, x in job.model.sources.items() if key != job.source}
    ways = [f"take --source={key}, {source.note}" for key, source in others.items()]
    ways += [f"fetch the files elsewhere, and give their folder: {job.name} FOLDER"]
    return "; or ".join(ways)


def obtained(file: PublicFile, job: Job, work: pathlib.Path) -> dict[str, Any]:
    """Return what is kept of a file; fetch it into the folder `work` unless it was given.

    Raises InputError if it cannot be fetched or is not what it should be.
    """
    if job.given is None:
        path, size = work / file.name, file.size or 0
        try:
            download.download(file.url, file.sha256 or "", path, size, file.md5 or "", file.page)
        except InputError as error:
            reason = str(error)
            for end in (f"; {download.ELSEWHERE}", f", or {download.ELSEWHERE}"):
                reason = reason.removesuffix(end)
            raise InputError(f"{reason}; {other_ways(job)}") from error
    else:
        path = placed(file, job.given)
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


def convert(job: Job, work: pathlib.Path, part: pathlib.Path) -> dict[str, str]:
    """Write the workdirs of a model into the folder `part`; return {part: which weights}.

    work: the folder of what was fetched, where archives are opened.
    """
    source = job.files
    with opened(source.tokenizer, job.given or work, work) as path:
        first = part / "tokenizer"
        whole_model = source.generator is not None
        kept = {"tokenizer": converted(job, path, first, only_tokenizer=whole_model)}
    if source.generator is None:
        for one in list(first.iterdir()):
            one.replace(part / one.name)
        first.rmdir()
        return kept
    with opened(source.generator, job.given or work, work) as path:
        tokenizer = "" if source.generator == source.tokenizer else str(first)
        kept["generator"] = converted(job, path, part / "generator", tokenizer)
    return kept


def converted(
    job: Job,
    path: pathlib.Path,
    dest: pathlib.Path,
    tokenizer: str = "",
    only_tokenizer: bool = False,
) -> str:
    """Convert one file into a workdir; return which of its weights were taken.

    A file that does not hold raw and averaged weights is taken as it is, whatever --weights says.
    """
    model = job.model
    given = model.given._replace(heads=job.heads or model.given.heads)

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
        if names.BOTH not in str(error) or not job.which:
            raise
        attempt(job.which)
        return job.which
    return ONLY


@contextlib.contextmanager
def opened(file: PublicFile, folder: pathlib.Path, work: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give the path of a file, or of a file in an archive, which lies in `work` meanwhile.

    folder: where it lies, or itself. Of an archive nothing but that file's bytes is used.

    Raises InputError for a damaged archive, or one that does not hold it.
    """
    path = placed(file, folder)
    if not file.member:
        yield path
        return
    out = work / f"{path.name}.{file.member.replace('/', '-')}"
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
