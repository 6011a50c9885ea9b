"""Models of the Hugging Face Hub: hf://USER/NAME, or of a revision, hf://USER/NAME@REVISION.

A revision is a branch, a tag or a commit. Such a model is an exported one, of which only the files
that `core.exported` knows are fetched, into the Hub's own cache; nothing in them is executed. Who
one is, and where the Hub is, are said as its library asks for it (`hf auth login`, HF_TOKEN,
HF_ENDPOINT).
"""

import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from evqgan.core.errors import InputError, first_line

START = "hf:"
# One slash is what pathlib makes of the two.
FORM = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/?")
EXPECTED = "hf://USER/NAME, or hf://USER/NAME@REVISION"
INSTALL = 'python -m pip install "huggingface_hub>=1"'
USUAL = "https://huggingface.co"
CACHED = re.compile(r"models--(.+?)--(.+)")  # the folder of a repository in the Hub's cache
SECONDS = 10.0  # ours: to wait for an answer
UNPICKLED = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")  # what would have to be


class Repository(NamedTuple):
    """A repository of the Hub; revision: "" is its newest state."""

    name: str  # USER/NAME
    revision: str = ""

    @property
    def place(self) -> str:
        """What a --workdir says for it."""
        return f"hf://{self.name}" + (f"@{self.revision}" if self.revision else "")


def is_named(workdir: str | os.PathLike[str]) -> bool:
    """Return whether a text names a model of the Hub, rightly or not."""
    return os.fspath(workdir).startswith(START)


def parse(workdir: str | os.PathLike[str]) -> Repository:
    """Return the repository that a text names; InputError for any other text."""
    if not (found := FORM.fullmatch(os.fspath(workdir))):
        raise InputError(f"expected {EXPECTED}, got {os.fspath(workdir)!r}")
    return Repository(found[1], found[2] or "")


def name_of(folder: pathlib.Path) -> str:
    """Return USER/NAME of a folder in the Hub's cache; "" of any other."""
    if folder.parent.name != "snapshots":
        return ""
    found = CACHED.fullmatch(folder.parents[1].name)
    return f"{found[1]}/{found[2]}" if found else ""


def library() -> Any:
    """Return huggingface_hub; InputError, with the command that installs it, if it is absent."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise InputError(f"{START}// needs huggingface_hub, which is not installed: {INSTALL}")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


def endpoint() -> str:
    """Return the address of the Hub."""
    return (os.environ.get("HF_ENDPOINT") or USUAL).rstrip("/")


@contextlib.contextmanager
def in_a_line(repository: Repository) -> Iterator[None]:
    """Turn what the Hub or its library refuses in the body into InputError."""
    errors = library().errors
    place, where = repository.place, endpoint()
    hint = "log in with `hf auth login`, or set HF_TOKEN"
    try:
        yield
    except InputError:
        raise
    except errors.LocalTokenNotFoundError as error:
        raise InputError(f"nobody is logged in: {hint}") from error
    except errors.RevisionNotFoundError as error:
        revision = repository.revision or "main"
        raise InputError(f"{where}/{repository.name} has no revision {revision!r}") from error
    except errors.HfHubHTTPError as error:
        number = error.response.status_code
        if isinstance(error, errors.RepositoryNotFoundError) or number == 404:
            what = f"{where} shows no model {repository.name}"
            raise InputError(f"{what}: {hint}, if it is private or gated") from error
        if number in (401, 403):
            raise InputError(f"{where} answers {number} to {place}: {hint}") from error
        raise InputError(f"{where} answers {number} to {place}; try again later") from error
    except Exception as error:
        if not (is_unreachable(error) or isinstance(error, OSError)):
            raise
        reason = first_line(error)
        raise InputError(f"cannot go on with {place}: {reason}; give the command again") from error


def is_unreachable(error: BaseException) -> bool:
    """Return whether an error says that there is no connection, or that none is wanted."""
    of_client = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests")
    return of_client or isinstance(error, ConnectionError | TimeoutError)


@functools.cache
def fetch(workdir: str, files: Sequence[str], needed: Sequence[str], stage: str) -> pathlib.Path:
    """Return the folder in the Hub's cache that holds a model; what is not there yet is fetched.

    A process asks the Hub once; what it has is what the Hub had then. Without a connection a copy
    in the cache serves, and a line says so.

    files: all that are fetched, as far as there are. needed: those that it cannot be without, of
    which the first is a JSON that says `stage`.

    Raises InputError, one line, for what cannot be fetched, and for any other kind of model.
    """
    repository, hub = parse(workdir), library()
    revision, where = repository.revision or None, {"endpoint": endpoint()}
    with in_a_line(repository):
        try:
            api = hub.HfApi(**where)
            info = api.model_info(repository.name, revision=revision, timeout=SECONDS)
        except Exception as error:
            if isinstance(error, hub.errors.HfHubHTTPError) or not is_unreachable(error):
                raise
            return in_cache(repository, needed)
        require(repository, [one.rfilename for one in info.siblings or ()], needed)
        given = {"repo_id": repository.name, **where}
        config = hub.hf_hub_download(filename=needed[0], revision=info.sha, **given)
        require_stage(repository, config, stage)
        folder = hub.snapshot_download(revision=revision, allow_patterns=list(files), **given)
    return pathlib.Path(folder)


def in_cache(repository: Repository, needed: Iterable[str]) -> pathlib.Path:
    """Return the folder of a model in the Hub's cache; InputError if it is not there whole."""
    paths = [
        library().try_to_load_from_cache(
            repository.name, name, revision=repository.revision or None
        )
        for name in needed
    ]
    if not all(isinstance(path, str) for path in paths):
        what = f"no connection to {endpoint()}, and {repository.place} is not in the Hub's cache"
        raise InputError(f"{what}: give the command again when there is one")
    print(f"no connection to {endpoint()}: {repository.place} as the cache has it", flush=True)
    return pathlib.Path(str(paths[0])).parent


def require(repository: Repository, there: Sequence[str], needed: Iterable[str]) -> None:
    """Raise InputError unless the files of a repository are those of an exported model."""
    if not (missing := [name for name in needed if name not in there]):
        return
    held = [name for name in there if name.endswith(UNPICKLED)]
    why = f"it has no {missing[0]}"
    if held:
        why += f", and {held[0]} is a pickle, which is not read"
    what = "is no model that evqgan.export has written"
    raise InputError(f"{repository.place} {what}: {why}")


def require_stage(repository: Repository, config: str, stage: str) -> None:
    """Raise InputError unless a config.json says that it is of an exported model."""
    try:
        found = json.loads(pathlib.Path(config).read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("stage") != stage:
        what = "is no model that evqgan.export has written"
        raise InputError(f"{repository.place} {what}: its {pathlib.Path(config).name} is another")
