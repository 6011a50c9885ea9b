"""The CNN tokenizer against recordings of taming-transformers: VQGAN with its losses, Gumbel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discriminator_tables import PATCHGAN_IGNORED, patchgan
from golden_files import files, load, nudged
from lpips_table import LPIPS_PACKAGE, LPIPS_PACKAGE_IGNORED
from test_cnn import (
    coders,
    compare,
    distances,
    margins,
    nchw,
    nhwc,
    norm,
    settings,
    shapes,
    without,
)

from evqgan.convert import mapping, taming
from evqgan.core.errors import InputError
from evqgan.losses import gan, lpips
from evqgan.losses.patchgan import Critic, initialize
from evqgan.tokenizers import tokenizer

UNTOLD = ("commitment", "temperature", "kl_weight")  # by weights


def part(weights, prefix):
    """The weights whose names begin so, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in weights.items()
        if name.startswith(prefix)
    }


class VQGAN:
    """A recording of taming-transformers' VQModel and its loss.

    It has tokenizer, critic and distance, with its weights.
    """

    def __init__(self, path):
        config, self.weights, inputs, self.outputs = load(path)
        config = settings(config)
        quantizer = {
            "name": "vqgan" if config.pop("legacy") else "vq",
            "codes": config.pop("n_embed"),
            "width": config.pop("embed_dim"),
            "commitment": config.pop("beta"),
        }
        config.pop("sane_index_shape")  # recorded as [B,h,w] in any case
        self.config = {**coders(config.pop("ddconfig")), "quantizer": quantizer}
        self.model = tokenizer.make(self.config)
        self.image = nhwc(inputs["x"])
        self.like = shapes(self.model, self.image.shape[1])
        self.variables = taming.tokenizer_to_ours(self.weights, self.like, self.config)

        loss = dict(config.pop("loss"))
        assert loss.pop("disc_in_channels") == 3, "our critic judges colour images"
        assert not loss.pop("disc_conditional", False), (
            "a critic that sees a condition is not built"
        )
        norm, layers = "act" if loss.pop("use_actnorm") else "batch", loss.pop("disc_num_layers")
        self.critic = Critic(layers, loss.pop("disc_ndf"), norm)
        self.kind, self.weight = loss.pop("disc_loss"), loss.pop("disc_weight")
        self.codebook_weight = loss.pop("codebook_weight")
        self.perceptual_weight = config.pop("perceptual_weight")
        self.step, self.start = config.pop("global_step"), loss.pop("disc_start")
        self.disc_factor = loss.pop("disc_factor", 1.0)
        self.factor = self.disc_factor * float(gan.ramp(self.step, self.start))
        # The original never reads it.
        loss.pop("pixelloss_weight", None)
        config.pop("pixelloss_weight")
        assert not {**loss, **config}, f"nothing of ours stands for {sorted({**loss, **config})}"

        theirs = part(self.weights, "loss.discriminator.")
        self.critic_table = patchgan(layers, norm)
        like = jax.eval_shape(self.critic.init, jax.random.key(0), self.image)
        found = mapping.to_ours(self.critic_table, theirs, like, PATCHGAN_IGNORED)
        self.critic_variables = {"batch_stats": {}, **found}
        self.fresh = any(
            name.endswith(".initialized") and not array.any() for name, array in theirs.items()
        )
        distance = lpips.Distance()
        like = jax.eval_shape(distance.init, jax.random.key(0), self.image, self.image)["frozen"]
        theirs = part(self.weights, "loss.perceptual_loss.")
        self.frozen = mapping.to_ours(LPIPS_PACKAGE, theirs, like, LPIPS_PACKAGE_IGNORED)

    def judge(self, params, stats, image):
        """Logits of the critic in training, and its running statistics after them."""
        variables = {"params": params, "batch_stats": stats}
        logits, changed = self.critic.apply(variables, image, train=True, mutable=["batch_stats"])
        return logits, {**stats, **changed.get("batch_stats", {})}

    def everything(self, variables, critic, frozen, image):
        """All that is recorded by our names and layouts; compiled once."""
        run = functools.partial(self.model.apply, variables)
        r = {
            "enc": run(image, method=lambda m, x: m.encoder(x)),
            "prequant": run(image, method="latents"),
        }

        def reconstruct(params):
            z_q, ids, aux = self.model.apply({"params": params}, image, train=True, method="encode")
            image_again = self.model.apply({"params": params}, z_q, method="decode")
            return (image_again, aux["quantizer_loss"]), (z_q, ids)

        (r["rec"], r["qloss"]), pull, (r["quant"], r["indices"]) = jax.vjp(
            reconstruct, variables["params"], has_aux=True
        )
        r["dec_from_codes"] = run(run(r["indices"], method="embed"), method="decode")
        critic = initialize(self.critic, critic, r["rec"]) if self.fresh else critic
        params, stats = critic["params"], critic["batch_stats"]

        def reconstruction_loss(reconstruction):
            perceptual = jnp.zeros(())
            if self.perceptual_weight > 0:
                perceptual = jnp.mean(
                    lpips.Distance().apply({"frozen": frozen}, image, reconstruction)
                )
            return jnp.mean(
                jnp.abs(image - reconstruction)
            ) + self.perceptual_weight * perceptual, perceptual

        def generator_loss(reconstruction):
            logits, after = self.judge(params, stats, reconstruction)
            return gan.generator_loss(self.kind, logits), after

        (nll, perceptual), of_nll = jax.value_and_grad(reconstruction_loss, has_aux=True)(r["rec"])
        (adversarial, stats), of_adversarial = jax.value_and_grad(generator_loss, has_aux=True)(
            r["rec"]
        )

        def last(gradient):
            """Norm of a loss's gradient in the last layer, from that in the reconstruction."""
            return norm(pull((gradient, jnp.zeros(())))[0]["decoder"]["to_rgb"]["kernel"])

        weight = self.weight * gan.adaptive_weight(last(of_nll), last(of_adversarial))
        total = nll + weight * self.factor * adversarial + self.codebook_weight * r["qloss"]
        pulled = of_nll + weight * self.factor * of_adversarial, jnp.float32(self.codebook_weight)
        (r["grad"],) = pull(pulled)
        r |= {"aeloss": total, "log_ae/total_loss": total, "log_ae/quant_loss": r["qloss"]}
        r |= {
            "log_ae/nll_loss": nll,
            "log_ae/rec_loss": nll,
            "log_ae/p_loss": perceptual,
            "log_ae/d_weight": weight,
        }
        r |= {
            "log_ae/disc_factor": self.factor,
            "log_ae/g_loss": adversarial,
            "grad_norm_all_ae": norm(r["grad"]),
        }

        def critic_loss(params):
            real, after = self.judge(params, stats, image)
            fake, after = self.judge(params, after, r["rec"])
            return self.factor * gan.critic_loss(self.kind, real, fake), (real, fake, after)

        (value, (real, fake, stats)), r["grad_disc"] = jax.value_and_grad(
            critic_loss, has_aux=True
        )(params)
        r |= {
            "discloss": value,
            "log_disc/disc_loss": value,
            "grad_norm_disc": norm(r["grad_disc"]),
        }
        r |= {"log_disc/logits_real": jnp.mean(real), "log_disc/logits_fake": jnp.mean(fake)}
        r["disc_after"] = {"params": params, "batch_stats": stats}
        r["disc_logits_fake_eval"] = self.critic.apply(r["disc_after"], r["rec"])
        return r

    @functools.cached_property
    def compiled(self):
        return jax.jit(self.everything)

    def computed(self, number=None):
        """`everything` by the recorded names and in their layouts.

        With a number, they are of an image nudged by it.
        """
        image = self.image if number is None else nudged(self.image, number)
        r = self.compiled(self.variables, self.critic_variables, self.frozen, image)
        trees = {name: r.pop(name) for name in ("grad", "grad_disc", "disc_after")}
        codebook = self.variables["params"]["quantizer"]["codebook"][0]
        r["vq_margin_min_median"] = margins(distances(r["prequant"], codebook))
        r["indices"] = r["indices"][..., 0]
        r = {name: nchw(x) if np.ndim(x) == 4 else x for name, x in r.items()}
        grads = {"grad": taming.tokenizer_to_theirs({"params": trees["grad"]}, self.config)}
        grads["grad_disc"] = mapping.to_theirs(self.critic_table, {"params": trees["grad_disc"]})
        grads["disc_after"] = mapping.to_theirs(self.critic_table, trees["disc_after"])
        return {
            **r,
            **{f"{group}/{name}": x for group, found in grads.items() for name, x in found.items()},
        }


class GumbelVQ:
    """A recording of taming-transformers' GumbelVQ without its loss."""

    def __init__(self, path):
        config, self.weights, inputs, self.outputs = load(path)
        config = settings(config)
        theirs = config.pop("gumbel")
        quantizer = {
            "name": "gumbel",
            "codes": theirs.pop("n_embed"),
            "width": theirs.pop("embed_dim"),
            "temperature": theirs.pop("tau"),
            "kl_weight": theirs.pop("kl_weight"),
        }
        self.config = {**coders(config.pop("ddconfig")), "quantizer": quantizer}
        assert not {**theirs, **config}, (
            f"nothing of ours stands for {sorted({**theirs, **config})}"
        )
        self.model = tokenizer.make(self.config)
        self.image, self.noise = nhwc(inputs["x"]), nhwc(inputs["gumbel_noise"])
        self.like = shapes(self.model, self.image.shape[1])
        self.variables = taming.tokenizer_to_ours(self.weights, self.like, self.config)

    def evaluated(self, variables):
        run = functools.partial(self.model.apply, variables)
        z = run(self.image, method="latents")
        logits = run(z, method=lambda m, z: m.quantizer.scores(z))
        image, ids, _ = run(self.image)
        return {"prequant": z, "logits": logits, "dec_argmax": image, "argmax_ind": ids[..., 0]}

    def trained(self, variables, hard):
        """A training pass with the recorded noise; hard: choices are passed on whole."""
        model = self.model.clone(quantizer=self.model.quantizer.clone(hard=hard))

        def loss(params):
            run = functools.partial(model.apply, {"params": params})
            z = run(self.image, method="latents")
            z_q, ids, aux = run(z, method=lambda m, z: m.quantizer(z, train=True, noise=self.noise))
            image = run(z_q, method="decode")
            value = jnp.mean(jnp.square(image - self.image)) + aux["quantizer_loss"]
            return value, {"zq": z_q, "kl": aux["quantizer_loss"], "ind": ids[..., 0], "rec": image}

        (value, r), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return {**r, "mse_plus_kl": value}, grads

    def computed(self, number=None):
        assert number is None, "nothing here has a kink"
        r = jax.jit(self.evaluated)(self.variables)
        # Not said whether before or after / temperature.
        gap = margins(-np.float64(r["logits"]) - self.noise)
        gaps = (gap, gap / self.config["quantizer"]["temperature"])
        recorded = self.outputs["vq_margin_min_median"]
        r["vq_margin_min_median"] = min(gaps, key=lambda gap: np.abs(gap - recorded).max())
        for name, hard in (("train_hard", True), ("train_soft", False)):
            found, grads = jax.jit(self.trained, static_argnums=1)(self.variables, hard)
            grads = taming.tokenizer_to_theirs({"params": grads}, self.config)
            r |= {f"{name}/{key}": x for key, x in found.items()}
            r |= {f"{name}/grad/{key}": x for key, x in grads.items()}
        return {
            name: nchw(x) if np.ndim(x) == 4 and "/grad/" not in name else x
            for name, x in r.items()
        }


KINDS = {"taming_vqgan*.npz": VQGAN, "taming_gumbelvq*.npz": GumbelVQ}


@pytest.fixture(
    scope="module",
    params=[(kind, path) for pattern, kind in KINDS.items() for path in files(pattern)],
    ids=lambda param: param[1].stem,
)
def recording(request):
    kind, path = request.param
    return kind(path)


def test_the_tokenizer_and_its_losses_are_the_recorded_ones(recording):
    # Of the critic's norms, which we do not keep.
    counters = (".num_batches_tracked", ".initialized")
    compare(
        recording.computed,
        {name: x for name, x in recording.outputs.items() if not name.endswith(counters)},
    )


def test_weights_go_back_to_the_originals(recording):
    back = taming.tokenizer_to_theirs(recording.variables, recording.config)
    assert set(back) == {name for name in recording.weights if not name.startswith("loss.")}
    for name, array in back.items():
        np.testing.assert_array_equal(array, recording.weights[name], err_msg=name)


def test_the_config_is_told_by_the_weights(recording):
    assert without(taming.tokenizer_config(recording.weights), *UNTOLD) == without(
        recording.config, *UNTOLD
    )


def test_weights_of_other_models_are_refused(recording):
    weights = {**recording.weights, "quant_conv.scale": np.zeros(1)}
    with pytest.raises(InputError, match="quant_conv.scale is no name of a weight of it"):
        taming.tokenizer_to_ours(weights, recording.like, recording.config)
    weights = {name: x for name, x in recording.weights.items() if name != "encoder.conv_in.bias"}
    with pytest.raises(InputError, match="params/encoder/conv_in/bias is missing"):
        taming.tokenizer_to_ours(weights, recording.like, recording.config)
    with pytest.raises(
        InputError, match="no weights of such a tokenizer: encoder.conv_in.weight is missing"
    ):
        taming.tokenizer_config(part(recording.weights, "encoder."))
    weights = {**recording.weights, "encoder.conv_in.weight": np.zeros((32, 182, 3, 3))}
    with pytest.raises(InputError, match="3 channels, got one from 182 to 3"):
        taming.tokenizer_config(weights)
