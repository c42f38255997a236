"""MoveNet MultiPose as PoseNet: MobileNetV2 trunk, FPN to stride 4, keypoint heads.

Source of the structure: Google's MoveNet MultiPose Lightning (Apache-2.0). Batch norm is folded
into weights and biases. Stride-2 convolutions pad as TensorFlow's SAME does on even sizes:
nothing before, one row and column after.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (stride, channels out) of the inverted residual blocks; hidden width is six times the input.
BLOCKS = (
    (1, 24),
    (2, 40), (1, 40),
    (2, 48), (1, 48), (1, 48),
    (2, 96), (1, 96), (1, 96), (1, 96),
    (1, 144), (1, 144), (1, 144),
    (2, 240), (1, 240), (1, 240),
    (1, 480),
)  # fmt: skip
TAP_AFTER = (2, 5, 9)  # blocks whose output, at strides 4, 8 and 16, leaves the trunk
TAP_CHANNELS = (40, 48, 96, 1280)  # strides 4, 8, 16, 32
FEATURES = 24  # channels of the FPN's stride-4 map
HEADS = {"center": 1, "kpt_heatmap": 17, "kpt_offset": 34, "kpt_regress": 34}


class SameConv(nn.Conv2d):
    """k x k convolution with TensorFlow's SAME padding, for inputs of even height and width."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            x = F.pad(x, (0, 1, 0, 1))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """1x1 expand, 3x3 depthwise, 1x1 project; identity added where shapes allow."""

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
    """3x3 depthwise without bias or activation, then 1x1 and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)))


class Head(nn.Module):
    """Separable 3x3 to 96 channels, then 1x1 to the outputs."""

    def __init__(self, outputs: int):
        super().__init__()
        self.sep = Separable(FEATURES, 96)
        self.out = nn.Conv2d(96, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.sep(x))


class MoveNet(nn.Module):
    """Picture (B, 3, H, W) in -1..1, sides multiples of 32, to taps, features and head maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 48, 3, stride=2)
        channels, blocks = 48, []
        for index, (stride, outputs) in enumerate(BLOCKS):
            blocks.append(InvertedResidual(channels, outputs, stride, expand=index > 0))
            channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Conv2d(channels, 1280, 1)
        self.lateral = nn.ModuleList(
            nn.Conv2d(i, o, 1) for i, o in ((1280, 64), (96, 64), (48, 32), (40, 24))
        )
        self.smooth = nn.ModuleList(Separable(i, o) for i, o in ((64, 32), (32, 24), (24, 24)))
        self.heads = nn.ModuleDict({name: Head(outputs) for name, outputs in HEADS.items()})

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
        """Return the four taps (strides 4 to 32), the stride-4 features and the heads' maps."""
        x = F.relu6(self.stem(x))
        taps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAP_AFTER:
                taps.append(x)
        taps.append(F.relu6(self.last(x)))
        y = self.lateral[0](taps[3])
        for lateral, tap, smooth in zip(self.lateral[1:], taps[2::-1], self.smooth, strict=True):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = smooth(y + lateral(tap))
        return taps, y, {name: head(y) for name, head in self.heads.items()}


def from_google(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the published weights to this module's: offsets as (x, y) in pixels.

    The published offset heads give (dy, dx) in cells of stride 4; here the last convolution of
    these heads gives (x, y) in pixels. The box heads are dropped.

    Args:
        weights: tensors of `movenet_multipose.safetensors`, any float type.

    Returns:
        float32 state of MoveNet.
    """
    state = {k: v.float() for k, v in weights.items() if not k.startswith("heads.box_")}
    for head in ("kpt_offset", "kpt_regress"):
        for part in ("weight", "bias"):
            key = f"heads.{head}.out.{part}"
            value = state[key]
            swapped = value.reshape(17, 2, *value.shape[1:]).flip(1)
            state[key] = 4.0 * swapped.reshape(value.shape)
    return state


def check_same_structure(state: dict[str, Tensor]) -> None:
    """Raise ValueError unless the state fits MoveNet by name and shape."""
    with torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in MoveNet().state_dict().items()}
    got = {k: tuple(v.shape) for k, v in state.items()}
    wrong = sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k))
    if wrong:
        key = wrong[0]
        raise ValueError(
            f"not MoveNet MultiPose weights: {len(wrong)} tensors differ, first '{key}': "
            f"expected shape {wanted.get(key)}, got {got.get(key)}"
        )
