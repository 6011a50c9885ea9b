"""Samples of another program: their numbers are those of the same images by other ways."""

import json

import numpy as np
import pytest

from evqgan.benchmark import __main__ as benchmark
from evqgan.core import limits, pictures
from evqgan.core.errors import InputError
from evqgan.data import generated
from evqgan.evals import finished, foreign_samples, image_set
from evqgan.metrics import pixels
from evqgan.metrics.frechet import frechet_distance, gaussian

SIZE, NUMBER = (16, 24), 9


def images(first, number=NUMBER):
    return np.stack([generated.draw(i, i, SIZE) for i in range(first, first + number)])


@pytest.fixture
def places(tmp_path):
    """A folder of samples, the same in an `.npz`, and a folder of real images."""
    for name, first in (("samples", 0), ("real", 50)):
        for i, image in enumerate(images(first)):
            pictures.save_png(tmp_path / name / f"{i:02d}.png", image)
    np.savez(tmp_path / "samples.npz", arr_0=images(0))
    return tmp_path


def call(place, *flags):
    return benchmark.main(
        ["distribution", *flags, "--features=pixels", "--crop=centre", f"--folder={place}/real"]
    )


@pytest.mark.parametrize("name", ["samples", "samples.npz"])
def test_their_numbers_are_of_the_images_as_they_are(name, places):
    file = places / "theirs.json"
    flags = ["--split=all", "--metrics=frechet,precision_recall", f"--out={file}", "--batch=4"]
    assert call(places, f"--samples={places / name}", *flags) == 0
    found = json.loads(file.read_text())
    made, real = (gaussian(pixels.colours(x)) for x in (images(0), images(50)))
    assert found["numbers"]["frechet_pixels"] == pytest.approx(
        frechet_distance(made, real), rel=1e-4
    )
    assert set(found["numbers"]) == {"frechet_pixels", "precision_pixels", "recall_pixels"}
    assert call(places, f"--samples={places / name}", *flags) == 0  # its own file is replaced
    card = found["protocols"]["distribution"]
    assert card["produced"]["count"] == NUMBER and card["real"]["count"] == NUMBER
    assert card["weights"] == card["run"]["dtype"] == image_set.UNKNOWN
    assert card["model"]["samples"] == name


def test_a_folder_and_an_npz_of_the_same_images_have_one_hash(places):
    hashes = []
    for name in ("samples", "samples.npz"):
        found = foreign_samples.read(places / name)
        np.testing.assert_array_equal(np.concatenate([*found.images.pieces]), images(0))
        hashes.append(found.model().digest)
    assert hashes[0] == hashes[1]


def test_two_sets_are_compared_where_it_is_said_that_they_may_differ(places, capsys):
    np.savez(places / "fewer.npz", arr_0=images(0, 7))
    files = [str(places / f"{name}.json") for name in ("samples", "fewer")]
    for name, file in zip(("samples.npz", "fewer.npz"), files, strict=True):
        given = f"--samples={places / name}", f"--out={file}", "--split=all"
        assert call(places, *given) == 0
    assert benchmark.main(["compare", *files]) == 2
    assert "produced.count is 9 in A, 7 in B" in capsys.readouterr().err
    assert benchmark.main(["compare", *files, "--differ=produced"]) == 0
    assert "samples.npz, samples of another program (" in capsys.readouterr().out


def test_features_of_real_images_count_against_memory_before_they_are_read(
    places, capsys, monkeypatch
):
    each = 2 * 4 * 192  # bytes of an image's colours, while parts become one array
    monkeypatch.setattr(limits, "of_machine", lambda: each * (NUMBER + NUMBER) - 1)
    given = f"--samples={places / 'samples'}", "--split=all", "--batch=1"
    assert call(places, *given) == 0  # Gaussians are small
    assert call(places, *given, "--metrics=mmd") == 2
    assert "features of 9 samples and 9 real images would take" in capsys.readouterr().err


def test_a_reference_file_takes_the_place_of_real_images(places, capsys):
    np.savez(places / "reference.npz", arr_0=images(50))
    given = f"--samples={places / 'samples'}", f"--reference={places / 'reference.npz'}"
    assert benchmark.main(["distribution", *given, "--features=pixels"]) == 0
    assert "frechet_pixels" in capsys.readouterr().out
    np.savez(places / "reference.npz", arr_0=images(50)[:, :8])
    assert benchmark.main(["distribution", *given, "--features=pixels"]) == 2
    assert "is of images of 24x8 (width x height), samples are of 24x16" in capsys.readouterr().err


def test_a_protocol_is_more_than_its_name(places, capsys):
    """Numbers that are not as it has them come with a warning, and another crop is refused."""
    np.savez(places / "reference.npz", arr_0=images(50))
    file = places / "theirs.json"
    given = f"--samples={places / 'samples'}", f"--reference={places / 'reference.npz'}"
    more = "--features=pixels", "--protocol=adm", f"--out={file}"
    assert benchmark.main(["distribution", *given, *more]) == 0
    usual = "9 generated images: published numbers of the protocol 'adm' are of 50,000"
    assert f"WARNING {usual}" in capsys.readouterr().out
    card = json.loads(file.read_text())["protocols"]["distribution"]
    assert card["protocol"] == "adm" and card["warnings"][0].startswith(usual)


def test_what_cannot_be_measured_is_one_line(places, capsys):
    for flags, said in (
        ([f"--samples={places / 'samples'}", "--protocol=adm"], "'adm' has the crop 'adm': leave"),
        ([f"--samples={places / 'none'}"], "expected a folder of images, or an .npz of them"),
        ([f"--samples={places / 'samples'}", "--metrics=fid"], "--metrics: there is no 'fid'"),
        ([f"--samples={places / 'samples'}", "--reference=x.npz"], "which real images: give one"),
    ):
        assert call(places, *flags) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
    given = ["distribution", f"--samples={places / 'samples'}", f"--folder={places / 'real'}"]
    assert benchmark.main(given) == 2
    assert "of 24x16 (width x height), and the crop of real images is 'adm'" in (
        capsys.readouterr().err
    )
    with pytest.raises(InputError, match=r"or an .npz of them, got the image .*01.png"):
        foreign_samples.read(places / "samples" / "01.png")
    pictures.save_png(places / "samples" / "z.png", images(0)[0][:8])
    with pytest.raises(InputError, match=r"z.png is of 24x8 .*, 00.png of 24x16 .* of one size"):
        list(foreign_samples.read(places / "samples").images.pieces)
    (places / "samples" / "z.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"z.png does not decode"):
        list(foreign_samples.read(places / "samples").images.pieces)
    np.savez(places / "one.npz", arr_0=images(0, 1))
    with pytest.raises(InputError, match="holds 1 image: two or more are needed"):
        foreign_samples.read(places / "one.npz")
    with pytest.raises(
        InputError, match="another program: python -m evqgan.benchmark distribution$"
    ):
        finished.read(places / "samples.npz")
