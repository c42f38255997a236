"""The whole network: picture to Fields."""

from __future__ import annotations

from torch import Tensor, nn

from kdc_core.config import Config, check_structure
from kdc_core.fields import Fields
from kdc_core.grid import Grid
from kdc_core.network.movenet import WIDTHS, MoveNet
from kdc_core.network.resnet import DilatedResNet
from kdc_core.network.segnet import SegNet
from kdc_core.skeleton import SKELETONS


class KDC(nn.Module):
    """PoseNet and SegNet over one trunk (paper Fig. 2).

    Attributes:
        grid: where the cells of the output maps lie in the input picture.
        edges: directed edges, one per channel pair of the mid-range offsets.
    """

    def __init__(self, config: Config):
        super().__init__()
        check_structure(config)
        self.config = config
        self.skeleton = SKELETONS[config.fields.skeleton]
        self.grid = Grid(config.fields.stride, config.fields.grid_offset)
        self.edges = self.skeleton.edges(tuple(config.fields.edges))
        types = self.skeleton.num_types
        backbone = config.network.backbone
        self.posenet: nn.Module
        if backbone in WIDTHS:
            self.posenet = MoveNet(WIDTHS[backbone])
        else:
            self.posenet = DilatedResNet(backbone, types, len(self.edges))
        self.segnet = SegNet(
            self.posenet.taps,
            self.posenet.context,
            types,
            config.network.segnet_width,
            config.network.segnet_tower,
            config.network.segnet_depth,
        )

    def forward(self, picture: Tensor) -> Fields:
        """Map pictures to Fields.

        Args:
            picture: (B, 3, H, W) float RGB in 0..255; sides as `config.side_rule` says.

        Returns:
            Fields over the grid; offsets in pixels of `picture`.
        """
        pose = self.posenet(picture)
        mask, embedding = self.segnet(pose.taps, pose.context)
        return Fields(pose.heat, pose.short, pose.mid, mask, embedding)
