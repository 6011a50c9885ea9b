"""Stage 2: training a generator on the ids of a frozen tokenizer (paper, Sec. 3.2 and 3.3).

Eq. 2 is L = -E[sum over masked tokens x_i of log p(x_i | L_T, G_T)]; L_T are local tokens, G_T the
global ones. The sum itself is `generators.multigrained.loss`, and `masking` chooses what is masked;
other generators have losses of their own. `GeneratorStage.update` is one training step.
"""

import dataclasses
from typing import Any

import jax

from evqgan import models
from evqgan.core import build, exported, files, public_names, schema, stores
from evqgan.core.config_files import of_tokenizer
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype
from evqgan.data import stored_ids, transforms
from evqgan.data.dataset import Dataset
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import contracts, optim, skipping
from evqgan.training.run_length import RunLength
from evqgan.training.skipping import Metrics


def tokenizer_section(
    model: dict, weights: str = "", dtype: Dtype | None = None, soft: float = 0.0
) -> None:
    """Take the keys of config.tokenizer, so that `build` can check them; see `resolve`.

    model: config.tokenizer of the tokenizer's own run. Leave it out, or {}: training reads it from
      the workdir in `weights`. Only with weights = "random" it has to be given.
    weights: the tokenizer's workdir, or an exported model; "random": an untrained tokenizer.
    dtype: that it computes in; None: the dtype that it was trained in.
    soft: the temperature at which codes are drawn in training; 0: the nearest codes.
    """


def resolve(config: Any, classes: int | None = None) -> Any:
    """Return the config, completed by what the tokenizer's workdir and the data determine.

    It gets config.tokenizer.model and dtype from the tokenizer's workdir, config.tokenizer.weights;
    weights = "random" is an untrained tokenizer, which tests use, and needs `model` in the config.
    config.tokenizer.soft: the temperature at which codes are drawn in training, with their
    probabilities as targets, by a generator with soft targets (RQ-VAE, Sec. 3.2.3); 0 or absent:
    the nearest codes.
    With stored ids (config.dataset.codes) config.stored_ids is set to what identifies them: the run
    goes on with these ids alone.
    classes: the number of classes of the data, once that is known, see `with_classes`.
    """
    if not config.tokenizer.get("model"):
        config = with_model(config)
    if config.dataset.get("codes"):
        info = stored_info(config)
        with config.unlocked():
            config.stored_ids = stored_ids.summary(info)
    return config if classes is None else with_classes(config, classes)


def with_classes(config: Any, classes: int) -> Any:
    """Return the config with config.generator.classes = `classes` where it is None.

    None is as many as the data have. Without classes there are none to be dropped: then
    config.generator.class_dropout becomes 0, too.
    """
    if "classes" not in config.generator or config.generator.classes is not None:
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.generator.classes = classes
        if not classes and "class_dropout" in config.generator:
            config.generator.class_dropout = 0.0
    return config


def with_model(config: Any) -> Any:
    """Return the config with config.tokenizer.model and dtype: what the tokenizer was trained in.

    A dtype that is given stays. Raises InputError if config.tokenizer.weights is no tokenizer's
    workdir.
    """
    weights = config.tokenizer.weights
    folder = exported.find(weights)
    file = folder / "config.json"
    if not weights or not file.is_file():
        hint = exported.meant(folder)
        hint += "train one first, with --config of a stage 1, and give its --workdir here"
        if (inner := folder / "tokenizer").is_dir():
            hint = f"give {inner}"
        raise InputError(
            f"config.tokenizer.weights = {weights!r} is no tokenizer workdir (no {file})"
            f"{stores.beginning(weights)}: "
            f"{(weights and public_names.advice(folder)) or hint}"
        )
    theirs = of_tokenizer(folder)[0] if exported.is_one(folder) else files.read_json(file)
    if theirs.get("stage") != "stage1":
        raise InputError(
            f"config.tokenizer.weights = {weights!r} is the workdir of {theirs.get('stage')}, "
            "not of stage1"
        )
    with config.unlocked():
        config.tokenizer.model = theirs["tokenizer"]
        config.tokenizer.dtype = config.tokenizer.get("dtype") or theirs["dtype"]
    return config


def stored_info(config: Any) -> dict:
    """Return the info of the stored ids config.dataset.codes.

    Raises InputError unless their grid, codes and dtype are the config's.
    """
    folder = config.dataset.codes
    info = stored_ids.read_info(folder)
    tokenizer = tokenizers.of_generator(config)
    shape = build.call(Dataset, config.dataset, "config.dataset").shape
    quantizer, grid = tokenizer.quantizer, [side // tokenizer.factor for side in shape]
    expected = {"codes": quantizer.codes, "depth": quantizer.depth, "latent": grid}
    expected["tokenizer"] = {**info["tokenizer"], "dtype": tokenizers.dtype_of(config)}
    stored_ids.require(folder, info, expected)
    return info


def make(config: Any, examples: int = 1, classes: int | None = None) -> "GeneratorStage":
    """Return the stage of a resolved `config`.

    examples: the size of the training set.
    classes: how many the data has; None: not known, and config.generator.classes = None is
      checked as one class.
    """
    schema.check(config)
    config = with_classes(config, 1 if classes is None else classes)
    build.call(tokenizer_section, config.tokenizer, "config.tokenizer")
    model = models.of_stage2(config)
    contracts.check_quantizer(model.tokenizer)
    given = config.generator.get("classes", 0)
    if classes is not None and given not in (0, classes):
        raise InputError(f"config.generator.classes is {given}, but the data set has {classes}")
    keys = build.plain(config.get("loss", {}))
    build.check(model.module.loss, keys, "config.loss", models.GIVEN_TO_LOSS)
    model.check_settings(model.settings(config.get("sample", {})))
    check_soft_targets(config, model)
    run = RunLength.of(config, examples)
    updater = optim.updater(config.optimizer, "config.optimizer", run, ema=0.9999)
    return GeneratorStage(config, model, updater)


def check_soft_targets(config: Any, model: models.TokenGenerator) -> None:
    """Raise InputError if config.tokenizer.soft asks for soft targets that cannot be had."""
    temperature = config.tokenizer.get("soft", 0.0)
    if temperature and not model.traits.soft_targets:
        raise InputError(
            f"config.tokenizer.soft = {temperature}, but the {config.generator.name} generator "
            "learns from the nearest codes alone: leave it out, or take rqtransformer"
        )
    if temperature and config.dataset.get("codes"):
        raise InputError(
            f"config.tokenizer.soft = {temperature} draws codes of images anew in each step, which "
            "stored ids (dataset.codes) do not have: for a new run give --config.tokenizer.soft=0, "
            "or leave dataset.codes out"
        )


@dataclasses.dataclass(frozen=True, eq=False)  # jit asks for a hash, and by identity there is one
class GeneratorStage:
    """The stage as the loop knows it, see `training.stage.Stage`; made by `make`. Its state:

    step, skipped: counters, see `skipping`.
    params: what is trained.
    ema: averaged params, which sample; absent where none are averaged.
    opt: the optimizer's.
    tokenizer: frozen; kept here so that a generator's workdir is complete in itself.
    """

    config: Any
    model: models.TokenGenerator
    updater: optim.Updater
    progress_keys: tuple[str, ...] = ()
    early_steps = 0
    data_advice = "for a new run encode the images once (--mode=encode, config.dataset.codes)"

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the log."""
        flat, (h, w) = self.model.flat, self.model.tokenizer.grid
        if flat == 1:
            return ()
        return (f"a code at each of {flat} depths is a token of its own: {h} x {w * flat}",)

    def init(self) -> dict:
        """Return the state of an untrained generator on an untrained tokenizer."""
        rng = jax.random.key(self.config.seed)
        params = self.model.init(rng)
        state = {**skipping.init_counters(), **self.updater.init(params)}
        return {**state, "tokenizer": self.model.tokenizer.init(rng)}

    def check(self, state: dict) -> None:
        """Raise ContractError unless the generator's `evaluate` is as `Generator` says."""
        contracts.check_evaluate(self.model, state)

    def load(self, state: dict, saved: Any = ()) -> dict:
        """Return the state with the tokenizer of config.tokenizer.weights.

        saved: the parts of the state that are there already, maybe "tokenizer".
        """
        if "tokenizer" in saved:
            return state
        weights = self.config.tokenizer.weights
        if self.config.dataset.get("codes"):
            self._require_tokenizer_of_stored_ids()
        if weights == "random":
            return state
        return {**state, "tokenizer": self._restored()}

    def _restored(self) -> dict:
        """Return the weights of config.tokenizer.weights; InputError if another model's."""
        weights, given = self.config.tokenizer.weights, self.config.tokenizer.model
        try:
            return self.model.tokenizer.restored(weights)[0]
        except InputError as error:
            theirs = of_tokenizer(weights)[0].tokenizer
            if build.plain(given) == build.plain(theirs):
                raise
            raise InputError(
                f"config.tokenizer.model is not the tokenizer in {weights}: take that one by "
                f"--config.tokenizer.model={{}} ({error})"
            ) from error

    def _require_tokenizer_of_stored_ids(self) -> None:
        """Raise InputError unless the stored ids are of the weights that this run begins with."""
        folder, weights = self.config.dataset.codes, self.config.tokenizer.weights
        if weights == "random":
            raise InputError(
                f"config.dataset.codes = {folder!r}: "
                "there are no stored ids of an untrained tokenizer"
            )
        info, digest = stored_ids.read_info(folder), stored_ids.weights_digest(self._restored())
        stored_ids.require(
            folder, info, {"tokenizer": {**info["tokenizer"], "fingerprint": digest}}
        )

    def early_update(self, state: dict, batch: dict) -> tuple[dict, Metrics]:
        """Take the same step as `update`: this stage leaves nothing out at first."""
        return self.update(state, batch)

    def update(self, state: dict, batch: dict) -> tuple[dict, Metrics]:
        """Take one step down the gradient of Eq. 2.

        batch: {"image" uint8 [B,H,W,3] or "ids" int32 [B,h,w,D], "label" int32 [B]}. Returns the
        state, and metrics.
        """
        tokenizer, step = state["tokenizer"], state["step"]
        rng = jax.random.fold_in(jax.random.key(self.config.seed + 1), step)
        data = {name: batch[name] for name in ("image", "ids", "label") if name in batch}
        keys = build.plain(self.config.get("loss", {}))
        source = f"evqgan/generators/{self.model.name}.py"

        def equation_2(
            params: dict, variables: dict, part: dict, rng: jax.Array
        ) -> tuple[jax.Array, tuple[dict, Metrics]]:
            tokens, rng = self._tokens(tokenizer, part, rng)
            # By way of `TokenGenerator.loss` this is `loss` of the generator's module.
            made = self.model.loss(params, tokenizer, **tokens, rng=rng, **keys)
            loss, metrics = contracts.loss_and_metrics(made, source)
            return loss, (variables, metrics)

        differentiate = self.updater.gradients(jax.value_and_grad(equation_2, has_aux=True))
        # A generator has no variables beside its parameters.
        (loss, (_, metrics)), grads = differentiate(state["params"], {}, data, rng)
        metrics = contracts.joined(source, {"loss": loss}, metrics)
        is_finite = skipping.all_finite(metrics, grads)
        part = optim.part_of(state)
        new, more = self.updater.step(part, grads, step, is_finite)
        state, counts = skipping.skip_if_nonfinite(state, new, is_finite)
        return state, contracts.joined(source, metrics, more, counts)

    def _tokens(
        self, tokenizer: dict, batch: dict, rng: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Return the data of the loss, {"ids", "label"[, "soft_targets"]}, and an unused rng.

        soft_targets: the probabilities of all codes [B,h,w,D,V], with config.tokenizer.soft.
        """
        temperature = self.config.tokenizer.get("soft", 0.0)
        if not temperature:
            return {"ids": self.model.ids_of(tokenizer, batch), "label": batch["label"]}, rng
        rng, rng_codes = jax.random.split(rng)
        out: Any = self.model.tokenizer.network.apply(
            tokenizer,
            transforms.scale(batch["image"]),
            temperature,
            rng_codes,
            method=tokenizers.Tokenizer.soft_codes,
        )
        ids, soft_targets = out
        return {"ids": ids, "label": batch["label"], "soft_targets": soft_targets}, rng
