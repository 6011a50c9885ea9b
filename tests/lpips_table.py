"""Table of weight names: the `lpips` package -> our LPIPS, for recordings that hold all of it."""

from evqgan.convert import frozen
from evqgan.convert.mapping import layer

# Trunk and heads in one, as in the state of the `lpips` package and of taming-transformers (there
# under loss.perceptual_loss): the collection "frozen" of `evqgan.losses.lpips.Distance`.
LPIPS_PACKAGE = [
    *(
        row
        for number, stage, conv in frozen.vgg_layers()
        for row in layer(
            f"net.slice{stage}.{number}", f"trunk/params/stage{stage}/conv{conv}", "conv"
        )
    ),
    *(row._replace(ours=f"heads/{row.ours}") for row in frozen.LPIPS_HEADS),
]
# Constants of ours; other names of lin{i}.
LPIPS_PACKAGE_IGNORED = (r"^scaling_layer\.(shift|scale)$", r"^lins\.")
