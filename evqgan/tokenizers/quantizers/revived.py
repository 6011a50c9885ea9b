"""The paper's vector quantizer with revival of unused codes."""

import jax

from evqgan.tokenizers.quantizers import vq
from evqgan.tokenizers.quantizers.codebooks import after_update
from evqgan.tokenizers.quantizers.revival import Parameter, ReviveBy


class Quantizer(vq.Quantizer):
    """The paper's vector quantizer; unused codes are replaced by vectors of the batch, as in `ema`.

    revive: a code whose usage falls below this share of the average usage is replaced; at the first
      step all codes are. Ours.
    revive_by: as in `ema`.
    """

    revive: float = 0.1  # ours, as in configs/common.py
    revive_by: ReviveBy = "chance"

    def setup(self) -> None:
        self.revival = Parameter(self, (1, self.codes, self.width), self.revive, self.revive_by)
        self.table = self.revival.value

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`.

        aux["revived"]: how many codes were revived.
        """
        return after_update(self, self.revival, z, super().__call__(z, train), train)
