"""The whole network: images to Fields."""

from __future__ import annotations

from torch import Tensor, nn

from kdc_core.codec.codec import Codec
from kdc_core.codec.fields import Fields
from kdc_core.config import Config
from kdc_core.network.backbones import check_structure
from kdc_core.network.movenet import WIDTHS, MoveNet
from kdc_core.network.resnet import DilatedResNet
from kdc_core.network.segnet import SegNet


class KDC(nn.Module):
    """PoseNet and SegNet over one trunk (paper Fig. 1).

    Args:
        config: structure, and what the maps mean.

    Attributes:
        codec: what the maps mean; decodes them.

    Raises:
        ConfigError: the backbone does not give the fields asked for.
    """

    def __init__(self, config: Config):
        super().__init__()
        check_structure(config)
        self.config, self.codec = config, Codec.of(config)
        types, edges = self.codec.skeleton.num_types, len(self.codec.edges)
        name = config.network.backbone
        self.posenet: MoveNet | DilatedResNet
        if name in WIDTHS:
            self.posenet = MoveNet(WIDTHS[name])
        else:
            self.posenet = DilatedResNet(name, types, edges)
        self.segnet = SegNet(
            self.posenet.tap_channels,
            self.posenet.own_channels,
            types,
            config.network.segnet_width,
            config.network.segnet_tower,
            config.network.segnet_depth,
            self.posenet.detail_channels if config.network.detail else 0,
            edges if config.network.refine else 0,
        )

    def forward(self, image: Tensor) -> Fields[Tensor]:
        """Map images to Fields.

        Args:
            image: (B, 3, H, W) float RGB in 0..255; sides as `backbones.side_rule` says.

        Returns:
            Fields over the codec's grid; offsets in pixels of `image`.
        """
        pose = self.posenet(image)
        seg = self.segnet(pose.taps, pose.own, pose.detail)
        heat, short, mid = pose.heat, pose.short, pose.mid
        if seg.refined is not None:
            heat, short, mid = heat + seg.refined[0], short + seg.refined[1], mid + seg.refined[2]
        return Fields(heat, short, mid, seg.mask, seg.embedding)
