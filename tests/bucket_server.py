"""A stand-in for Google Cloud Storage on the loopback interface: the part of its JSON API we use.

Objects lie in memory and appear whole, with generations and preconditions as the service has them:
https://cloud.google.com/storage/docs/json_api/v1. A test may have requests fail.
"""

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import http.server
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"
OBJECT = r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/?]+)"
COPY = re.compile(rf"{OBJECT}/(rewriteTo/b/{BUCKET}|moveTo)/o/([^/?]+)")
# What goes wrong with a request: None, the code of an answer, or "drop" for a connection that ends.
Fault = int | str | None


@dataclasses.dataclass
class Stored:
    """One generation of an object."""

    data: bytes
    generation: int
    time: str


class Store:
    """The objects {name: Stored} of a bucket, and all requests that were made."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, tuple[str, dict[str, str], bytes]] = {}  # {session: what came}
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], Fault] = lambda method, path: None
        self.lock, self._numbers = threading.RLock(), itertools.count(1_000)

    def put(self, name: str, data: bytes) -> Stored:
        """Store an object, whole."""
        with self.lock:
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            self.objects[name] = Stored(data, next(self._numbers), now)
            return self.objects[name]

    def files(self, prefix: str = "") -> dict[str, bytes]:
        """Return {name: bytes} of the objects whose names begin with `prefix`."""
        with self.lock:
            return {name: x.data for name, x in self.objects.items() if name.startswith(prefix)}

    def refused(self, name: str, query: dict[str, str]) -> int | None:
        """Return the code by which a request's preconditions fail, None where they hold."""
        now = self.objects[name].generation if name in self.objects else 0
        if query.get("ifGenerationMatch", str(now)) != str(now):
            return 412
        return 304 if query.get("ifGenerationNotMatch") == str(now) else None


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = 2**16  # an answer is sent whole: a small second packet would wait for the first
    store: Store

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        """Send one answer."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def json(self, value: dict, code: int = 200, **headers: str) -> None:
        """Send one answer in JSON."""
        self.answer(code, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def error(self, code: int) -> None:
        """Send an answer that says that the request failed."""
        self.json({"error": {"code": code, "message": f"status {code}"}}, code)

    def handle_one(self) -> None:
        """Answer a request of any kind."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        with self.store.lock:
            self.store.requests.append((self.command, self.path))
            fault = self.store.fault(self.command, unquote(self.path))
            if fault == "drop":
                self.close_connection = True
                return
            if fault:
                self.error(int(fault))
                return
            self.route(url.path, query, body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_one

    def route(self, path: str, query: dict[str, str], body: bytes) -> None:
        """Answer a request that does not fail for a test's sake."""
        if copy := COPY.fullmatch(path):
            self.copy(unquote(copy[2]), unquote(copy[4]), copy[3] == "moveTo")
        elif found := re.fullmatch(OBJECT, path):
            self.object(unquote(found[2]), query)
        elif re.fullmatch(rf"/storage/v1/b/{BUCKET}/o", path):
            self.list(query)
        elif re.fullmatch(rf"(/resumable)?/upload/storage/v1/b/{BUCKET}/o", path):
            self.upload(query, body)
        elif re.fullmatch(rf"/storage/v1/b/{BUCKET}", path):
            self.json({"kind": "storage#bucket", "id": BUCKET, "name": BUCKET})
        else:
            self.error(404)

    def metadata(self, name: str) -> dict:
        """Return what the service says of an object."""
        stored = self.store.objects[name]
        md5 = base64.b64encode(hashlib.md5(stored.data).digest()).decode()
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "size": str(len(stored.data)),
            "generation": str(stored.generation),
            "metageneration": "1",
            "md5Hash": md5,
            "timeCreated": stored.time,
            "updated": stored.time,
        }

    def object(self, name: str, query: dict[str, str]) -> None:
        """Answer a request about one object."""
        if name not in self.store.objects:
            self.error(404)
        elif refused := self.store.refused(name, query):
            self.answer(refused) if refused == 304 else self.error(refused)
        elif self.command == "DELETE":
            del self.store.objects[name]
            self.answer(204)
        elif query.get("alt") == "media":
            self.media(name)
        else:
            self.json(self.metadata(name))

    def media(self, name: str) -> None:
        """Answer with the bytes of an object, or the range of them that is asked for."""
        stored = self.store.objects[name]
        generation = {"x_goog_generation": str(stored.generation)}
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not found:
            self.answer(200, stored.data, **generation)
            return
        size = len(stored.data)
        start = int(found[1]) if found[1] else max(0, size - int(found[2]))
        stop = min(int(found[2]) + 1, size) if found[1] and found[2] else size
        if start >= size:
            self.error(416)
            return
        where = f"bytes {start}-{stop - 1}/{size}"
        self.answer(206, stored.data[start:stop], Content_Range=where, **generation)

    def list(self, query: dict[str, str]) -> None:
        """Answer with a page of the objects, and what their names begin with."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        first = max(query.get("startOffset", ""), query.get("pageToken", ""))
        entries: dict[str, bool] = {}  # name or prefix: whether it is a prefix
        for name in sorted(self.store.objects):
            end = query.get("endOffset", "")
            if not name.startswith(prefix) or name < first or (end and name >= end):
                continue
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            entries[name if cut < 0 else name[: cut + 1]] = cut >= 0
        names, most = list(entries), int(query.get("maxResults", 1_000))
        page: dict = {"kind": "storage#objects"}
        page["items"] = [self.metadata(name) for name in names[:most] if not entries[name]]
        page["prefixes"] = [name for name in names[:most] if entries[name]]
        if len(names) > most:
            page["nextPageToken"] = names[most]
        self.json(page)

    def copy(self, source: str, target: str, is_move: bool) -> None:
        """Copy or move an object."""
        if source not in self.store.objects:
            self.error(404)
            return
        self.store.put(target, self.store.objects[source].data)
        if is_move:
            del self.store.objects[source]
        found = self.metadata(target)
        self.json(found if is_move else {"done": True, "resource": found})

    def upload(self, query: dict[str, str], body: bytes) -> None:
        """Take an object: in one request, with its metadata before it, or in several requests."""
        if session := query.get("upload_id"):
            self.resumed(session, body)
            return
        name, data = query.get("name", ""), body
        if query.get("uploadType") == "multipart":
            name, data = parts_of(self.headers, body)
        if query.get("uploadType") == "resumable":
            name = name or json.loads(body)["name"]
            session = str(len(self.store.uploads))
            self.store.uploads[session] = name, query, b""
            where = f"http://{self.headers['Host']}{urlsplit(self.path).path}?upload_id={session}"
            self.json({}, Location=where)
            return
        self.stored(name, query, data)

    def resumed(self, session: str, body: bytes) -> None:
        """Take a further part of an object; it appears with the last one."""
        name, query, before = self.store.uploads[session]
        found = re.fullmatch(r"bytes (\*|\d+)-?(\d*)/(\*|\d+)", self.headers["Content-Range"] or "")
        assert found, self.headers["Content-Range"]
        data = before if found[1] == "*" else before[: int(found[1])] + body
        self.store.uploads[session] = name, query, data
        if found[3] != "*" and len(data) == int(found[3]):
            self.stored(name, query, data)
            return
        have = {"Range": f"bytes=0-{len(data) - 1}"} if data else {}
        self.answer(308, **have)

    def stored(self, name: str, query: dict[str, str], data: bytes) -> None:
        """Store what was uploaded, unless its preconditions fail."""
        if refused := self.store.refused(name, query):
            self.error(refused)
            return
        self.store.put(name, data)
        self.json(self.metadata(name))


def parts_of(headers: Message, body: bytes) -> tuple[str, bytes]:
    """Return the name and the bytes of an upload of uploadType=multipart."""
    boundary = re.search(r"boundary=['\"]?([^'\";]+)", headers["Content-Type"])
    assert boundary
    _, meta, data, _ = re.split(rb"(?:\r?\n)?--" + re.escape(boundary[1].encode()), body)
    name = json.loads(re.split(rb"\r?\n\r?\n", meta, maxsplit=1)[1])["name"]
    return name, re.split(rb"\r?\n\r?\n", data, maxsplit=1)[1]


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of clients that are killed, or hang up early."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print what is not a matter of the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving() -> Iterator[tuple[Store, dict[str, str]]]:
    """Yield the Store of a server that runs meanwhile, and the environment that leads to it."""
    store = Store()
    handler = type("Handler", (Handler,), {"store": store})
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    environment = {
        "STORAGE_EMULATOR_HOST": url,  # gcsfs, google-cloud-storage
        "TENSORSTORE_GCS_HTTP_URL": url,
        "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,  # array_record
        "FSSPEC_GCS_TOKEN": "anon",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # TensorStore's
        "GOOGLE_CLOUD_PROJECT": "none",
    }
    try:
        yield store, environment
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def environment_of(changes: dict[str, str]) -> Iterator[None]:
    """Have variables of this process's environment in the body."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
