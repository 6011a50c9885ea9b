"""Efficient-VQGAN (Cao et al., ICCV 2023) in JAX and Flax.

Letters used in every docstring:

    B        batch                    D   depth of the quantizer (codes a token)
    H, W     image height and width   V   number of codes in the codebook
    h, w     token grid               c   channels
    N        h * w tokens             S   steps of a sampler
    K        tables of codes, 1 or D; of a generator, target blocks of an image

"Paper" means Cao et al., "Efficient-VQGAN: Towards High-Resolution Image Generation with Efficient
Vision Transformers", ICCV 2023, unless another one is named.

Words used in docstrings:

    token    a position of the token grid; code: an entry of the codebook; id: the number of a code.
             An argument or field `codes` is V; config.dataset.codes is a folder of stored ids
    latent   an argument or field of this name is the size of the token grid, (h, w)
    stored   ids of a data set, on disk, from which stage 2 trains
    codebook the codes' vectors [K,V,c]. In weights and states it is a linen collection: what a
             quantizer keeps beside its params
    sample   of a generator and of its module: ids for a `Request`; of what `evqgan.load` gives:
             images and what belongs to them
    ours     before a constant: our own choice, not that of a paper or of published code
    workdir  the folder of a run: config.json, checkpoints/, metrics.jsonl
    stage 1  training a tokenizer;   stage 2  training a generator on its ids
    critic   the discriminator of the adversarial loss
    chief    the first process of a run of several, which writes files and prints
    goes on  resumes: a run that was stopped goes on when its command is given again
    leg      a finished run that goes on with a longer duration begins its second leg
"""

from typing import TYPE_CHECKING, Any

from evqgan.core import VERSION as __version__
from evqgan.core.errors import InputError

if TYPE_CHECKING:
    from evqgan.inference.model import Model, load

__all__ = ["InputError", "Model", "__version__", "load"]

if not TYPE_CHECKING:  # a checker shall know that there are no other names

    def __getattr__(name: str) -> Any:
        """Return `load` or `Model` (`evqgan.inference.model`) on first use: they bring JAX."""
        if name in ("Model", "load"):
            from evqgan.inference import model

            return getattr(model, name)
        raise AttributeError(f"module 'evqgan' has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Return the public names, `load` and `Model` too, for completion."""
        return sorted(__all__)
