"""A download arrives whole and verified, goes on where it stopped, and says what is wrong.

What is wrong is said in one line.
"""

import errno
import fcntl
import hashlib
import http.server
import os
import pathlib
import re
import threading

import pytest

from evqgan.convert import download
from evqgan.core.errors import InputError

DATA = bytes(i * i % 251 for i in range(300_000))
SIZE = len(DATA)
SHA = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serve `data`, or of `files` what a path names, and record the requests.

    `cuts`: after how many bytes each next reply is broken off.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.tag, self.ranges, self.status, self.length = DATA, '"v1"', True, None, True
        self.shift, self.cuts, self.requests, self.files = 0, [], [], {}
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        server.requests.append((self.path, asked and int(asked[1]), self.headers.get("If-Range")))
        if self.path == "/moved.pth" or server.status:
            self.send_response(server.status or 302)
            self.send_header("Location", "/weights.pth")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        data = server.files.get(self.path, server.data)
        start = int(asked[1]) if asked and server.ranges else 0
        if self.headers.get("If-Range") not in (None, server.tag):
            start = 0
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = data[start:]
        self.send_response(206 if start else 200)
        if start:
            shown = start + server.shift
            self.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0) if server.cuts else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0, 0))
    monkeypatch.setattr(download, "CHUNK", 1000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "new" / "weights.pth"


def fetch(server, dest, sha256=SHA, url=None):
    download.download(url or server.url, sha256, dest, SIZE)


def refused(server, dest, match, **given):
    with pytest.raises(InputError, match=match) as caught:
        fetch(server, dest, **given)
    assert "\n" not in str(caught.value)
    assert not dest.exists()
    return str(caught.value)


def left(dest):
    return sorted(os.listdir(dest.parent))


def arrived(dest):
    assert dest.read_bytes() == DATA and left(dest) == ["weights.pth"]


def test_a_file_arrives_whole_with_a_line_of_progress(server, dest, capsys):
    fetch(server, dest)
    arrived(dest)
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"weights\.pth  0\.3/0\.3 MB  [\d.,]+ MB/s  ETA 0s", line), line


def test_the_published_first_digits_are_enough(server, dest):
    fetch(server, dest, sha256=SHA[:8])
    arrived(dest)


def test_what_is_there_already_is_not_fetched_again(server, dest):
    fetch(server, dest)
    fetch(server, dest)
    assert len(server.requests) == 1
    arrived(dest)


def test_a_wrong_file_under_the_name_is_replaced_when_the_right_one_is_there(server, dest):
    dest.parent.mkdir()
    dest.write_bytes(b"old")
    server.status = 503
    with pytest.raises(InputError, match="the server answers 503"):
        fetch(server, dest)
    assert dest.read_bytes() == b"old" and left(dest) == ["weights.pth"]
    server.status = None
    fetch(server, dest)
    arrived(dest)


def test_broken_connections_are_gone_on_from(server, dest):
    server.cuts = [100_000, 50_000, 0, 1_999]
    fetch(server, dest)
    arrived(dest)
    assert [start for _, start, _ in server.requests] == [None, 100_000, 150_000, 150_000, 151_000]
    assert {tag for _, start, tag in server.requests if start} == {'"v1"'}


def test_a_server_that_breaks_off_again_and_again_is_given_up_and_gone_on_from_later(server, dest):
    server.cuts = [100_000, 0, 0, 0, 0]
    refused(
        server,
        dest,
        "cannot fetch http.*: the connection breaks again and again. Give the command again",
    )
    assert len(server.requests) == 3 and left(dest) == ["weights.pth.part", "weights.pth.part.etag"]
    server.cuts = []
    fetch(server, dest)
    assert server.requests[-1] == ("/weights.pth", 100_000, '"v1"')
    arrived(dest)


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_parts_without_a_strong_tag_are_gone_on_from_as_well(server, dest, tag):
    server.tag, server.cuts = tag, [100_000]
    fetch(server, dest)
    assert server.requests[-1] == ("/weights.pth", 100_000, None)
    arrived(dest)


def test_a_file_that_changed_on_the_server_is_fetched_anew(server, dest):
    server.data, server.cuts = bytes(len(DATA)), [100_000, 0, 0, 0]
    refused(server, dest, "cannot fetch")
    server.data, server.tag, server.cuts = DATA, '"v2"', []
    fetch(server, dest)
    assert server.requests[-1] == ("/weights.pth", 100_000, '"v1"') and len(server.requests) == 4
    arrived(dest)


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(server, dest):
    server.ranges, server.cuts = False, [100_000]
    fetch(server, dest)
    assert len(server.requests) == 2
    arrived(dest)


@pytest.mark.parametrize("wrong", [b"x" * 1000, DATA + b"more", DATA[:-1] + b"x"])
def test_a_wrong_part_is_thrown_away_once(server, dest, wrong):
    dest.parent.mkdir()
    dest.with_name("weights.pth.part").write_bytes(wrong)
    fetch(server, dest)
    assert [start for _, start, _ in server.requests] == [len(wrong), None]
    arrived(dest)


def test_a_whole_part_is_recognized(server, dest):
    dest.parent.mkdir()
    dest.with_name("weights.pth.part").write_bytes(DATA)
    fetch(server, dest)
    assert len(server.requests) == 1
    arrived(dest)


def test_a_server_that_sends_another_range_than_asked_for(server, dest):
    server.shift, server.cuts = 1, [100_000]
    fetch(server, dest)
    assert [start for _, start, _ in server.requests] == [None, 100_000, None]
    arrived(dest)


def test_a_wrong_file_is_refused_with_both_checksums_and_not_kept(server, dest):
    server.data = DATA[::-1]
    line = refused(server, dest, "is not the expected file: of 300,000 bytes the sha256 is")
    assert SHA in line and hashlib.sha256(DATA[::-1]).hexdigest() in line
    assert left(dest) == [] and len(server.requests) == 1


def test_a_file_cut_short_without_notice_is_refused(server, dest):
    server.length, server.cuts = False, [100_000]
    refused(server, dest, "of 100,000 bytes the sha256 is")
    assert left(dest) == []


def test_no_more_than_the_expected_bytes_are_taken(server, dest):
    server.data = bytes(4 * 2**20)
    for server.length in (True, False):
        refused(server, dest, "that one has 300,000 bytes, more are coming")
        assert left(dest) == []


def test_a_redirection_is_followed(server, dest):
    fetch(server, dest, url=server.url.replace("weights", "moved"))
    assert [path for path, _, _ in server.requests] == ["/moved.pth", "/weights.pth"]
    arrived(dest)


def test_a_redirection_out_of_encryption_is_not(server, dest, monkeypatch):
    """requests is made to believe that the first address was https."""
    get = download.requests.get
    monkeypatch.setattr(
        download.requests, "get", lambda url, **given: get(url.replace("https", "http"), **given)
    )
    url = server.url.replace("http", "https")
    refused(server, dest, "leads to http://127.*, which is not encrypted", url=url)
    assert left(dest) == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_refusal_names_the_status_and_the_way_without_it(server, dest, status):
    server.status = status
    line = refused(server, dest, f"the server answers {status}")
    assert "give its path in the place of --download" in line
    assert len(server.requests) == 1 and left(dest) == []


def test_without_a_network_it_says_the_way_without_one(server, dest):
    line = refused(server, dest, "there is no connection", url="http://127.0.0.1:9/weights.pth")
    assert "give its path in the place of --download" in line and left(dest) == []


def test_a_full_disk_is_one_line_and_what_came_is_kept(server, dest, monkeypatch):
    server.cuts = [100_000, 0, 0]
    refused(server, dest, "cannot fetch")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(*_):
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(download, "_write", write)
        refused(server, dest, r"cannot write .*weights\.pth: No space left")
    fetch(server, dest)
    assert server.requests[-1][1] == 100_000
    arrived(dest)


def test_a_place_that_cannot_be_written_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    refused(server, tmp_path / "file" / "weights.pth", "cannot write")


def test_two_processes_do_not_write_one_part(server, dest):
    dest.parent.mkdir()
    with open(dest.with_name("weights.pth.part"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused(server, dest, "another process is writing")
    fetch(server, dest)
    arrived(dest)


def test_the_table_of_public_files():
    assert list(download.FILES) == [
        "vgg16",
        "lpips",
        "inception",
        "resnet50",
        "resnet101",
        "efficientnet_lite0",
        "efficientnet_lite0_head",
        "clip",
        "dinov2",
    ]
    for file in download.FILES.values():
        assert file.url.startswith("https://") and file.name == pathlib.PurePosixPath(file.url).name
        assert (
            re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", file.sha256)
            and file.licence
            and file.size > 1000
        )
        published = re.search(r"-([0-9a-f]{8})\.pth$", file.url)
        assert not published or file.sha256.startswith(published[1])


def test_a_file_that_cannot_be_read_has_no_checksum(tmp_path):
    with pytest.raises(InputError, match="cannot read .*none: No such file"):
        download.digest(tmp_path / "none")
