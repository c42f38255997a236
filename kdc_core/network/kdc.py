"""The whole network: picture to Fields."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdc_core.config import Config
from kdc_core.fields import Fields
from kdc_core.grid import Grid
from kdc_core.network.movenet import FEATURES, TAP_CHANNELS, MoveNet
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
        self.config = config
        self.skeleton = SKELETONS[config.fields.skeleton]
        self.grid = Grid(config.fields.stride, config.fields.grid_offset)
        self.edges = self.skeleton.edges(tuple(config.fields.edges))
        self.posenet = MoveNet()
        types = self.skeleton.num_types
        self.segnet = SegNet(
            TAP_CHANNELS,
            FEATURES + types + 2 * self.skeleton.num_keypoints,
            types,
            config.network.segnet_width,
            config.network.segnet_tower,
            config.network.segnet_depth,
        )

    def forward(self, picture: Tensor) -> Fields:
        """Map pictures to Fields.

        Args:
            picture: (B, 3, H, W) float RGB in 0..255, H and W multiples of 32.

        Returns:
            Fields over the grid of stride 4; offsets in pixels of `picture`.
        """
        taps, features, heads = self.posenet(picture * (2 / 255) - 1)
        heat = torch.cat((heads["kpt_heatmap"], heads["center"]), 1)
        batch, _, height, width = heat.shape
        # The centre's cell is the origin of the star's offsets: it has no short-range offset.
        center = heads["center"].new_zeros(batch, 2, height, width)
        short = torch.cat((heads["kpt_offset"], center), 1)
        mid = heads["kpt_regress"]
        mask, embedding = self.segnet(taps, torch.cat((features, heat, mid / 32), 1))
        pairs = (batch, -1, 2, height, width)
        return Fields(heat, short.reshape(pairs), mid.reshape(pairs), mask, embedding)
