"""The program a runtime executes: preprocessing, network and decode in one."""

from __future__ import annotations

from torch import Tensor, nn

from kdc_core.decode.people import Decoder
from kdc_core.manifest import FIELDS, OUTPUTS
from kdc_core.network.kdc import KDC


class Program(nn.Module):
    """What a runtime executes: a letterboxed frame in, people out."""

    def __init__(self, network: KDC):
        super().__init__()
        self.network = network
        config = network.config
        self.decoder = Decoder(
            network.skeleton, network.grid, tuple(config.fields.edges), config.decode
        )

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Run the program.

        Args:
            frame: (H, W, 3) uint8 RGB, sides multiples of 32.

        Returns:
            The OUTPUTS of the manifest without batch axis, then the FIELDS.
        """
        # Cast before permute: TensorRT has no transpose of uint8.
        picture = frame.float().permute(2, 0, 1)[None]
        fields = self.network(picture)
        people = self.decoder(fields)
        return (
            *(getattr(people, name)[0] for name in OUTPUTS),
            *(getattr(fields, name) for name in FIELDS),
        )
