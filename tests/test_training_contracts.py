"""A quantizer or a generator that breaks its contract is refused before a step is compiled."""

import sys
import types

import jax
import jax.numpy as jnp
import pytest
import test_stage1
import test_stage2

from evqgan.core.errors import ContractError
from evqgan.generators import maskgit
from evqgan.tokenizers.quantizers import fsq
from evqgan.training import contracts, optim, stage1, stage2

FILE = "evqgan/tokenizers/quantizers/mine.py"


class Mine(fsq.Quantizer):
    """A quantizer of which one thing is changed. __module__ is as if it lay in the package."""

    __module__ = "evqgan.tokenizers.quantizers.mine"
    broken: str = ""

    def __call__(self, z, train=False):
        z_q, ids, aux = super().__call__(z, train)
        changed = {
            "ids without depth": (z_q, ids[..., 0], aux),
            "dtype of ids": (z_q, ids.astype(jnp.uint8), aux),
            "z_q": (z_q[..., :1], ids, aux),
            "no loss": (z_q, ids, {"usage": aux["usage"]}),
            "vector": (z_q, ids, {**aux, "entropy": jnp.zeros(3)}),
            "two values": (z_q, ids),
        }
        return changed.get(self.broken, (z_q, ids, {**aux, self.broken or "extra": jnp.zeros(())}))

    def embed(self, ids):
        found = super().embed(ids)
        return found[..., :1] if self.broken == "embed" else found

    def codebook(self):
        return super().codebook()[0] if self.broken == "codebook" else super().codebook()


def tokenizer_with(quantizer):
    return types.SimpleNamespace(
        network=types.SimpleNamespace(quantizer=quantizer), grid=(2, 3), name="mine"
    )


def test_a_sound_quantizer_is_taken():
    contracts.check_quantizer(tokenizer_with(Mine()))


@pytest.mark.parametrize(
    "broken, words",
    [
        ("ids without depth", r"ids: expected an array \[2,2,3,1\] of int32, got .*\[2,2,3\]"),
        ("dtype of ids", "ids: expected .* of int32, got .* of uint8"),
        ("z_q", r"z_q: expected an array \[2,2,3,4\] of float32, got an array \[2,2,3,1\]"),
        ("no loss", "lacks 'quantizer_loss'"),
        ("vector", r"'entropy' of aux: expected a scalar, got an array \[3\]"),
        ("two values", r"return \(z_q, ids, aux\)"),
        ("embed", r"embed returns: expected an array \[2,2,3,4\]"),
        ("codebook", r"codebook returns: expected an array \[1,1000,4\]"),
    ],
)
def test_a_quantizer_that_returns_something_else_is_refused(broken, words):
    with pytest.raises(ContractError, match=f"^{FILE}: .*{words}"):
        contracts.check_quantizer(tokenizer_with(Mine(broken=broken)))


@pytest.mark.parametrize(
    "name, value", [("codes", 2**40), ("width", 0), ("depth", 0), ("width", 2.0)]
)
def test_numbers_that_a_quantizer_cannot_have_are_refused(name, value):
    quantizer = type("Quantizer", (Mine,), {"__module__": Mine.__module__, name: value})()
    with pytest.raises(ContractError, match=f"^{FILE}: expected {name} to be .* got {value}"):
        contracts.check_quantizer(tokenizer_with(quantizer))


def test_what_a_quantizer_lacks_is_named():
    class Quantizer:
        __module__ = Mine.__module__
        codes = width = depth = 4
        soft_targets = True

        def embed(self, ids): ...

    with pytest.raises(ContractError, match=f"^{FILE}: its Quantizer lacks codebook$"):
        contracts.check_quantizer(tokenizer_with(Quantizer()))
    Quantizer.codebook = Quantizer.embed
    with pytest.raises(ContractError, match="lacks soft_codes"):
        contracts.check_quantizer(tokenizer_with(Quantizer()))


def test_metrics_are_joined_and_a_name_that_two_of_them_have_is_refused():
    assert contracts.joined("mine.py", {"a": 1}, {"b": 2}, {}) == {"a": 1, "b": 2}
    with pytest.raises(ContractError, match=r"mine\.py returns a metric named 'b'"):
        contracts.joined("mine.py", {"a": 1, "b": 2}, {"b": 2})


@pytest.mark.parametrize("name", ["loss", "l2", "gradient_norm", "skipped"])
def test_a_quantizers_metric_cannot_replace_one_of_training(name, monkeypatch):
    module = types.ModuleType("evqgan.tokenizers.quantizers.mine")
    module.Quantizer = Mine
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = test_stage1.config_of()
    for broken in ("", name):
        config.tokenizer.quantizer = {"name": "mine", "broken": broken}
        stage = stage1.make(config)
        state = jax.eval_shape(stage.init)
        if not broken:
            _, metrics = jax.eval_shape(stage.update, state, test_stage1.batch_of())
            assert "extra" in metrics
            continue
        with pytest.raises(ContractError, match=f"^{FILE} returns a metric named '{name}'"):
            jax.eval_shape(stage.update, state, test_stage1.batch_of())


@pytest.fixture
def generator(monkeypatch):
    """generator(function, change) -> stage 2 of a MaskGIT whose function returns change(made)."""

    def of(function, change):
        module = types.ModuleType("evqgan.generators.mine")
        vars(module).update({name: x for name, x in vars(maskgit).items() if name[0] != "_"})
        made = getattr(maskgit, function)
        setattr(module, function, lambda *given, **keys: change(made(*given, **keys)))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        config = test_stage2.config_of()
        config.generator = {"name": "mine", "layers": 1, "width": 16, "heads": 2}
        config.loss = config.sample = {}
        return stage2.make(config)

    return of


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda made: (made[0], {"loss": made[0]}), "returns a metric named 'loss'"),
        (lambda made: (made[0], {"learning_rate": made[0]}), "a metric named 'learning_rate'"),
        (lambda made: (made[0][None], {}), r"the loss: expected a scalar of float32, got .*\[1\]"),
        (lambda made: (made[0], {"z": jnp.ones(4)}), r"the metric 'z': expected a scalar, got"),
        (lambda made: made[0], r"expected `loss` to return \(loss, metrics\)"),
    ],
)
def test_a_generators_loss_is_a_scalar_with_metrics_of_its_own(change, words, generator):
    stage = generator("loss", change)
    state = jax.eval_shape(stage.init)
    with pytest.raises(ContractError, match=f"^evqgan/generators/mine.py:? .*{words}"):
        jax.eval_shape(stage.update, state, test_stage1.batch_of())


def test_a_generators_evaluate_gives_sums_and_numbers(generator):
    stage = generator("evaluate", dict)
    state = optim.averaged(jax.eval_shape(stage.init))
    contracts.check_evaluate(stage.model, state)
    wrong = {
        r"gave cross_entropy@x as \[2\] for 2 images": {"cross_entropy@x": jnp.ones(2)},
        "gave nll, expected at least one name that": {"nll": jnp.ones((2, 2))},
        "gave list, expected a dict": [],
    }
    for words, made in wrong.items():
        stage = generator("evaluate", lambda _, made=made: made)
        with pytest.raises(ContractError, match=f"^evqgan/generators/mine.py: .*{words}"):
            contracts.check_evaluate(stage.model, state)


def test_a_network_without_a_field_that_it_is_given_is_refused(monkeypatch, generator):
    stage = generator("evaluate", dict)

    class Model:
        def __init__(self, codes, grid, dtype="float32"): ...

    monkeypatch.setattr(stage.model.module, "Model", Model)
    with pytest.raises(ContractError, match="generators/mine.py: its Model has no field latent"):
        stage2.make(stage.config)
