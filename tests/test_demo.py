"""The web page without a browser: its tabs, bounds, and PNG files that say how they were made."""

import importlib.util
import io
import shlex
import socket
import struct
import threading
import urllib.request
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import evqgan
from evqgan.core import ending, pictures, png_records, scratch
from evqgan.core.errors import InputError
from evqgan.demo import __main__ as command_line
from evqgan.demo import choices, filling, jobs, results, server, shell, studio, uploads
from evqgan.inference import mode_edit, mode_repeat, records
from evqgan.main import main


@pytest.fixture(scope="module")
def drawn():
    """The studio of the example model."""
    with studio.opened(evqgan.load("drawings"), "drawings") as made:
        yield made


@pytest.fixture(scope="module")
def generated(drawn):
    """Three images of a class with a changed setting, and the events on the way."""
    events = []
    result = drawn.generate(8, 3, 5, values={"temperature": 0.9}, tell=events.append)
    return result, events


def read(path):
    """The pixels of a PNG."""
    return np.asarray(Image.open(path))


def run(words, tmp_path, monkeypatch):
    """Run a shell command of the page in a folder, and return its --out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    program, *arguments = shlex.split(words)[2:]
    assert program == "evqgan.main" and main(["", *arguments]) == 0
    return tmp_path / arguments[-1].removeprefix("--out=")


def test_images_are_seen_while_they_are_filled(drawn, generated):
    result, events = generated
    seen = [event.picture for event in events if event.picture is not None]
    known = [int((grids != drawn.model.codes).sum()) for grids in seen]
    tokens = 3 * 64
    assert known == [tokens // 4, tokens // 2, tokens * 3 // 4, tokens]
    np.testing.assert_array_equal(drawn.model.decode(seen[-1]), np.stack(result.images))
    grey = (filling.shown(drawn.model, seen[0]) == 128).all(axis=-1)
    assert 0.5 < grey.mean() < 0.6  # three quarters of three of four cells
    lines = [event.line for event in events if event.line]
    assert any("compiling the sampler" in x and "once for this size" in x for x in lines)


def test_the_shell_command_makes_the_same_and_its_png_is_repeated(
    drawn, generated, tmp_path, monkeypatch, capsys
):
    result, _ = generated
    out = run(result.command, tmp_path, monkeypatch)
    files = sorted((out / "images").iterdir())
    np.testing.assert_array_equal([read(x) for x in files], result.images)
    assert png_records.read(files[2]) == png_records.read(result.paths[2])

    monkeypatch.setattr(mode_repeat, "load_model", lambda *given: drawn.model)
    again = ["--workdir=drawings", "--mode=sample", f"--image={files[2]}"]
    assert main(["", *again, "--out=again"]) == 0
    assert "has the very pixels of" in capsys.readouterr().out
    np.testing.assert_array_equal(read(tmp_path / "again" / "repeated.png"), result.images[2])
    assert main(["", *again, "--out=again", "--seed=1"]) == 2
    assert "leave --seed out" in capsys.readouterr().err
    assert main(["", *again, "--config.sample.steps=3"]) == 2
    assert "leave --config.sample.steps out" in capsys.readouterr().err


def test_the_page_repeats_a_png(drawn, generated, tmp_path):
    result, _ = generated
    again, record = drawn.repeat(result.paths[1])
    np.testing.assert_array_equal(again.images[0], result.images[1])
    assert (record["seed"], record["number"], record["sampler"]["temperature"]) == (5, 1, 0.9)
    assert png_records.read(again.paths[0]) == png_records.read(result.paths[1])
    other = {**png_records.read(result.paths[0]), "weights": "0" * 64}
    pictures.save_png(tmp_path / "other.png", result.images[0], other)
    with pytest.raises(InputError, match="whose weights are others"):
        drawn.repeat(tmp_path / "other.png")


def test_the_archive_holds_what_was_made(generated):
    result, _ = generated
    with zipfile.ZipFile(result.archive) as file:
        assert file.namelist() == [*(f"image_{i:03d}.png" for i in range(3)), "command.txt"]
        assert file.read("command.txt").decode().strip() == result.command
    assert result.captions == ["flags"] * 3


def test_edits_are_those_of_the_shell(drawn, generated, tmp_path, monkeypatch):
    image = generated[0].images[0]
    hidden = uploads.boxed(image, [16, 16, 48, 48])
    result = drawn.edit(image, hidden, 8, 2, 1)
    with zipfile.ZipFile(result.archive) as file:
        file.extractall(tmp_path)
    monkeypatch.setattr(mode_edit, "load_model", lambda *given: drawn.model)
    out = run(result.command, tmp_path, monkeypatch)
    for i, (made, path) in enumerate(zip(result.images, result.paths, strict=True)):
        np.testing.assert_array_equal(read(out / f"edit_{i:03d}.png"), made)
        assert (made[:8] == image[:8]).all() and (made != image).any()
        assert png_records.read(path) == png_records.read(out / f"edit_{i:03d}.png")
    with pytest.raises(InputError, match="made by 'edit'"):
        drawn.repeat(result.paths[0])


def test_outpaint_class_edit_and_reconstruct(drawn, generated):
    image = generated[0].images[0]
    wide = drawn.outpaint(image, uploads.sides(image, [0, 0, 32, 0]), 8, 2, 0)
    assert wide.images[0].shape == (64, 96, 3) and "--outpaint=0,0,32,0" in wide.command
    anew = drawn.reclass(image, uploads.middle(image, 50), [0, 3], 0)
    assert anew.captions == ["faces", "food"] and len(anew.command.splitlines()) == 2
    assert (anew.images[0][:12] == image[:12]).all()
    again, ids = drawn.reconstruct(image)
    np.testing.assert_array_equal(ids, drawn.model.encode(image)[0])
    np.testing.assert_array_equal(again.images[1], drawn.model.reconstruct(image)[0])
    np.testing.assert_array_equal(again.images[2], pictures.error_map(*again.images[:2]))


def test_what_a_browser_sends_is_checked(drawn, tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    hidden = uploads.middle(image, 50)
    for num, seed in ((0, 0), (17, 0), (1.5, 0), (None, 0), (True, 0), (1, -1), (1, 2**53)):
        with pytest.raises(InputError, match="expected a whole number"):
            drawn.generate(0, num, seed)
    for label in (9, "rabbit", [1], None):
        with pytest.raises(InputError, match="class"):
            drawn.edit(image, hidden, label, 1, 0)
    for preset in ("nothing", ["nothing"], None):
        with pytest.raises(InputError, match="no preset"):
            drawn.generate(0, 1, 0, preset=preset)
    wrong = (("temperature", -1), ("steps", 2.5), ("steps", "x"), ("top_p", 7), ("steps", 65))
    for key, value in wrong:  # is told by the name of its field
        with pytest.raises(InputError, match=f"^{choices.FIELDS[key][0]}: expect"):
            drawn.generate(0, 1, 0, values={key: value})
    assert len(drawn.reclass(image, hidden, list(range(9)), 0).images) == 9  # all there are
    for classes in ([], list(range(9)) * 2):
        with pytest.raises(InputError, match="number of classes|one class or more"):
            drawn.reclass(image, hidden, classes, 0)
    (tmp_path / "photo.png").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"^photo\.png: expected a PNG"):
        drawn.repeat(str(tmp_path / "photo.png"))


def test_files_of_older_results_are_removed(drawn, generated, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "KEPT", 3)
    monkeypatch.setattr(drawn.files, "folder", tmp_path)
    image = generated[0].images[0]
    made = [drawn.files.keep("image", [image], [""], "", "") for _ in range(5)]
    is_there = [bool(list(tmp_path.glob(f"*/{name}"))) for name in ("image_000.png", "images.zip")]
    assert all(is_there) and len(list(tmp_path.iterdir())) == 3
    assert read(made[-1].paths[0]).shape == (64, 64, 3)


def test_settings_become_arguments_and_presets(drawn, tmp_path):
    names = list(drawn.presets)
    assert names[0] == choices.OWN and any("temperature 0.8" in name for name in names)
    changes, arguments = drawn.changes(names[1], {"steps": 4, "temperature": None})
    assert changes == {"temperature": 0.8, "steps": 4}
    assert sorted(filter(None, arguments)) == [
        "--config.sample.steps=4",
        "--config.sample.temperature=0.8",
    ]
    file = tmp_path / "fine.json"
    file.write_text('{"generator": "multigrained", "sample": {"steps": 6}}')
    found = choices.of_file(drawn.model, file)
    assert found.settings["steps"] == 6 and found.flag == f"--preset={file}"
    changes, beside = choices.changed(drawn.model, found, {"temperature": 0.7})
    # The file's settings are whole: what it does not name is as it is by default, not the model's.
    assert changes == {"steps": 6, "choice_temperature": 4.5, "temperature": 0.7}
    assert beside == {"temperature": 0.7}
    assert choices.classes(drawn.model, every=True)[:2] == [
        ("every class in turn", choices.EVERY),
        ("faces", 0),
    ]
    quoted = shell.command("a b", "sample", {"labels": "it's", "num": None})
    assert shlex.split(quoted)[3:6] == ["--workdir=a b", "--mode=sample", "--labels=it's"]


def png_header(width, height):
    """The beginning of a PNG that says it has so many pixels."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_uploads_are_bounded_before_they_are_decoded(tmp_path, monkeypatch):
    file = tmp_path / "picture.png"
    for width, height in ((60_000, 60_000), (8_192, 8_192)):
        file.write_bytes(png_header(width, height))
        with pytest.raises(InputError, match="at most 33,554,432 pixels"):
            uploads.read(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as the page has it, see `server.bound_pictures`
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", uploads.PIXELS)
        file.write_bytes(png_header(8_256, 5_504))
        with pytest.raises(InputError, match="at most 33,554,432 pixels"):
            uploads.read(file)
    for format in ("PNG", "WEBP"):
        Image.new("1", (6000, 4000)).save(file, format)
        with pytest.raises(InputError, match="at most 256 times its bytes, got 6,000 x 4,000 pix"):
            uploads.read(file)
    file.write_text("text")
    with pytest.raises(InputError, match="expected a picture"):
        uploads.read(file)
    with file.open("wb") as large:
        large.truncate(uploads.BYTES + 1)
    with pytest.raises(InputError, match="at most 16,777,216 bytes"):
        uploads.read(file)
    with pytest.raises(InputError, match="upload a picture first"):
        uploads.read(None)
    with pytest.raises(InputError, match="at most 1,048,576 pixels"):
        uploads.fitted(np.zeros((1, 20_000, 3), np.uint8), (64, 64))
    assert uploads.fitted(np.zeros((30, 60, 3), np.uint8), (64, 64)).shape == (64, 128, 3)


def test_what_the_brush_paints_is_hidden():
    image = np.zeros((64, 96, 3), np.uint8)
    shown = uploads.canvas(image)["background"]
    assert shown.shape == (320, 480, 3)
    layer = np.zeros((320, 480, 4), np.uint8)
    layer[50:100, 100:163] = 255  # 5 pixels for one; the last column is painted by 3 of 5
    hidden = uploads.brushed({"layers": [layer]}, image)
    assert hidden.sum() == 10 * 13 and hidden[10:20, 20:33].all()
    for layers in ([], [np.zeros_like(layer)], [layer[:-1]], [layer[..., :3]]):
        with pytest.raises(InputError):
            uploads.brushed({"layers": layers}, image)
    with pytest.raises(InputError, match="nothing is painted yet"):
        uploads.brushed("no layers", image)
    for box in ([0, 0, 97, 64], [5, 5, 5, 6], [0, 0, 1.5, 2], [None, 0, 1, 1], [0, 0, 1e400, 1]):
        with pytest.raises(InputError):
            uploads.boxed(image, box)
    for grown in ([0, 0, 0, 0], [-1, 0, 0, 5], [10**6, 0, 0, 0]):
        with pytest.raises(InputError):
            uploads.sides(image, grown)


def test_records_are_read_strictly(tmp_path):
    image, path = np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png"
    pictures.save_png(path, image, {"seed": 2**62, "class": "Ångström"})
    assert png_records.read(path) == {"seed": 2**62, "class": "Ångström"}
    np.testing.assert_array_equal(read(path), image)
    pictures.save_png(path, image)
    with pytest.raises(InputError, match="does not say how it was made"):
        png_records.read(path)
    (tmp_path / "text").write_text("text")
    for wrong in (tmp_path / "text", tmp_path / "nothing", tmp_path):
        with pytest.raises(InputError):
            png_records.read(wrong)
    good = png_records.chunk_of({"seed": 1}).chunks[0][1]
    bad = (b"{", b"[1]", b'{"a": NaN}', b"[" * 10_000, b'{"a": "%s"}' % (b"x" * 20_000), b"\xff{}")
    for text in bad:
        with pytest.raises(InputError, match="damaged"):
            png_records.parse(with_chunks(b"evqgan\0" + text))
    with pytest.raises(InputError, match="damaged"):
        png_records.parse(with_chunks(good, good))
    assert png_records.parse(with_chunks(good)) == {"seed": 1}
    with pytest.raises(InputError, match="does not say"):
        png_records.parse(with_chunks(good)[:-8])  # cut off


def with_chunks(*texts):
    """The beginning of a PNG with text chunks."""
    parts = [png_records.SIGNATURE]
    for text in texts:
        check = struct.pack(">I", zlib.crc32(b"tEXt" + text))
        parts.append(struct.pack(">I", len(text)) + b"tEXt" + text + check)
    return b"".join(parts)


def test_a_record_that_lies_is_refused(drawn, generated):
    good = png_records.read(generated[0].paths[0])
    assert records.checked(good)["number"] == 0
    for change in (
        {"seed": -1},
        {"seed": "1"},
        {"number": 2**40},
        {"batch": 0},
        {"sampler": []},
        {"label": None},
        {"mode": "edit"},
    ):
        with pytest.raises(InputError):
            records.checked({**good, **change})
    for change in ({"label": 9}, {"sampler": {"nothing": 1}}, {"sampler": {"steps": 10**9}}):
        with pytest.raises(InputError):
            record = records.checked({**good, **change})
            records.repeat(drawn.model, drawn.of_model, record)


def test_events_of_work_end_with_its_result_or_its_error():
    def work(tell):
        tell(jobs.Event(line="one"))
        return 5

    assert [(x.line, x.result) for x in jobs.events(work)] == [("one", None), ("", 5)]

    def fails(tell):
        tell(jobs.Event(line="one"))
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        list(jobs.events(fails))


def test_work_whose_visitor_has_left_does_not_begin(monkeypatch):
    begins, ended = threading.Event(), threading.Event()

    def waits(tell):
        tell(jobs.Event(line="waiting"))
        begins.wait(60)
        try:
            tell(jobs.Event(picture="seen by nobody"))  # a computation goes on to its end
            beat = threading.Thread(target=tell, args=(jobs.Event(line="still at work"),))
            beat.start()  # a heartbeat's, whom nobody hears: no error of its thread
            beat.join()
            tell(jobs.Event(line="at work"))
        except jobs.Abandoned:
            ended.set()
            raise

    events = jobs.events(waits)
    assert next(events).line == "waiting"
    events.close()
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    begins.set()
    assert ended.wait(60)
    assert [args.thread.name for args in failed] == []


def test_an_address_that_is_not_of_this_machine_is_told_as_that(monkeypatch):
    assert server.port_at("127.0.0.1", 0) > 0
    message = "cannot listen at {}:7860: {}.*: give an address of this machine as --host, or leave"
    with pytest.raises(InputError, match=message.format("192.0.2.1", "")):  # kept for examples
        server.port_at("192.0.2.1", 7860)

    def unknown(*given, **keys):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(InputError, match=message.format("nowhere", "Name or service not known")):
        server.port_at("nowhere", 7860)


def test_the_files_of_the_page_go_even_if_its_process_is_ended_at_work(drawn):
    with studio.opened(drawn.model, "drawings") as made:
        folder = made.files.folder
        assert folder.is_dir()
        ending.let_go()  # as the thread does that ends a process in the midst of a compilation
        assert not folder.parent.exists()
    with pytest.raises(OSError), scratch.folder(where=folder):
        pass


def test_without_gradio_a_line_says_how_to_install_it(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "gradio" else find(name, *a)
    )
    assert command_line.main([]) == 2
    assert 'pip install "gradio>=6,<7"' in capsys.readouterr().err
    assert command_line.main(["--help"]) == 0 and "--port" in capsys.readouterr().out
    assert command_line.main(["--prot=1"]) == 2


@pytest.fixture
def unbound(monkeypatch):
    """For a test that starts the page, which bounds pictures in the whole process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    for name in (*server.QUIET, "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    with warnings.catch_warnings():
        yield


@pytest.mark.parametrize("value", [None, -3, 2**60, 1.5])
def test_a_field_gives_what_is_typed_to_the_studio_which_says_what_is_wrong(drawn, unbound, value):
    """Gradio's own bounds say neither which field it is nor what it takes.

    Sliders keep them: a browser sets what is typed in one to the nearest value that there is.
    """
    gradio = pytest.importorskip("gradio", reason="Gradio is not installed: the extra `demo`")
    from evqgan.demo import page

    blocks = page.build(drawn).blocks.values()
    fields = [one for one in blocks if type(one) is gradio.Number]
    assert len([one for one in fields if one.label == "Seed"]) == 3
    assert all(field.preprocess(value) == value for field in fields)
    with pytest.raises(InputError, match="^the seed: expected a whole number from 0 to "):
        drawn.generate(8, 1, value)


def test_the_page_is_built_served_on_loopback_and_says_what_is_wrong(drawn, unbound):
    gradio = pytest.importorskip("gradio", reason="Gradio is not installed: the extra `demo`")
    from evqgan.demo import wiring

    page, address = server.start(drawn, "127.0.0.1", 0)
    try:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as answer:
            policy, text = answer.headers["content-security-policy"], answer.read().decode()
        assert "default-src 'self'" in policy and "fonts.googleapis" not in text
        taken = int(address.rstrip("/").split(":")[-1])
        with pytest.raises(InputError, match="the port is in use: give another --port"):
            server.start(drawn, "127.0.0.1", taken)
        assert command_line.main([f"--port={taken}", "--workdir=nowhere"]) == 2
    finally:
        page.close(verbose=False)
    assert not page.share and page.analytics_enabled is False
    stream = wiring.streamed(drawn, lambda tell: drawn.repeat(None), wiring.outcome)
    with pytest.raises(gradio.Error, match="choose a PNG"):
        list(stream)
