"""The program a runtime executes: preprocessing, network and decode in one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kdc_core.decode.people import Decoder
from kdc_core.grid import Level
from kdc_core.manifest import OUTPUTS, side_rule
from kdc_core.network.kdc import KDC


class Program(nn.Module):
    """What a runtime executes: a letterboxed frame in, people out."""

    def __init__(self, network: KDC):
        super().__init__()
        self.network = network
        config = network.config
        self.multiple, _ = side_rule(config)
        self.decoder = Decoder(
            network.skeleton, network.grid, tuple(config.fields.edges), config.decode
        )

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Run the program.

        Args:
            frame: (H, W, 3) uint8 RGB, sides as `manifest.side_rule` says.

        Returns:
            The OUTPUTS of the manifest without batch axis, then the maps of `field_names`.
        """
        # Cast before permute: TensorRT has no transpose of uint8.
        picture = frame.float().permute(2, 0, 1)[None]
        levels = [
            self.network(reduce(picture, level, self.multiple)) for level in self.decoder.levels
        ]
        people = self.decoder(levels)
        return (
            *(getattr(people, name)[0] for name in OUTPUTS),
            *(value for fields in levels for value in vars(fields).values()),
        )


def reduce(picture: Tensor, level: Level, multiple: int) -> Tensor:
    """Reduce a picture (B, C, H, W) to a level: shift by whole pixels, then mean of squares.

    Args:
        picture: its sides fit the network.
        level: of a whole factor.
        multiple: of which sides must be to fit the network; black is added to the right and below.
    """
    if level.factor == 1:
        return picture
    factor, shift = int(level.factor), int(level.shift)
    if shift:
        picture = F.pad(picture, (0, shift, 0, shift))
        picture = picture[..., shift:, shift:]
    if factor == 2:  # halfway between two pixels is the same mean; exported, twice as fast
        picture = F.interpolate(picture, scale_factor=0.5, mode="bilinear", align_corners=False)
    else:
        picture = F.avg_pool2d(picture, factor)
    height, width = picture.shape[-2:]
    return F.pad(picture, (0, -width % multiple, 0, -height % multiple))
