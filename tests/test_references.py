"""Reference statistics on disk: files of pytorch-fid, clean-fid and ADM are read, others not."""

import pickle

import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.metrics.frechet import frechet_distance, gaussian
from evqgan.metrics.references import Reference, holds, load_reference, save_reference

RNG = np.random.default_rng(0)
POOLED, SPATIAL = (gaussian(RNG.standard_normal((30, width))) for width in (6, 4))
ARRAYS = {"mu": POOLED.mean, "sigma": POOLED.covariance}
ADM = {**ARRAYS, "mu_s": SPATIAL.mean, "sigma_s": SPATIAL.covariance}


def equal(found, expected):
    return (
        found.mean.dtype == np.float64
        and np.array_equal(found.mean, expected.mean)
        and np.array_equal(found.covariance, expected.covariance)
        and found.count == expected.count
    )


def test_what_is_saved_is_loaded_bit_for_bit_and_has_the_names_of_the_others(tmp_path):
    file = tmp_path / "new" / "reference.npz"
    save_reference(file, Reference(POOLED))
    found = load_reference(file, width=6)
    assert equal(found.pooled, POOLED) and found.spatial is None
    with np.load(file) as saved:
        assert set(saved) == {"mu", "sigma", "count"}
    save_reference(file, Reference(POOLED, SPATIAL))
    found = load_reference(file, width=6, spatial_width=4)
    assert equal(found.pooled, POOLED) and equal(found.spatial, SPATIAL)
    with np.load(file) as saved:
        assert set(saved) == {*ADM, "count"}
    assert [path.name for path in file.parent.iterdir()] == ["reference.npz"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_others_are_read(tmp_path, save, dtype):
    file = tmp_path / "others.npz"
    save(file, **{name: x.astype(dtype) for name, x in ARRAYS.items()})  # pytorch-fid, clean-fid
    found = load_reference(file)
    assert found.pooled.count is None and found.pooled.covariance.dtype == np.float64
    assert frechet_distance(found.pooled, POOLED) < 1e-5
    images = np.zeros((3, 8, 8, 3), np.uint8)
    save(file, arr_0=images, **{name: x.astype(dtype) for name, x in ADM.items()})
    found = load_reference(file, 6, 4)
    assert frechet_distance(found.spatial, SPATIAL) < 1e-5


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"arr_0": np.zeros((2, 8, 8, 3), np.uint8)}, "it holds arr_0"),
        ({}, "it holds nothing"),
        ({"mu": POOLED.mean}, "it holds mu"),
        ({**ARRAYS, "mu": POOLED.mean[:4]}, "[4] and [6, 6]"),
        ({**ARRAYS, "mu": POOLED.mean * np.nan}, "NaN"),
        ({**ARRAYS, "sigma": POOLED.covariance[:, ::-1]}, "symmetric"),
        ({**ARRAYS, "mu": POOLED.mean.astype(str)}, "its numbers are <U"),
        ({**ARRAYS, "mu": POOLED.mean.astype(complex)}, "its numbers are complex128"),
        ({**ARRAYS, "count": np.zeros(2)}, "not a reference"),
        ({**ADM, "sigma_s": np.eye(3)}, "[4] and [3, 3]"),
    ],
)
def test_what_is_no_reference_is_refused_in_one_line(tmp_path, arrays, message):
    file = tmp_path / "bad.npz"
    np.savez(file, **arrays)
    with pytest.raises(InputError) as error:
        load_reference(file)
    text = str(error.value)
    assert message in text and str(file) in text and "\n" not in text


def test_files_that_are_no_archives_are_refused(tmp_path):
    file = tmp_path / "bad.npz"
    whole = tmp_path / "whole.npz"
    np.savez(whole, **ARRAYS)
    single = tmp_path / "single.npy"
    np.save(single, POOLED.mean)
    contents = [b"", b"some text", whole.read_bytes()[:200], single.read_bytes(), b"PK\x03\x04"]
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(InputError, match="not a reference .*: it is no .npz file") as error:
            load_reference(file)
        assert "pickle" not in str(error.value)
    for absent in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(InputError, match="not a reference"):
            load_reference(absent)
    with pytest.raises(InputError, match=f"is a folder: .* reference --folder={tmp_path} --size="):
        holds(tmp_path)


class Payload:
    """What a pickle would execute."""

    ran = False

    def __reduce__(self):
        return Payload.run, ()

    @staticmethod
    def run():
        Payload.ran = True
        return np.zeros(6)


def test_nothing_in_a_file_is_executed(tmp_path):
    file = tmp_path / "bad.npz"
    mean = np.empty(1, object)
    mean[0] = Payload()
    np.savez(file, **{**ARRAYS, "mu": mean})
    with pytest.raises(InputError, match="not a reference .*: it holds pickled objects, which are"):
        load_reference(file)
    file.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError, match="not a reference"):
        load_reference(file)
    assert not Payload.ran


@pytest.mark.parametrize(
    "sizes, message",
    [
        ((2048, None), "2,048 pooled features, it has 6"),
        ((6, 2023), "2,023 spatial features, it has 4"),
    ],
)
def test_references_of_other_features_are_refused(tmp_path, sizes, message):
    file = tmp_path / "reference.npz"
    save_reference(file, Reference(POOLED, SPATIAL))
    with pytest.raises(InputError, match=message):
        load_reference(file, *sizes)


def test_spatial_features_that_are_asked_for_must_be_there(tmp_path):
    file = tmp_path / "reference.npz"
    save_reference(file, Reference(POOLED))
    with pytest.raises(InputError, match="spatial features, it has none"):
        load_reference(file, 6, 4)
