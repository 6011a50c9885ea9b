"""From a config to an object: every slip of a config's author is named.

The message has the nearest word that would have done.
"""

import sys
import types

import pytest
from flax import linen
from ml_collections import ConfigDict

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.generators import gpt, multigrained, rqtransformer
from evqgan.losses import logits, patchgan, projected
from evqgan.tokenizers import cnn, tokenizer
from evqgan.training import adversarial, optim


class Model(linen.Module):
    """Stands for a module that a config names."""

    width: int
    depths: tuple = (1,)
    dtype: str = "float32"


@pytest.fixture
def boxes(monkeypatch):
    """The package evqgan.boxes with one module, `swin`, that has a Model."""
    package, swin = types.ModuleType("evqgan.boxes"), types.ModuleType("evqgan.boxes.swin")
    package.__path__ = []
    swin.Model = Model
    monkeypatch.setitem(sys.modules, "evqgan.boxes", package)
    monkeypatch.setitem(sys.modules, "evqgan.boxes.swin", swin)


def made(**keys):
    return build.build("boxes", "Model", ConfigDict(keys), "config.tokenizer", dtype="bfloat16")


def test_a_config_becomes_the_object_it_names(boxes):
    assert made(name="swin", width=8, depths=(1, 2)) == Model(
        width=8, depths=(1, 2), dtype="bfloat16"
    )
    # Defaults live in the constructor.
    assert made(name="swin", width=8) == Model(width=8, dtype="bfloat16")


@pytest.mark.parametrize(
    "keys, message",
    [
        (
            {"name": "swin", "widht": 8},
            "config.tokenizer has no key 'widht': did you mean 'width'?",
        ),
        ({"name": "swin", "width": 8, "zzz": 1}, "has no key 'zzz': expected one of depths, width"),
        ({"name": "swin", "width": 8, "parent": None}, "has no key 'parent'"),  # linen's own field
        ({"name": "swin"}, "config.tokenizer needs the key 'width'"),
        ({"width": 8}, "config.tokenizer needs the key 'name'"),
        (
            {"name": "swim", "width": 8},
            "config.tokenizer names 'swim', no module with Model in evqgan/boxes/",
        ),
        (
            {"name": 3, "width": 8},
            "config.tokenizer names 3, no module with Model in evqgan/boxes/",
        ),
        (
            {"name": "swin", "width": "8"},
            "config.tokenizer.width expects a whole number from 0, got '8'",
        ),
        # The program's to give.
        ({"name": "swin", "width": 8, "dtype": "float32"}, "has no key 'dtype'"),
    ],
)
def test_a_slip_is_one_line_that_names_it(boxes, keys, message):
    with pytest.raises(InputError) as caught:
        made(**keys)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_module_without_the_entry_is_named(boxes):
    with pytest.raises(InputError, match=r"names 'swin', no module with Decoder in evqgan/boxes/"):
        build.build("boxes", "Decoder", {"name": "swin"}, "config.tokenizer.decoder")


def test_a_module_without_a_part_of_its_contract_is_told_which(boxes):
    message = r"no module with Model, Settings, loss in evqgan/boxes/: evqgan/boxes/swin.py lacks "
    with pytest.raises(InputError, match=f"{message}Settings, loss$"):
        build.module("boxes", "swin", "config.tokenizer", "Model", "Settings", "loss")
    with pytest.raises(InputError, match=r"no module with Decoder .*: evqgan/boxes/swin.py lacks"):
        build.module("boxes", "swin", "config.tokenizer", "Decoder")


def test_a_module_that_a_workdirs_config_names_and_that_is_gone_is_no_slip(boxes):
    file = "evqgan/boxes/swim.py"
    said = f"^w was made by code that has {file}"
    with pytest.raises(InputError, match=said) as caught, build.config_of("w"):
        made(name="swim", width=8)
    assert "did you mean" not in str(caught.value)
    # Other slips are told as ever.
    with pytest.raises(InputError, match="no key 'widht': did you mean"), build.config_of("w"):
        made(name="swin", widht=8)


def test_an_import_that_fails_inside_the_module_is_a_defect_and_no_input_error(
    tmp_path, monkeypatch, boxes
):
    (tmp_path / "broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.setattr(sys.modules["evqgan.boxes"], "__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        made(name="broken")


def test_plain_values_can_be_hashed_where_linen_needs_it():
    config = ConfigDict({"a": {"b": [1, [2, 3]]}, "c": (4,), "d": "text", "e": None})
    assert build.plain(config) == {"a": {"b": (1, (2, 3))}, "c": (4,), "d": "text", "e": None}
    hash(build.plain(config)["a"]["b"])


def test_what_the_program_gives_need_not_be_in_the_config():
    def function(*, width, dtype):
        return width, dtype

    assert build.call(function, {"width": 1}, "config.x", dtype="float32") == (1, "float32")
    with pytest.raises(InputError, match=r"config\.x needs the key 'dtype'"):
        build.call(function, {"width": 1}, "config.x")


def test_a_list_may_be_a_text_with_commas():
    def function(names: tuple[str, ...] = (), path: str = ""):
        return names, path

    keys = {"names": "a,b", "path": "a,b"}
    assert build.call(function, keys, "config.x") == (("a", "b"), "a,b")
    build.check(function, keys, "config.x")


def test_check_finds_a_slip_without_building():
    # A missing key is no slip: the program may give it.
    build.check(Model, {"depths": ()}, "config.x")
    with pytest.raises(InputError, match=r"config\.x has no key 'depth': did you mean 'depths'"):
        build.check(Model, {"depth": ()}, "config.x")


@pytest.mark.parametrize(
    "word, said", [("generater", "did you mean 'generator'?"), ("q", "expected one of a1, b2")]
)
def test_a_suggestion_is_the_closest_word_or_all_of_them(word, said):
    words = ["generator", "tokenizer"] if word == "generater" else ["b2", "a1"]
    assert build.suggestion(word, words) == said


CHOICES = [  # constructor, key, a slip, what is meant
    (Dataset, "crop", "rezise", "resize"),
    (optim.optimizer, "decay", "cosinus", "cosine"),
    (adversarial.Settings, "loss", "hing", "hinge"),
    (cnn.Encoder, "down", "pol", "pool"),
    (cnn.Encoder, "norm", "goup", "group"),
    (cnn.Decoder, "up", "nearst", "nearest"),
    (cnn.Decoder, "activation", "swich", "swish"),
    (logits.Distance, "of", "logit", "logits"),
    (patchgan.Critic, "norm", "bach", "batch"),
    (projected.Critic, "diffaug", ("colour",), "color"),
    (projected.Critic, "proj_type", 3, ""),
    (projected.Critic, "num_discs", 0, ""),
    (projected.Critic, "im_res", 100, ""),
    (gpt.Model, "activation", "glu", "gelu"),
    (gpt.Model, "condition", "clas", "class"),
    (gpt.Model, "tables", "share", "shared"),
    (rqtransformer.Model, "activation", ("gelu", "quickgelu"), "quick_gelu"),
    (multigrained.Model, "attention", "prefixed", "prefix"),
    (multigrained.Model, "global_tokens", "order", "ordered"),
    (multigrained.Model, "own", "part", "partial"),
    (multigrained.Model, "positions", "axis", "axes"),
    (multigrained.loss, "masks", "match", "matched"),
    (multigrained.Settings, "order", "rasta", "raster"),
    (multigrained.Settings, "schedule", "cosin", "cosine"),
    (multigrained.Settings, "choice", "haltn", "halton"),
    (multigrained.Settings, "guidance_schedule", "linar", "linear"),
    (multigrained.Settings, "remask_schedule", "rescaled", "rescale"),
    (tokenizer.assemble, "pixels", "units", "unit"),
]


@pytest.mark.parametrize("function, key, slip, meant", CHOICES)
def test_a_value_that_is_none_of_the_few_there_are_is_named(function, key, slip, meant):
    with pytest.raises(InputError, match=rf"^config\.x\.{key} expects .*one of ") as error:
        build.check(function, {key: slip}, "config.x")
    assert str(error.value).endswith(f": did you mean {meant!r}?" if meant else f"got {slip}")
