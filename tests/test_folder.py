"""Plain folders: which files, which classes, which splits."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from evqgan.core import weights
from evqgan.core.errors import InputError
from evqgan.data import stored_ids
from evqgan.data.dataset import Dataset
from evqgan.data.folder import Folder, check_apart, shuffled
from evqgan.data.image_files import check_names, image_paths
from evqgan.data.survey import survey
from evqgan.metrics import references


def png(level=0):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png())
    return str(root)


def contents(source):
    return [
        (os.path.relpath(source.where(i), source.folder), source[i]["label"])
        for i in range(len(source))
    ]


def test_classes_are_sub_folders_by_name(tmp_path):
    folder = fill(
        tmp_path, *(f"{name}/{k}.png" for name in ("dog", "cat", "emu") for k in range(10))
    )
    source = Folder(folder, "all")
    assert source.class_names == ("cat", "dog", "emu")
    assert sorted(contents(source)) == sorted(
        (f"{name}/{k}.png", label)
        for label, name in enumerate(source.class_names)
        for k in range(10)
    )
    assert Folder(folder, "all", labelled=False).class_names == ()
    assert {label for _, label in contents(Folder(folder, "all", labelled=False))} == {0}


@pytest.mark.parametrize("name", [b"\xe4klasse/a.png", b"klasse/\xe4.png", b"two\nlines.png"])
def test_a_name_that_cannot_be_written_is_refused(name):
    """As those of an old archive, in Latin-1; not every system has such names itself."""
    check_names("there", ["klasse/ä b.png", "9.41\u202fAM.png", "\U0001f469\u200d\U0001f680.png"])
    with pytest.raises(InputError, match=r"'there' holds '.*', a name .*line: rename what has"):
        check_names("there", [os.fsdecode(name)])
    with pytest.raises(InputError, match="a name .* of a line, and 1 more: rename what has one$"):
        check_names("there", ["a.png", os.fsdecode(name), "a\nb.png"])


def test_of_names_that_are_refused_the_wrong_part_is_shown():
    paths = [f"klässe/s ä\tb/{k}.png" for k in range(3)]
    with pytest.raises(InputError, match=r"holds 'klässe/s ä\\tb', a name .* line: rename"):
        check_names("there", paths)
    with pytest.raises(InputError, match="'klässe/s .*, and 1 more: rename"):
        check_names("there", [*paths, "x/a\x00.png"])


def test_a_flat_folder_has_no_classes_and_only_images_count(tmp_path):
    folder = fill(
        tmp_path, "a.png", "b.JPG", "c.jpeg", "._a.png", ".hidden/d.png", "deep/down/e.webp"
    )
    (tmp_path / "notes.txt").write_text("no image")
    source = Folder(folder, "all")
    assert source.class_names == ()
    assert sorted(path for path, _ in contents(source)) == [
        "a.png",
        "b.JPG",
        "c.jpeg",
        "deep/down/e.webp",
    ]
    assert source[0]["image"] == png()


def test_default_splits_part_a_flat_folder(tmp_path):
    folder = fill(tmp_path, *(f"{k:03d}.png" for k in range(50)))
    train, held, everything = (
        [p for p, _ in contents(Folder(folder, s))] for s in ("train", "validation", "all")
    )
    assert (len(train), len(held)) == (45, 5)
    assert train + held == everything == shuffled(everything) and sorted(everything) != everything
    assert [p for p, _ in contents(Folder(folder, "sorted[:3]"))] == [
        "000.png",
        "001.png",
        "002.png",
    ]
    assert [p for p, _ in contents(Folder(folder, "train[:20%]+validation[1:]"))] == train[
        :9
    ] + held[1:]


def test_the_order_survives_new_files(tmp_path):
    before = [
        p for p, _ in contents(Folder(fill(tmp_path, *(f"{k}.png" for k in range(20))), "all"))
    ]
    after = [
        p for p, _ in contents(Folder(fill(tmp_path, *(f"new{k}.png" for k in range(5))), "all"))
    ]
    assert [p for p in after if p in before] == before


def test_images_that_come_later_move_none_across(tmp_path):
    def splits():
        return [
            {p for p, _ in contents(Folder(str(tmp_path), split))}
            for split in ("train", "validation")
        ]

    fill(tmp_path, *(f"{k}.png" for k in range(60)))
    train, held = splits()
    fill(tmp_path, *(f"later_{k}.png" for k in range(400)))
    more, more_held = splits()
    assert train < more and held < more_held and not more & more_held
    assert 0.06 < len(more_held) / 460 < 0.14


def test_what_is_no_image_is_counted_by_its_ending(tmp_path):
    fill(
        tmp_path,
        "cat/a.png",
        "cat/b.PNG",
        "notes.svg",
        "cat/c.SVG",
        "cat/d.psd",
        "README",
        ".hidden.svg",
    )
    assert Folder(str(tmp_path), "all").ignored == {".svg": 2, ".psd": 1, "none": 1}
    (tmp_path / "drawings").mkdir()
    (tmp_path / "drawings" / "a.svg").write_text("")
    with pytest.raises(
        InputError, match=r"holds no image; expected files ending in .*, found .svg 1"
    ):
        Folder(str(tmp_path / "drawings"), "all")


def test_tiny_folders_have_both_splits(tmp_path):
    folder = fill(tmp_path, "a.png", "b.png")
    assert len(Folder(folder, "train")) == len(Folder(folder, "validation")) == 1
    with pytest.raises(InputError, match="holds no example"):
        Folder(fill(tmp_path / "one", "a.png"), "validation")


@pytest.mark.parametrize("held", ["validation", "val", "valid", "test"])
def test_sub_folders_may_be_the_splits(tmp_path, held):
    folder = fill(
        tmp_path, *(f"train/{c}/{k}.png" for c in "xyz" for k in range(4)), f"{held}/y/0.png"
    )
    assert len(Folder(folder, "train")) == 12 and len(Folder(folder, "all")) == 13
    assert Folder(folder, "validation").class_names == ("x", "y", "z")
    assert (
        contents(Folder(folder, "validation"))
        == contents(Folder(folder, held))
        == [(f"{held}/y/0.png", 1)]
    )


def test_train_alone_is_parted_and_a_class_may_be_called_train(tmp_path):
    alone = fill(tmp_path / "alone", *(f"train/{c}/{k}.png" for c in "xy" for k in range(10)))
    assert Folder(alone, "train").class_names == ("x", "y")
    assert (len(Folder(alone, "train")), len(Folder(alone, "validation"))) == (18, 2)
    vehicles = fill(
        tmp_path / "vehicles", *(f"{c}/{k}.png" for c in ("train", "bus") for k in range(3))
    )
    assert Folder(vehicles, "train").class_names == ("bus", "train")


def test_splits_by_other_spellings_and_what_is_in_their_way(tmp_path):
    other = fill(
        tmp_path / "other", *(f"{top}/{c}/0.png" for top in ("Training", "Val") for c in "xy")
    )
    assert [len(Folder(other, split)) for split in ("train", "val", "validation", "all")] == [
        2,
        2,
        2,
        4,
    ]
    assert Folder(other, "train").class_names == ("x", "y")
    for name, stray in (("a", "preview.png"), ("b", "extra/z/0.png"), ("c", "train2/0.png")):
        folder = fill(tmp_path / name, "train/x/0.png", "val/x/0.png", stray)
        with pytest.raises(InputError, match="expected train/ and val/ alone") as caught:
            Folder(folder, "train")
        assert f"config.dataset.folder = {folder!r}" in str(caught.value)
        assert f"there are images, {stray}: move these" in str(caught.value)
    fill(tmp_path / "a", *(f"{k}.png" for k in range(5)))
    with pytest.raises(InputError, match="images, 0.png, 1.png, 2.png and 3 more: move"):
        Folder(tmp_path / "a", "train")
    twice = fill(tmp_path / "twice", "train/x/0.png", "Train/x/0.png", "val/x/0.png")
    with pytest.raises(InputError, match="the same split twice"):
        Folder(twice, "train")


def test_numbers_for_names_are_in_the_order_of_numbers(tmp_path):
    folder = fill(tmp_path, *(f"{k}/0.png" for k in range(1, 12)))
    assert Folder(folder, "all").class_names == tuple(map(str, range(1, 12)))


def test_a_class_that_training_lacks_is_refused(tmp_path):
    folder = fill(tmp_path, "train/x/0.png", "val/x/0.png", "val/unheard/0.png")
    assert Folder(folder, "train").class_names == ("x",)
    with pytest.raises(InputError, match="of the class 'unheard', which train/ does not have"):
        Folder(folder, "validation")


@pytest.mark.parametrize("name", ["Test/{}.png", "test/unknown/{}.png"])
@pytest.mark.parametrize("held", ["val", ""])
def test_images_of_a_competition_whose_classes_nobody_knows_are_left_out(tmp_path, name, held):
    fill(tmp_path, *(f"train/{c}/{k}.png" for c in ("x", "y") for k in range(20)))
    fill(tmp_path, *(f"{held}/{c}/0.png" for c in ("x", "y") if held))
    folder = fill(tmp_path, *(name.format(k) for k in range(3)))
    found = Folder(folder, "validation")
    assert (len(found) == 2) == (not found.divided) == bool(held)
    assert len(found.left_out) == 3 and not {*found.left_out} & {*found.part("all").paths}
    assert found.passed_over() == ["3 images of test/ left out, of no class"]
    lines = survey(Dataset(folder=folder, size=4)).lines()
    assert lines[0].startswith(f"{42 if held else 40} images in")
    where = name.split("/")[0]
    assert lines[-1] == (
        f"WARNING 3 images in {where}/ left out: none is in a class of the images to train on"
    )
    assert Folder(folder, "validation", labelled=False).left_out == ()


def test_a_folder_test_of_some_of_the_classes_stays_a_split(tmp_path):
    fill(tmp_path, "train/x/0.png", "train/y/0.png", "test/x/0.png")
    assert contents(Folder(str(tmp_path), "validation")) == [("test/x/0.png", 0)]
    fill(tmp_path, "test/1.png")
    with pytest.raises(InputError, match="1.png is of the class '', which train/ does not have"):
        Folder(str(tmp_path), "validation")


def test_train_alone_is_no_upper_folder_of_classes(tmp_path):
    fill(tmp_path, *(f"train/{c}/{k}.png" for c in ("x", "y") for k in range(20)))
    assert not any("WARNING" in line for line in survey(Dataset(folder=str(tmp_path))).lines()[:4])
    assert "sub-folders" not in "".join(survey(Dataset(folder=str(tmp_path))).notes)


def test_links_are_followed_but_not_round_in_circles(tmp_path):
    fill(tmp_path / "elsewhere", "0.png", "1.png")
    fill(tmp_path / "data", "cat/0.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "cat" / "higher").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "data" / "dog")
    assert image_paths(str(tmp_path / "data")) == ["cat/0.png", "dog/0.png", "dog/1.png"]


def test_folders_that_link_to_each_other_are_refused(tmp_path):
    """They would be read by every way through them."""
    for name in "abcd":
        fill(tmp_path / "data" / name, "0.png")
        for other in "abcd".replace(name, ""):
            (tmp_path / "data" / name / other).symlink_to(tmp_path / "data" / other)
    with pytest.raises(InputError, match="is a link in a folder that itself is linked 2 times"):
        image_paths(str(tmp_path / "data"))


@pytest.mark.parametrize("link", ["data/cat", "data/train/cat"])
def test_a_workdir_lies_apart_from_classes_that_are_links(tmp_path, link):
    fill(tmp_path / "elsewhere", "0.png", "1.png")
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    check_apart(tmp_path / "run", str(tmp_path / "data"))
    with pytest.raises(InputError, match="lies in the folder of images"):
        check_apart(tmp_path / "elsewhere" / "run", str(tmp_path / "data"))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_folder_that_several_links_name_is_read_under_each(tmp_path, monkeypatch, reverse):
    """In whichever order the system lists them."""
    fill(tmp_path / "elsewhere", "0.png", "1.png")
    for name in ("cat", "dog"):
        (tmp_path / "data" / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "train" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "validation").symlink_to("train")
    walk = os.walk

    def listing(*given, **also):
        for parent, folders, files in walk(*given, **also):
            folders.sort(reverse=reverse)
            yield parent, folders, sorted(files, reverse=reverse)

    monkeypatch.setattr(os, "walk", listing)
    below = [f"{name}/{k}.png" for name in ("cat", "dog") for k in range(2)]
    for split in ("train", "validation"):
        source = Folder(str(tmp_path / "data"), split)
        assert sorted(source.paths) == [f"{split}/{path}" for path in below]
        assert source.class_names == ("cat", "dog")


def test_a_relative_path_that_is_not_there_is_told_where_it_begins(tmp_path, monkeypatch):
    """As of a config file, or of a run that goes on in another folder than it was started in."""
    fill(tmp_path / "images", "0.png", "1.png")
    monkeypatch.chdir(tmp_path)
    assert len(Folder("images", "all")) == 2
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    begins = f"in {os.getcwd()}, where this command was given and relative paths begin"
    for looked_for in (
        lambda: Folder("images", "train"),
        lambda: stored_ids.read_info("ids"),
        lambda: weights.require("files", ["vgg16"]),
        lambda: references.holds("reference.npz"),
    ):
        with pytest.raises(InputError) as caught:
            looked_for()
        message = str(caught.value)
        assert begins in message and "goes on in the folder where it was started" in message
        assert "\n" not in message
    with pytest.raises(InputError) as caught:
        Folder(str(tmp_path / "nothing"), "train")
    assert "relative paths begin" not in str(caught.value)


def test_errors_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    file = tmp_path / "file.png"
    file.write_bytes(png())
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    for folder, message in [
        (tmp_path / "missing", "expects a folder of images, got .*missing"),
        (file, "which is no folder"),
        (link, "which is no folder, as .*link is a link to nowhere, which is not there: set"),
        (tmp_path / "empty", "holds no image; expected files ending in"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            Folder(str(folder), "train")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has no split 'tran': did you mean 'train'"):
        Folder(str(tmp_path), "tran")


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    """By a stand-in for the system call: the tests may run as a user who may read everything."""
    fill(tmp_path, "a/0.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="/a' cannot be read: Permission denied"):
        image_paths(str(tmp_path))


def test_a_file_that_vanished_is_an_input_error(tmp_path):
    source = Folder(fill(tmp_path, "a.png", "b.png"), "all")
    os.remove(source.where(0))
    with pytest.raises(InputError, match="cannot read .*b.png: No such file"):
        source[0]
