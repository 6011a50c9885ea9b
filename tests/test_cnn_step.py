"""One training step of stage 1 is that of the original.

The recordings are of taming-transformers' VQModel with its loss.
"""

import jax
import numpy as np
import pytest
from golden_files import files, nudged
from ml_collections import ConfigDict
from test_cnn import compare
from test_cnn_taming import VQGAN

from evqgan.convert import mapping, taming
from evqgan.core.errors import InputError
from evqgan.training import stage1


@pytest.fixture(scope="module", params=files("taming_vqgan*.npz"), ids=lambda path: path.stem)
def recording(request):
    return VQGAN(request.param)


def config_of(r):
    """The config of stage 1 for a recording.

    Without averaging over steps, what the optimizer keeps is the gradient.
    """
    optimizer = {"learning_rate": 1e-4, "b1": 0.0}
    config = {
        "stage": "stage1",
        "seed": 0,
        "dtype": "float32",
        "batch_size": len(r.image),
        "duration": r.step + 10,
        "dataset": {"name": "digits", "size": r.image.shape[1], "flip": False},
        "tokenizer": r.config,
        "loss": {"l2": 0.0, "l1": 1.0},
        "optimizer": optimizer,
        "evals": {},
        "log_every": 1,
        "eval_every": 1,
        "checkpoint_every": 1,
        "perceptual": {
            "distance": {"name": "lpips"},
            "weights": "random",
            "weight": r.perceptual_weight,
        },
        "adversarial": {
            "critic": {
                "name": "patchgan",
                "layers": r.critic.layers,
                "width": r.critic.width,
                "norm": r.critic.norm,
            },
            "loss": r.kind,
            "factor": 0.5 * r.disc_factor,
            "weight": r.weight * r.disc_factor,
            "start": r.start,
            "optimizer": optimizer,
        },
    }
    if r.codebook_weight != 1:
        config["loss"]["codebook"] = r.codebook_weight
    return ConfigDict(config)


def test_a_step_of_stage_1_has_the_recorded_loss_gradients_and_statistics(recording):
    r = recording
    # Weights trained so are read, but nothing trains so here.
    if r.critic.norm == "act" or r.codebook_weight != 1:
        with pytest.raises(
            InputError, match="is for critics trained elsewhere|has no key 'codebook'"
        ):
            stage1.make(config_of(r))
        return
    stage = stage1.make(config_of(r))
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(stage.init))
    state |= {
        "step": np.int32(r.step),
        "params": r.variables["params"],
        "ema": r.variables["params"],
    }
    critic = state["critic"]
    critic["params"], stats = r.critic_variables["params"], r.critic_variables["batch_stats"]
    # The original's pass for the generator moves the critic's statistics as well, before the two
    # for its own loss.
    critic["variables"]["batch_stats"] = jax.jit(
        lambda v, params, stats: r.judge(params, stats, r.model.apply(v, r.image)[0])[1]
    )(r.variables, critic["params"], stats)
    if "perceptual" in state["frozen"]:
        state["frozen"]["perceptual"] = r.frozen
    update, label = jax.jit(stage.update), np.zeros(len(r.image), np.int32)

    def computed(number=None):
        image = r.image if number is None else nudged(r.image, number)
        return recorded_names(r, *update(state, {"image": (image + 1) * 127.5, "label": label}))

    wanted = ("aeloss", "discloss", "grad")
    known = computed()
    compare(
        computed,
        {name: x for name, x in r.outputs.items() if name in known or name.startswith(wanted)},
    )


def recorded_names(r, state, metrics):
    """The state after a step and its metrics, by the names of what is recorded of them."""
    nll = metrics["l1"] + r.perceptual_weight * metrics.get("perceptual", 0.0)
    grads, critic = state["opt"]["mu"], state["critic"]
    ours = {
        "aeloss": metrics["loss"],
        "log_ae/nll_loss": nll,
        "log_ae/p_loss": metrics.get("perceptual", 0.0),
        "log_ae/quant_loss": metrics["quantizer_loss"],
        "grad_norm_all_ae": metrics["gradient_norm"],
        "discloss": metrics["critic_loss"],
        "grad_norm_disc": metrics["critic_gradient_norm"],
    }
    grads = taming.tokenizer_to_theirs({"params": grads}, r.config)
    ours |= {f"grad/{name}": x for name, x in grads.items()}
    grads = mapping.to_theirs(r.critic_table, {"params": critic["opt"]["mu"]})
    ours |= {f"grad_disc/{name}": x for name, x in grads.items()}
    # Before the adversarial term sets in, ours leaves the critic alone and has no numbers of it.
    if r.factor:
        ours |= {
            "log_ae/d_weight": metrics["lambda"] / r.disc_factor,
            "log_ae/g_loss": metrics["adversarial"],
        }
        ours |= {f"log_disc/logits_{name}": metrics[f"{name}_logits"] for name in ("real", "fake")}
        after = mapping.to_theirs(
            r.critic_table, {"batch_stats": critic["variables"]["batch_stats"]}
        )
        ours |= {f"disc_after/{name}": x for name, x in after.items()}
    return ours
