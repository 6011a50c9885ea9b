"""A Hugging Face Hub on loopback, with what huggingface_hub asks of one to read and to upload."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

TOKEN = "hf_of_the_test"
OID = "X-Repo-Commit"


class Hub:
    """Repositories {name: [{"sha", "files": {path: bytes}}, ...]}, and what was asked for.

    private: names that only TOKEN sees. cut: {path: how many times a reply breaks off halfway}.
    gone: paths for which the connection is closed. requests: (method, path) of all.
    meanwhile: called once, as an upload begins.
    """

    def __init__(self):
        self.commits, self.private, self.cut, self.gone = {}, set(), {}, set()
        self.meanwhile = None
        self.blobs, self.requests = {}, []
        self.url = ""

    def commit(self, name, files):
        """Add a commit whose files are these, and return its sha."""
        number = f"{name} {len(self.commits.get(name, []))}"
        sha = hashlib.sha1(number.encode()).hexdigest()
        self.commits.setdefault(name, []).append({"sha": sha, "files": dict(files)})
        return sha

    def found(self, name, revision):
        """Return the commit that a revision names, None for none."""
        commits = self.commits[name]
        if revision == "main":
            return commits[-1]
        return next((one for one in commits if one["sha"] == revision), None)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    @property
    def is_known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def reply(self, number, value=None, body=b"", **headers):
        body = json.dumps(value).encode() if value is not None else body
        self.send_response(number)
        for name, text in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, number, code, text):
        self.reply(number, {"error": text}, X_Error_Code=code, X_Error_Message=text)

    def repository(self, name, revision="main"):
        """Return a commit, or refuse and return None."""
        if name not in self.hub.commits or (name in self.hub.private and not self.is_known):
            number = 404 if self.is_known else 401
            self.refuse(number, "RepoNotFound", "Repository not found")
            return None
        if not (found := self.hub.found(name, urllib.parse.unquote(revision))):
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.urlparse(self.path).path.strip("/")
        self.hub.requests.append((self.command, path))
        match path.split("/"):
            case ["api", "whoami-v2"]:
                if self.is_known:
                    return self.reply(200, {"type": "user", "name": "user", "auth": {}})
                return self.refuse(401, "", "Invalid username or password.")
            case ["api", "models", user, name]:
                return self.info(f"{user}/{name}", "main")
            case ["api", "models", user, name, "revision", revision]:
                return self.info(f"{user}/{name}", revision)
            case ["api", "models", user, name, "tree", revision, *_]:
                return self.tree(f"{user}/{name}", revision)
            case [user, name, "resolve", revision, *parts]:
                return self.file(f"{user}/{name}", revision, "/".join(parts))
        return self.refuse(404, "", "no such address")

    def info(self, name, revision):
        if found := self.repository(name, revision):
            siblings = [{"rfilename": path} for path in found["files"]]
            about = {"id": name, "sha": found["sha"], "private": name in self.hub.private}
            self.reply(200, {**about, "siblings": siblings, "tags": [], "downloads": 0})

    def tree(self, name, revision):
        if found := self.repository(name, revision):
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": oid(data)}
                for path, data in found["files"].items()
            ]
            self.reply(200, entries)

    def file(self, name, revision, path):
        if not (found := self.repository(name, revision)):
            return
        if path not in found["files"]:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        if path in self.hub.gone and self.command == "GET":
            self.close_connection = True
            return None
        data, start = found["files"][path], 0
        if (given := self.headers.get("Range")) and self.command == "GET":
            start = int(given.removeprefix("bytes=").split("-")[0])
        headers = {"ETag": f'"{oid(data)}"', OID: found["sha"], "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.hub.cut.get(path) and self.command == "GET":
            self.hub.cut[path] -= 1
            self.send_response(206 if start else 200)
            for key, text in {**headers, "Content-Length": len(data) - start}.items():
                self.send_header(key, str(text))
            self.end_headers()
            self.wfile.write(data[start : (start + len(data)) // 2])
            self.close_connection = True
            return None
        return self.reply(206 if start else 200, body=data[start:], **headers)

    def do_POST(self):
        path = urllib.parse.urlparse(self.path).path.strip("/")
        self.hub.requests.append((self.command, path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.is_known:
            return self.refuse(401, "", "Invalid username or password.")
        match path.split("/"):
            case ["api", "validate-yaml"]:
                return self.reply(200, {"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                return self.create(json.loads(body))
            case ["api", "models", _, _, "preupload", _]:
                meanwhile, self.hub.meanwhile = self.hub.meanwhile, None
                if meanwhile:
                    meanwhile()
                files = [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith("tensors") else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for one in json.loads(body)["files"]
                ]
                return self.reply(200, {"files": files})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                return self.reply(200, {"transfer": "basic", "objects": objects})
            case ["api", "models", user, name, "commit", _]:
                return self.commit(f"{user}/{name}", body)
        return self.refuse(404, "", "no such address")

    def create(self, asked):
        name = f"{asked.get('organization') or 'user'}/{asked['name']}"
        if name in self.hub.commits:
            return self.refuse(409, "", "You already created this model repo")
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(name)
        self.hub.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.reply(200, {"url": f"{self.hub.url}/{name}"})

    def commit(self, name, body):
        files = dict(self.hub.commits[name][-1]["files"])
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    head = self.hub.commits[name][-1]["sha"]
                    if value.get("parentCommit", head) != head:
                        return self.refuse(412, "", "A commit has happened since")
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.blobs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        sha = self.hub.commit(name, files)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        return self.reply(200, {"success": True, "commitUrl": url, "commitOid": sha})

    def do_PUT(self):
        self.hub.requests.append((self.command, self.path.strip("/")))
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.blobs[hashlib.sha256(data).hexdigest()] = data
        self.reply(200)


def oid(data):
    """What git names the bytes of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def running():
    """Yield a Hub that is served on loopback."""
    hub = Hub()
    handler = type("OfHub", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
