"""Names lose what wrappers put before them.

Of raw and averaged weights nobody is given one without a word.
"""

import flax.serialization
import numpy as np
import pytest
import safetensors.numpy
from test_torch_files import BUILD, BYTES, number, numbers, storage, table, tuples, zipped

from evqgan.convert import __main__ as command
from evqgan.convert import names, systems, torch_files
from evqgan.core.errors import InputError

BOTH = "holds raw and averaged weights: say which by --weights=raw or --weights=ema"


def tensor(offset):
    """A pickled tensor of one number, `offset` itself."""
    ends = number(offset), numbers(1), numbers(1), b"\x89", b"}"
    return BUILD + tuples(storage(6), *ends) + b"R"


def read(place, which="", **items):
    file = zipped(place / "x.ckpt", table(**items), [("data/0", BYTES)])
    return {name: float(x[0]) for name, x in torch_files.read(file, which).items()}


@pytest.mark.parametrize(
    "given",
    [
        ["module.a.weight", "module.b"],
        ["_orig_mod.a.weight", "_orig_mod.b"],
        ["model._orig_mod.module.a.weight", "model._orig_mod.module.b"],
        ["a._orig_mod.weight", "b"],
        ["a.weight", "b"],
    ],
)
def test_prefixes_of_wrappers_are_gone(given):
    assert list(names.plain(dict.fromkeys(given, 0), "")) == ["a.weight", "b"]


def test_a_prefix_that_some_names_have_belongs_to_them():
    given = ["model.a", "loss.b", "module.c"]
    assert list(names.plain(dict.fromkeys(given, 0), "")) == given
    with pytest.raises(InputError, match=r"two of its weights are called a\.b once"):
        names.plain({"a._orig_mod.b": 0, "a.b": 0}, "")


@pytest.mark.parametrize("averaged", ["state_dict_ema", "ema", "model_ema"])
def test_averaged_weights_beside_raw_ones_are_chosen_by_a_flag(tmp_path, averaged):
    file = {"state_dict": table(a=tensor(1)), averaged: table(a=tensor(2))}
    with pytest.raises(InputError, match=BOTH) as caught:
        read(tmp_path, **file)
    assert str(tmp_path) in str(caught.value) and "broken" not in str(caught.value)
    assert read(tmp_path, "raw", **file) == {"a": 1} and read(tmp_path, "ema", **file) == {"a": 2}
    assert read(tmp_path, **{averaged: table(a=tensor(2))}) == {"a": 2}
    with pytest.raises(InputError, match="averaged weights alone: drop --weights=raw"):
        read(tmp_path, "raw", **{averaged: table(a=tensor(2))})


def test_averaged_weights_among_raw_ones_are_chosen_by_a_flag(tmp_path):
    counters = {"model_ema.decay": tensor(5), "model_ema.num_updates": tensor(5)}
    # The latter: latent-diffusion's.
    for theirs in ("model_ema.module.a.weight", "model_ema.aweight"):
        top = {"a.weight": tensor(1), "buffer": tensor(3), theirs: tensor(2), **counters}
        for file in (top, {"state_dict": table(**top)}):
            with pytest.raises(InputError, match=BOTH):
                read(tmp_path, **file)
            assert read(tmp_path, "raw", **file) == {"a.weight": 1, "buffer": 3}
            assert read(tmp_path, "ema", **file) == {"a.weight": 2, "buffer": 3}
    with pytest.raises(
        InputError, match="no averaged weights that are known as such: drop --weights=ema"
    ):
        read(tmp_path, "ema", a=tensor(1))


def test_the_same_holds_of_safetensors_and_msgpack(tmp_path):
    one, two = np.ones(1, np.float32), np.full(1, 2, np.float32)
    safetensors.numpy.save_file({"module.a": one, "module.ema.a": two}, tmp_path / "x.safetensors")
    (tmp_path / "x.msgpack").write_bytes(
        flax.serialization.msgpack_serialize({"params": {"a": one}, "ema_params": {"a": two}})
    )
    for read_one, file in (
        (torch_files.read, "x.safetensors"),
        (systems.read_msgpack, "x.msgpack"),
    ):
        with pytest.raises(InputError, match=BOTH):
            read_one(tmp_path / file)
        assert read_one(tmp_path / file, "raw") == {"a": one} and read_one(
            tmp_path / file, "ema"
        ) == {"a": two}


def test_the_flag_is_raw_or_ema(capsys, tmp_path):
    for system in ("vgg16", "taming"):
        assert command.main([system, "x.pth", str(tmp_path / "y"), "--weights=best"]) == 2
        assert capsys.readouterr().err == "error: --weights is raw or ema, not 'best'\n"
