"""MoveNet as PoseNet: MobileNetV2 trunk, FPN to stride 4, keypoint heads.

Source of the structure: Google's MoveNet MultiPose Lightning and Thunder (Apache-2.0). Batch norm
is folded into weights and biases. Stride-2 convolutions pad as TensorFlow's SAME does on even
sizes: nothing before, one row and column after.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdc_core.network.pose import PoseMaps


@dataclass(frozen=True)
class Widths:
    """Channels of one published size.

    Attributes:
        stem: channels of the first convolution.
        stages: channels of the seven stages of inverted residual blocks.
        lateral: (in, out) of the FPN's laterals, coarse to fine.
        smooth: (in, out) of the FPN's separable convolutions, coarse to fine.
    """

    stem: int
    stages: tuple[int, ...]
    lateral: tuple[tuple[int, int], ...]
    smooth: tuple[tuple[int, int], ...]

    @property
    def taps(self) -> tuple[int, ...]:
        """Channels of the trunk's taps at strides 4, 8, 16 and 32."""
        return (*self.stages[1:4], 1280)


SMOOTH = ((64, 32), (32, 24), (24, 24))
WIDTHS = {
    "movenet_multipose": Widths(
        48, (24, 40, 48, 96, 144, 240, 480), ((1280, 64), (96, 64), (48, 32), (40, 24)), SMOOTH
    ),
    "movenet_thunder": Widths(
        56, (32, 40, 56, 112, 168, 280, 560), ((1280, 64), (112, 64), (56, 32), (40, 24)), SMOOTH
    ),
}
# (stride of the first, number) of the inverted residual blocks of each stage; hidden width is six
# times the input.
STAGES = ((1, 1), (2, 2), (2, 3), (2, 4), (1, 3), (2, 3), (1, 1))
TAP_AFTER = (0, 2, 5, 9)  # blocks whose output, at strides 2, 4, 8 and 16, leaves the trunk
CONTEXT_UNIT_PX = 32.0  # unit of the offsets that SegNet sees
FEATURES = 24  # channels of the FPN's stride-4 map
HEADS = {"center": 1, "kpt_heatmap": 17, "kpt_offset": 34, "kpt_regress": 34}


class SameConv(nn.Conv2d):
    """k x k convolution with TensorFlow's SAME padding, for inputs of even height and width.

    Args:
        inputs, outputs: channels.
        kernel: k, odd.
        stride: 1 or 2.
        groups: as of `nn.Conv2d`.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            x = F.pad(x, (0, 1, 0, 1))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """1x1 expand, 3x3 depthwise, 1x1 project; identity added where shapes allow.

    Args:
        inputs, outputs: channels.
        stride: of the depthwise convolution.
        expand: to six times the inputs; else there is no first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expand: bool):
        super().__init__()
        hidden = 6 * inputs if expand else inputs
        if expand:
            self.expand = nn.Conv2d(inputs, hidden, 1)
        self.depthwise = SameConv(hidden, hidden, 3, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x)) if hasattr(self, "expand") else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Separable(nn.Module):
    """3x3 depthwise without bias or activation, then 1x1 and ReLU.

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)))


class Head(nn.Module):
    """Separable 3x3 to 96 channels, then 1x1.

    Args:
        outputs: channels.
    """

    def __init__(self, outputs: int):
        super().__init__()
        self.sep = Separable(FEATURES, 96)
        self.out = nn.Conv2d(96, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.sep(x))


class MoveNet(nn.Module):
    """PoseNet of the published structure.

    Args:
        widths: channels of the published size.

    Attributes:
        tap_channels, own_channels, detail_channels: as `pose.py` says.
    """

    def __init__(self, widths: Widths = WIDTHS["movenet_multipose"]) -> None:
        super().__init__()
        self.tap_channels, self.own_channels = widths.taps, FEATURES + 18 + 34
        self.detail_channels = widths.stages[0]
        self.stem = SameConv(3, widths.stem, 3, stride=2)
        channels, blocks = widths.stem, list[nn.Module]()
        for outputs, (first, count) in zip(widths.stages, STAGES, strict=True):
            for stride in (first, *[1] * (count - 1)):
                blocks.append(InvertedResidual(channels, outputs, stride, expand=bool(blocks)))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Conv2d(channels, 1280, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in widths.lateral)
        self.smooth = nn.ModuleList(Separable(i, o) for i, o in widths.smooth)
        self.heads = nn.ModuleDict({name: Head(outputs) for name, outputs in HEADS.items()})

    def published(self, x: Tensor) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
        """Run the published structure.

        Args:
            x: (B, 3, H, W) in -1..1, sides multiples of 32.

        Returns:
            The five taps (strides 2 to 32), the stride-4 features, the heads' maps.
        """
        x = F.relu6(self.stem(x))
        taps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAP_AFTER:
                taps.append(x)
        taps.append(F.relu6(self.last(x)))
        y = self.lateral[0](taps[4])
        for lateral, tap, smooth in zip(self.lateral[1:], taps[3:0:-1], self.smooth, strict=True):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = smooth(y + lateral(tap))
        return taps, y, {name: head(y) for name, head in self.heads.items()}

    def forward(self, image: Tensor) -> PoseMaps:
        """Map images (B, 3, H, W) RGB 0..255 to the maps of PoseNet."""
        taps, features, heads = self.published(image * (2 / 255) - 1)
        heat = torch.cat((heads["kpt_heatmap"], heads["center"]), 1)
        batch, _, height, width = heat.shape
        # The center's cell is the origin of the star's offsets: it has no short-range offset.
        center = heads["center"].new_zeros(batch, 2, height, width)
        short = torch.cat((heads["kpt_offset"], center), 1)
        mid = heads["kpt_regress"]
        pairs = (batch, -1, 2, height, width)
        return PoseMaps(
            heat,
            short.reshape(pairs),
            mid.reshape(pairs),
            taps[1:],
            torch.cat((features, heat, mid / CONTEXT_UNIT_PX), 1),
            taps[0],
        )

    def from_published(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert Google's published weights to this module's: offsets as (x, y) in pixels.

        The published offset heads give (dy, dx) in cells of stride 4; here the last convolution of
        these heads gives (x, y) in pixels. The box heads are dropped.

        Args:
            weights: tensors of `movenet_multipose` or `movenet_thunder`, any float type.

        Returns:
            float32 state of this module.

        Raises:
            ValueError: a head is missing.
        """
        state = {k: v.float() for k, v in weights.items() if not k.startswith("heads.box_")}
        for head in ("kpt_offset", "kpt_regress"):
            for part in ("weight", "bias"):
                key = f"heads.{head}.out.{part}"
                value = state.get(key)
                if value is None:
                    raise ValueError(f"not MoveNet's weights: expected '{key}', which is missing")
                swapped = value.reshape(17, 2, *value.shape[1:]).flip(1)
                state[key] = 4.0 * swapped.reshape(value.shape)
        return state
