"""The program a runtime executes: preprocessing, network and decode in one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kdc_core.codec.decode import People, decode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Level
from kdc_core.inference.assembly import Raw
from kdc_core.network.backbones import side_rule
from kdc_core.network.kdc import KDC


class Program(nn.Module):
    """What a runtime executes: a letterboxed frame in, people out.

    Args:
        network: with its weights.
    """

    def __init__(self, network: KDC):
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Run the program.

        Args:
            frame: (H, W, 3) uint8 RGB, sides as `side_rule` says.

        Returns:
            The OUTPUTS of the manifest without batch axis, then the maps of `field_names`.
        """
        fields = level_fields(self.network, frame)
        people = decode(fields, self.network.codec)
        return (
            *(value.squeeze(0) for value in vars(people).values()),
            *(value for level in fields for _, value in level.items()),
        )


def level_fields(network: KDC, frame: Tensor) -> list[Fields[Tensor]]:
    """The network's maps of a frame (H, W, 3) uint8 RGB at each level of its pyramid."""
    multiple = side_rule(network.config).multiple
    # Cast before permute: TensorRT has no transpose of uint8.
    image = frame.float().permute(2, 0, 1)[None]
    return [network(reduce(image, level, multiple)) for level in network.codec.levels]


def as_raw(people: People) -> Raw:
    """The first image of a batch of people, as numpy."""
    return Raw(*(value[0].detach().cpu().numpy() for value in vars(people).values()))


def reduce(image: Tensor, level: Level, multiple: int) -> Tensor:
    """Reduce an image (B, C, H, W) to a level: shift by whole pixels, then the mean of each block
    of factor x factor pixels.

    Args:
        image: its sides fit the network.
        level: of a whole factor.
        multiple: of which sides must be to fit the network; black is added to the right and below.
    """
    if level.factor == 1:
        return image
    factor, shift = int(level.factor), int(level.shift)
    image = F.pad(image, (-shift, shift, -shift, shift))
    if factor == 2:  # halfway between two pixels is the same mean; exported, twice as fast
        image = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
    else:
        image = F.avg_pool2d(image, factor)
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple))
