"""Public files of weights: where they are, their checksums and licences; and their download.

A download resumes where it stopped, and verifies what came. Those of whole models: `public`.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import requests

from evqgan.convert.mapping import Path
from evqgan.core import signals
from evqgan.core.errors import InputError, of_system
from evqgan.core.files import writable
from evqgan.core.progress import duration

TIMEOUT = (10, 60)  # ours: seconds to connect, and between two pieces of a reply
CHUNK = 2**16  # ours: bytes written at a time; a connection that breaks loses less than this
# Ours: seconds before the next try after a broken connection, as long as none brings a byte.
PAUSES = (1, 2, 4, 8, 16)
# Ours: seconds between lines, on a terminal (where they overwrite) or not.
SAID = {True: 0.5, False: 10.0}
# Ours: a file may be larger than it is known to be by this part and this many bytes.
SLACK = (0.02, 2**20)

# How a web page begins that a server sends in the place of a file, in small letters.
PAGE = (b"<!doctype", b"<html", b"<?xml", b"<error")

ELSEWHERE = "fetch the file elsewhere and give its path in the place of --download"


class File(NamedTuple):
    """A public file."""

    url: str
    sha256: str  # all of it, or its published first digits
    size: int  # bytes
    licence: str

    @property
    def name(self) -> str:
        """Return the file's name, the end of its address."""
        return self.url.rsplit("/", 1)[-1]


TORCHVISION = "https://download.pytorch.org/models/"
GITHUB = "https://github.com/"
TIMM = f"{GITHUB}rwightman/pytorch-image-models/releases/download/v0.1-weights/"
FID = f"{GITHUB}mseitzer/pytorch-fid/releases/download/fid_weights/"
CLIP = "https://huggingface.co/openai/clip-vit-large-patch14-336/resolve/"
DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/"
LPIPS = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"
)

LITE0 = File(
    f"{TIMM}tf_efficientnet_lite0-0aa007d2.pth",
    "0aa007d2",
    18_820_223,
    "Apache-2.0 (timm, from TensorFlow)",
)

# The sha256 were found alike in several public repositories that verify these files, and begin as
# the file names say (torch.hub checks those eight digits). Only the eight are certain for
# tf_efficientnet_lite0. Sizes: as their users report them; resnet101 from torchvision's table
# (170.511 MiB), tf_efficientnet_lite0 from timm's.
FILES = {
    "vgg16": File(
        f"{TORCHVISION}vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        553_433_881,
        "BSD-3-Clause (torchvision)",
    ),
    "lpips": File(
        f"{LPIPS}vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        7_289,
        "BSD-2-Clause (richzhang/PerceptualSimilarity)",
    ),
    "inception": File(
        f"{FID}pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        95_628_359,
        "Apache-2.0 (pytorch-fid, from TensorFlow)",
    ),
    "resnet50": File(
        f"{TORCHVISION}resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        102_530_333,
        "BSD-3-Clause (torchvision)",
    ),
    "resnet101": File(
        f"{TORCHVISION}resnet101-63fe2227.pth",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        178_793_742,
        "BSD-3-Clause (torchvision)",
    ),
    "efficientnet_lite0": LITE0,
    "efficientnet_lite0_head": LITE0,
    # ViT-L/14@336, both encoders
    "clip": File(
        f"{CLIP}ce19dc912ca5cd21c8a653c79e251e808ccabcd1/pytorch_model.bin",
        "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
        1_711_974_081,
        "MIT (OpenAI)",
    ),
    # ViT-L/14 without registers
    "dinov2": File(
        f"{DINOV2}dinov2_vitl14_pretrain.pth",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        1_217_586_395,
        "Apache-2.0 (Meta, facebookresearch/dinov2)",
    ),
}


def digest(path: Path, kind: str = "sha256") -> str:
    """Return the sha256 of a file, or another hash, in hex; InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, kind).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {of_system(error)}") from error


class Wanted(NamedTuple):
    """What is known of a file before it comes."""

    sha256: str = ""  # its first digits, "" if none is known
    size: int = 0  # bytes, 0 if they are not known
    md5: str = ""  # where no sha256 is known
    page: str = ""  # sent as the Referer, for servers that answer only visitors of that page

    @property
    def is_hashed(self) -> bool:
        """Return whether a hash is known, so that any other file is found out."""
        return bool(self.sha256 or self.md5)

    def differs(self, path: pathlib.Path) -> str:
        """Return in words how a whole file is another one than this; "" if it is not known to."""
        with open(path, "rb") as file:
            head = file.read(256).lstrip().lower()
        if head.startswith(PAGE):
            return "it is a web page, which may say why when it is opened in a browser"
        count = path.stat().st_size
        for kind, wanted in (("sha256", self.sha256), ("md5", "" if self.sha256 else self.md5)):
            if wanted and not (found := digest(path, kind)).startswith(wanted):
                return f"of {count:,} bytes the {kind} is {found}, not {wanted}"
        if self.size and not self.is_hashed and count != self.size:
            return f"it has {count:,} bytes, not {self.size:,}"
        return ""


def download(
    url: str, sha256: str, dest: pathlib.Path, size: int, md5: str = "", page: str = ""
) -> None:
    """Fetch a file, which appears at `dest` when all of it is there and verified.

    What has come is kept in `dest`.part; the same call goes on from there, also after a kill. A
    file that is there already and right is not fetched again. A line on stderr says how far it is.

    url: its address.
    dest: the path.
    sha256, size, md5, page: see `Wanted`. Where no hash is known, bytes of two visits are put
        together only if the server says that they are of one file.

    Raises InputError, one line: no network, the server refuses or has another file or a web page in
    its place, more than `size` bytes and 2 % come, the disk is full, or another process is fetching
    the same.
    """
    dest, wanted = pathlib.Path(dest), Wanted(sha256, size, md5, page)
    part = dest.with_name(dest.name + ".part")
    with writable(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file, _locked(file, part):
            finished = False
            try:
                if not (dest.is_file() and not wanted.differs(dest)):
                    _verified(url, file, part, wanted)
                    os.fsync(file.fileno())
                    os.replace(part, dest)
                finished = True
            finally:
                if finished or not part.stat().st_size:
                    _tag(part).unlink(missing_ok=True)
                    part.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(file: BinaryIO, part: pathlib.Path) -> Iterator[None]:
    """Keep other processes from writing the same file meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "wait for it, then give the command again"
        raise InputError(f"another process is writing {part}: {hint}") from None
    yield  # closing the file unlocks it


def _verified(url: str, file: BinaryIO, part: pathlib.Path, wanted: Wanted) -> None:
    """Fetch until it is the file that is wanted.

    If it is not, in a file made of several pieces, it is fetched once more from the start.
    """
    what = ""
    for _ in range(2):
        pieces = _fetch_all(url, file, part, wanted)
        what = wanted.differs(part)
        if not what:
            return
        _restart(file, part)
        if pieces == 1:
            break
    raise InputError(f"{url} is not the expected file: {what}")


def _fetch_all(url: str, file: BinaryIO, part: pathlib.Path, wanted: Wanted) -> int:
    """Fetch the rest of the file, through broken connections.

    Return how many pieces it is of, those before included.
    """
    pauses: Iterator[int] = iter(())  # none for a server that cannot be reached at all
    pieces = int(file.seek(0, os.SEEK_END) > 0)
    while True:
        before, pieces = file.seek(0, os.SEEK_END), pieces + 1
        try:
            _fetch(url, file, part, wanted)
            file.flush()
            return pieces
        except requests.RequestException as error:
            if file.seek(0, os.SEEK_END) > before:
                pauses = iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                hint = f"Give the command again to go on, or {ELSEWHERE}"
                raise InputError(f"cannot fetch {url}: {_reason(error)}. {hint}") from error
            time.sleep(pause)


def _fetch(url: str, file: BinaryIO, part: pathlib.Path, wanted: Wanted) -> None:
    """Ask once for what is missing; RequestException if the connection breaks."""
    have = file.seek(0, os.SEEK_END)
    if have and not (wanted.is_hashed or _tag(part).is_file()):
        have = 0
        _restart(file, part)
    headers = {"Accept-Encoding": "identity"}
    if wanted.page:
        headers["Referer"] = wanted.page
    if have:
        headers["Range"] = f"bytes={have}-"
        if _tag(part).is_file():
            headers["If-Range"] = _tag(part).read_text(encoding="utf-8")
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        encrypted = all(one.url.startswith("https:") for one in [*reply.history, reply])
        if url.startswith("https:") and not encrypted:
            what = "which is not encrypted: nothing was fetched"
            raise InputError(f"{url} leads to {reply.url}, {what}")
        if reply.status_code == 416 and have:
            return  # there is no more: the hash tells whether it is the file
        if reply.status_code not in (200, 206):
            what = f"the server answers {reply.status_code}"
            raise InputError(f"cannot fetch {url}: {what}; {ELSEWHERE}")
        continued = reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if reply.status_code == 200 or not continued:
            have = 0
            _restart(file, part)
        tag = reply.headers.get("ETag", "")
        if not tag.startswith('"'):  # a weak one, W/"...", names no exact bytes
            tag = reply.headers.get("Last-Modified", "")
        if tag:
            _tag(part).write_text(tag, encoding="utf-8")
        _write(reply, file, part, have, wanted.size)


def _write(
    reply: requests.Response, file: BinaryIO, part: pathlib.Path, have: int, size: int
) -> None:
    """Write the body of a reply to the end of a file that has `have` bytes of `size`.

    size: 0 if it is not known.
    """
    terminal, length = sys.stderr.isatty(), reply.headers.get("Content-Length", "")
    end = have + int(length) if length.isdecimal() else 0
    limit = size + size * SLACK[0] + SLACK[1] if size else math.inf
    size = size or end
    began, before, said = time.monotonic(), have, 0.0
    for chunk in reply.iter_content(CHUNK):
        have += len(chunk)
        if max(have, end) > limit:
            _restart(file, part)
            what = f"that one has {size:,} bytes, more are coming"
            raise InputError(f"{reply.url} is not the expected file: {what}")
        file.write(chunk)
        signals.note_saved(f"what has come, in {part}")
        now = time.monotonic()
        if now - said > SAID[terminal] or have == end:
            said, rate = now, (have - before) / max(now - began, 1e-3)
            done = f"{have / 1e6:,.1f}/{size / 1e6:,.1f} MB" if size else f"{have / 1e6:,.1f} MB"
            left = duration(max(size - have, 0) / max(rate, 1.0)) if size else "unknown"
            line = f"{part.stem}  {done}  {rate / 1e6:,.1f} MB/s  ETA {left}"
            close = "   \r" if terminal and have != end else "\n"
            print(line, end=close, file=sys.stderr, flush=True)


def _restart(file: BinaryIO, part: pathlib.Path) -> None:
    """Drop what has come."""
    file.truncate(0)
    _tag(part).unlink(missing_ok=True)


def _tag(part: pathlib.Path) -> pathlib.Path:
    """Return the file that keeps the ETag of what a part is of."""
    return part.with_name(part.name + ".etag")


def _reason(error: requests.RequestException) -> str:
    """Return why a request failed, in words."""
    if isinstance(error, requests.Timeout):
        return "there is no answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate cannot be trusted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection breaks again and again"
    if isinstance(error, requests.ConnectionError):
        return "there is no connection"
    return type(error).__name__
