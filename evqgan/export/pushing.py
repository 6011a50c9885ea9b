"""An exported model, uploaded to the Hugging Face Hub; see `core.hub`."""

import pathlib
from typing import Any

from evqgan.core import exported, hub
from evqgan.core.errors import InputError
from evqgan.core.hub import Repository
from evqgan.core.progress import counted, say

HARMLESS = (".gitattributes", exported.CARD, exported.LICENCE)  # what a new repository may hold


def push(folder: pathlib.Path, name: str, public: bool = False) -> None:
    """Upload all files of an exported model in one commit, and say what, where to, and its address.

    Hidden files stay behind. Of what the repository had before, files of `exported.FILES` that the
    folder does not have are removed by the same commit.

    name: USER/NAME of its repository, which is made if there is none. public: whoever likes may
    read it; a repository that there is keeps who may read it, and has to be of that kind.

    It asks the Hub what `check` has asked: an export takes minutes, in which a repository may come
    to be, or be opened to others. What comes after that, while files are uploaded, is refused by
    the Hub itself: a new repository is not there yet, and of another the commit it had is named.

    Raises InputError for a folder that is no exported model, a repository of something else, and
    whatever the Hub refuses.
    """
    repository, place = Repository(name), f"{hub.endpoint()}/{name}"
    paths = whole(folder)
    api = hub.library().HfApi(endpoint=hub.endpoint())
    with hub.in_a_line(repository):
        head = head_of(api, repository, public)
        size = sum(path.stat().st_size for path in paths)
        kind = f"{'the' if head else 'a new'} {'public' if public else 'private'} repository"
        say(f"uploading {counted(len(paths), 'file')}, {size:,} bytes, to {place}, {kind}:")
        for path in paths:
            say(f"  {path.relative_to(folder)}  {path.stat().st_size:,}")
        if not head:
            api.create_repo(name, private=not public)
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Model exported by evqgan",
            allow_patterns=[str(path.relative_to(folder)) for path in paths],
            delete_patterns=list(exported.FILES),
            parent_commit=head or None,
        )
    hub.fetch.cache_clear()
    say(f"it is at {place}, commit {done.oid}")
    say(f'anybody who may read it has it by evqgan.load("{repository.place}")')


def check(name: str, public: bool) -> None:
    """Raise InputError, before anything is exported, for what `push` would be refused for now."""
    repository, api = Repository(name), hub.library().HfApi(endpoint=hub.endpoint())
    with hub.in_a_line(repository):
        head_of(api, repository, public)


def head_of(api: Any, repository: Repository, public: bool) -> str:
    """Return the newest commit of a repository, "" if there is none; InputError for another kind.

    Who is not logged in hears of it before anything else.
    """
    api.whoami()
    if not api.repo_exists(repository.name):
        return ""
    info = api.model_info(repository.name)
    require_ours(info, repository, public)
    return str(info.sha)


def whole(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the files of an exported model; InputError if it is none, or has pickles in it."""
    if not exported.is_one(folder):
        what = "is no exported model, and nothing else is uploaded"
        raise InputError(f"{folder} {what}: write one by `python -m evqgan.export WORKDIR DEST`")
    exported.part_of(exported.read_config(folder), exported.PARTS[0], folder)
    inner = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [
        path
        for path in inner
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    for path in paths:
        if path.suffix in hub.UNPICKLED:
            raise InputError(f"{path} is a pickle by its name, which nobody should load: remove it")
    return paths


def require_ours(info: object, repository: Repository, public: bool) -> None:
    """Raise InputError for a repository of another kind of model, or read by others than asked."""
    there = [one.rfilename for one in getattr(info, "siblings", None) or ()]
    if [name for name in there if name not in HARMLESS]:
        hub.require(repository, there, (exported.CONFIG, exported.WEIGHTS))
    is_public = not getattr(info, "private", False)
    if is_public != public:
        kind, flag = ("public", "give") if is_public else ("private", "leave out")
        raise InputError(f"{repository.place} is {kind} already: {flag} --public")
