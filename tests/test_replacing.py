"""No command writes over a file that it did not write itself."""

import json

import numpy as np
import pytest
import workdirs
from PIL import Image

from evqgan import main
from evqgan.benchmark import __main__ as benchmark
from evqgan.convert import __main__ as convert
from evqgan.core import files, npz, pictures, replacing, weights
from evqgan.core.errors import InputError
from evqgan.doctor import __main__ as doctor
from evqgan.plot import __main__ as plot

IMAGE = np.zeros((32, 32, 3), np.uint8)


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return workdirs.copy(tmp_path_factory.mktemp("replacing") / "w")


@pytest.mark.parametrize(
    "name, write",
    [
        ("a.png", lambda path, maker: pictures.save_png(path, IMAGE, {"mode": maker})),
        ("a.json", lambda path, maker: files.save_json(path, {"name": maker})),
        ("a.safetensors", lambda path, maker: weights.save(path, {}, {"network": maker})),
    ],
)
def test_a_file_says_who_wrote_it(tmp_path, name, write):
    path = tmp_path / name
    replacing.check(path, "plot")  # there is nothing
    for maker in ("plot", "doctor"):
        write(path, maker)
        assert replacing.maker_of(path) == maker
    with pytest.raises(InputError, match=rf"{name} is there and was not written by plot: move it"):
        replacing.check(path, "plot")
    for other in (b"", b"\x89PNG\r\n\x1a\n", b"[1]", b"[" * 100_000, b'{"name": 1}'):
        path.write_bytes(other)
        with pytest.raises(InputError, match="is there and was not written by plot"):
            replacing.check(path, "plot")


def test_numbers_of_another_programs_samples_are_replaced_and_those_of_a_model_are_not(tmp_path):
    """Both are an evaluation.json; a model of ours has a step."""
    path = tmp_path / "theirs.json"
    for model, maker in (({"samples": "theirs"}, "distribution"), ({"step": 4}, None)):
        cards = {"distribution": {"numbers": ["fid"], "model": model}}
        files.save_json(path, {"numbers": {"fid": 1.0}, "protocols": cards})
        assert replacing.maker_of(path) == maker
    for damaged in ({"distribution": []}, [], {"distribution": {"model": None}}):
        files.save_json(path, {"numbers": {}, "protocols": damaged})
        assert replacing.maker_of(path) is None


def test_statistics_are_ours_by_their_card_and_a_folder_is_nobodys(tmp_path):
    npz.save(tmp_path / "ours.npz", card=np.asarray("{}"))
    replacing.check(tmp_path / "ours.npz", "reference")
    npz.save(tmp_path / "theirs.npz", mu=np.zeros(2))
    (tmp_path / "folder.png").mkdir()
    for name in ("theirs.npz", "folder.png"):
        with pytest.raises(InputError, match="was not written by reference"):
            replacing.check(tmp_path / name, "reference")


WRITTEN = pytest.mark.parametrize(
    "program, args, written",
    [
        (plot.main, ["attention", "--tokens=8", "--window=4", "--extend=2", "--out={}"], "a.png"),
        (plot.main, ["WORKDIR", "--out={}"], "a.png"),
        (doctor.main, ["--json={}"], "a.json"),
        (benchmark.main, ["sampling", "--json={}"], "a.json"),
        (benchmark.main, ["fits", "--json={}"], "a.json"),
        (benchmark.main, ["reconstruction", "--workdir=WORKDIR", "--out={}"], "a.png"),
        (benchmark.main, ["reference", "--folder=WORKDIR", "--size=8", "--out={}"], "a.npz"),
        (benchmark.main, ["table2", "--out=FOLDER"], "table2.json"),
        (benchmark.main, ["fig9", "--out=FOLDER"], "fig9.png"),
        (benchmark.main, ["comparison", "--config=none.py", "--out=FOLDER"], "comparison.png"),
        (convert.main, ["vgg16", "SOURCE", "{}"], "a.safetensors"),
        (convert.main, ["maskgit", "--back", "WORKDIR", "{}"], "a.ckpt"),
    ],
)


@WRITTEN
def test_commands_refuse_the_files_of_others_before_they_begin(
    tmp_path, capsys, program, args, written
):
    file = tmp_path / written
    file.write_bytes(b"of somebody else")
    assert program([arg.format(file).replace("FOLDER", str(tmp_path)) for arg in args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file} is there ")
    assert files_of(tmp_path) == {file.relative_to(tmp_path): b"of somebody else"}


@WRITTEN
def test_commands_refuse_a_folder_that_cannot_be_written_before_they_begin(
    tmp_path, capsys, program, args, written
):
    folder = tmp_path / "in the way"
    folder.write_bytes(b"of somebody else")
    file = folder / written
    assert program([arg.format(file).replace("FOLDER", str(folder)) for arg in args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write ") and str(folder) in line
    assert files_of(tmp_path) == {folder.relative_to(tmp_path): b"of somebody else"}


@pytest.mark.parametrize("more", [[], ["--layout"]])
@pytest.mark.parametrize("name, why", [("a.json", "was not written by "), ("a.json/b", "cannot w")])
def test_what_compile_only_finds_replaces_no_other_file(tmp_path, capsys, more, name, why):
    (tmp_path / "a.json").write_text("{}")
    args = ["--config=quickstart:tiny", "--compile_only=cpu", f"--json={tmp_path / name}"]
    assert main.main(["main", *args, *more]) == 2
    assert why in capsys.readouterr().err
    assert files_of(tmp_path) == {file.relative_to(tmp_path): b"{}" for file in tmp_path.iterdir()}


def test_a_command_replaces_what_it_wrote(tmp_path):
    out = tmp_path / "a.png"
    args = ["attention", "--tokens=8", "--window=4", "--extend=2", f"--out={out}"]
    assert plot.main([*args, "--block=0"]) == 0
    before = out.read_bytes()
    assert plot.main([*args, "--block=1"]) == 0 and out.read_bytes() != before
    for failed in (1, 2):
        json_file = tmp_path / "found.json"
        assert doctor.main(["--device=1000000", f"--json={json_file}"]) == 1, failed
        assert json.loads(json_file.read_text())["name"] == "doctor"


MODES = {
    "reconstruct": (["--mode=reconstruct", "--image={}"], ("in.png",)),
    "edit": (
        ["--mode=edit", "--image={}", "--box=0,0,8,8", "--label=cat", "--num=1"],
        ("edit_000.png", "masked.png", "strip.png"),
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_others_in_out_stay(place, tmp_path, capsys, mode):
    args, names = MODES[mode]
    image, out = tmp_path / "in.png", tmp_path / "out"
    Image.fromarray(IMAGE).save(image)
    out.mkdir()
    call = ["main", f"--workdir={place}", *(arg.format(image) for arg in args), f"--out={out}"]
    for name in names:
        Image.fromarray(IMAGE + 9).save(out / name)
        before = files_of(out)
        assert main.main(call) == 2
        assert f"{out / name} is there and was not written by {mode}" in capsys.readouterr().err
        assert files_of(out) == before
        (out / name).unlink()
    mine = out / "edit_007.png"
    Image.fromarray(IMAGE).save(mine)
    before = files_of(out)
    for _ in range(2):
        assert main.main(call) == 0
    assert {file.name for file in out.iterdir()} == {*names, mine.name}
    assert files_of(out).items() >= before.items()


def test_a_repeated_image_replaces_a_repeated_image_alone(place, tmp_path, capsys):
    made = ["main", f"--workdir={place}", "--mode=sample"]
    assert main.main([*made, "--num=1", f"--out={tmp_path / 'made'}"]) == 0
    call = [*made, f"--image={tmp_path / 'made/images/00000.png'}", f"--out={tmp_path / 'out'}"]
    for _ in range(2):
        assert main.main(call) == 0
    Image.fromarray(IMAGE).save(tmp_path / "out" / "repeated.png")
    before = files_of(tmp_path / "out")
    assert main.main(call) == 2
    assert "repeated.png is there and was not written by sample" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == before


def test_samples_and_evaluations_replace_no_other_files(place, tmp_path, capsys):
    Image.fromarray(IMAGE).save(tmp_path / "grid.png")
    (tmp_path / "evaluation.json").write_text("{}")
    before = files_of(tmp_path)
    for mode in (["--mode=sample", "--num=1"], ["--mode=evaluate"]):
        assert main.main(["main", f"--workdir={place}", *mode, f"--out={tmp_path}"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "holds other files, such as evaluation.json" in first
    assert "evaluation.json is not what evaluate writes" in second
    assert files_of(tmp_path) == before
    (tmp_path / "out" / "evaluation.json").mkdir(parents=True)
    call = ["main", f"--workdir={place}", "--mode=evaluate", f"--out={tmp_path / 'out'}"]
    assert main.main(call) == 2
    found = capsys.readouterr()
    assert "expected a file, but" in found.err and "loading" not in found.out
