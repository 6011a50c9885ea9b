"""The models that ship: each is as good as when it was exported, and edits do not leak."""

import functools
import pathlib
import tomllib

import numpy as np
import pytest
import yaml
from scipy import ndimage

import evqgan
from evqgan.core import exported
from evqgan.export import check

SHIPPED = ("drawings",)
BYTES = 5_000_000  # of all files of a model
ROOT = pathlib.Path(__file__).parent.parent


@functools.cache
def loaded(name):
    return evqgan.load(name)


@functools.cache
def samples(name):
    """The samples of its check, as many and of the seed that it says."""
    num, seed, _ = check.bound(exported.EXAMPLES / name)
    return check.samples(loaded(name), num, seed)


def test_these_ship():
    assert exported.names() == [*SHIPPED]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "examples/*/*" in packages["package-data"]["evqgan"]


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_small_and_says_what_it_is(name):
    folder = exported.EXAMPLES / name
    assert sum(path.stat().st_size for path in folder.rglob("*")) < BYTES
    head = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert head["license"] == "cc-by-sa-4.0"
    tasks = {one["task"]["type"] for one in head["model-index"][0]["results"]}
    assert tasks == {"conditional-image-generation", "image-to-image"}
    assert "CC BY-SA 4.0" in (folder / "LICENSE.txt").read_text()
    assert "OpenMoji" in (folder / "LICENSE.txt").read_text()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_program_of_its_card_runs(name):
    """A card names the variables that it uses; this one is what `card.Card.use` writes."""
    text = (exported.EXAMPLES / name / "README.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    found = {}
    exec(program, found)
    assert found["again"].shape == found["images"].shape == (8, 64, 64, 3)
    assert (found["edited"][0] != found["images"][0])[found["mask"]].any()


@pytest.mark.parametrize("name", SHIPPED)
def test_samples_are_as_near_to_real_images_as_they_were(name):
    images, folder = samples(name), exported.EXAMPLES / name
    _, _, bound = check.bound(folder)
    assert check.distance(folder, images) < bound
    assert check.distance(folder, check.noise(loaded(name), len(images))) > bound


@pytest.mark.parametrize("name", SHIPPED)
def test_samples_are_reconstructed(name):
    """Samples are what the tokenizer makes of ids: it gives them back almost as they are."""
    model, images = loaded(name), samples(name)[:8]
    again = model.reconstruct(images)
    error = np.mean((again.astype(float) - images) ** 2)
    assert 10 * np.log10(255**2 / error) > 20


@pytest.mark.parametrize("name", SHIPPED)
def test_edits_change_nothing_outside_and_see_nothing_hidden(name):
    model, image = loaded(name), samples(name)[0]
    height, width = model.size
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 4 : width * 3 // 4] = True
    feather, label = 2, model.class_names[1]
    made = model.edit(image, mask, label, num=1, feather=feather)
    far = ndimage.distance_transform_edt(~mask) >= feather + 1
    np.testing.assert_array_equal(made[:, far], image[None, far])
    assert (made[:, mask] != image[mask]).any()
    other = image.copy()
    other[mask] = 255 - other[mask]
    np.testing.assert_array_equal(model.edit(other, mask, label, num=1, feather=feather), made)
