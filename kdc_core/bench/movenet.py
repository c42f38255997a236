"""MoveNet MultiPose whole, as published: what the time of our predictor is measured by."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from kdc_core.bench.peer import Peer
from kdc_core.codec.grid import Letterbox, SideRule
from kdc_core.codec.results import Person, Prediction
from kdc_core.network.movenet import Head, MoveNet
from kdc_core.network.weights import ModelFileError, read_tensors

# Published weights, beside the repository; no part of the package.
WEIGHTS = Path(__file__).parents[2].parent / "shared" / "weights" / "movenet_multipose.safetensors"
LONGER_SIDE, SIDES = 512, SideRule(32)
STRIDE = 4
PEOPLE = 6  # a limit of the published graph
INPUT = 0.007843017578125  # 2 / 255 as the published graph has it
SPREAD = 0.30005
VISIBLE = 0.12695  # keypoint score from which it counts for the person's


def open_movenet(threads: int, weights: Path | None = None) -> Peer:
    """MoveNet MultiPose at 512 px in ONNX Runtime, with its decode.

    Args:
        threads: of ONNX Runtime.
        weights: file of published weights; None = WEIGHTS, or random ones where that is absent.
            Time does not depend on them.

    Raises:
        ModelFileError: the file is missing or of another network.
    """
    if weights is None and WEIGHTS.is_file():
        weights = WEIGHTS
    network = random_multipose() if weights is None else load_multipose(weights)
    return Peer.of(network, LONGER_SIDE, SIDES, decode, threads)


class MultiPose(nn.Module):
    """MoveNet with its box heads."""

    def __init__(self) -> None:
        super().__init__()
        self.movenet = MoveNet()
        self.boxes = nn.ModuleDict({"box_scale": Head(2), "box_offset": Head(2)})

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Map a frame (32 n, 32 m, 3) uint8 RGB to maps of stride 4.

        Returns:
            center (1, h, w) and heat (17, h, w) logits; offset and regress (34, h, w), x and y
            of each keypoint in turn, pixels; box_scale (height, width) and box_offset (y, x)
            (2, h, w), cells.
        """
        image = frame.float().permute(2, 0, 1)[None] * INPUT - 1
        _, features, heads = self.movenet.published(image)
        names = ("center", "kpt_heatmap", "kpt_offset", "kpt_regress")
        maps = [heads[name] for name in names] + [head(features) for head in self.boxes.values()]
        return tuple(value[0] for value in maps)


def load_multipose(path: Path) -> MultiPose:
    """The network with the published weights, float32.

    Raises:
        ModelFileError: the file is missing or of another network.
    """
    weights, _ = read_tensors(path)
    network = MultiPose()
    boxes = {
        name.removeprefix("heads."): value.float()
        for name, value in weights.items()
        if name.startswith("heads.box_")
    }
    try:
        network.movenet.load_state_dict(network.movenet.from_published(weights))
        network.boxes.load_state_dict(boxes)
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(f"'{path}' is not MoveNet MultiPose: {error}") from error
    return network.eval()


def random_multipose() -> MultiPose:
    """The network with random weights, always the same, and boxes of a person's size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MultiPose()
    network.state_dict()["boxes.box_scale.out.bias"].copy_(torch.tensor([32.0, 12.0]))
    return network.eval()


def decode(maps: list[np.ndarray], letterbox: Letterbox, size: tuple[int, int]) -> Prediction:
    """People of the published decoder, in numpy; the original is a part of its graph.

    A keypoint is looked for in its person's box only, at the highest heat times a Gaussian
    around where the center leads; the Gaussian is a product of one along y and one along x.

    Args:
        maps: as MultiPose returns them.
        letterbox: how the image was put into the frame.
        size: (height, width) of the image.

    Returns:
        People without masks, best first.
    """
    center = 1 / (1 + np.exp(-maps[0][0]))
    peak = center >= cv2.dilate(center, np.ones((5, 5))) - 1.01e-6
    order = np.argsort(-np.where(peak, center, 0), axis=None, kind="stable")[:PEOPLE]
    persons = []
    for cell in order:
        row, column = divmod(int(cell), center.shape[1])
        keypoints = _find_keypoints(row, column, *maps[1:])
        keypoints[:, :2] = letterbox.to_image(keypoints[:, :2])
        seen = keypoints[keypoints[:, 2] > VISIBLE, 2]
        score = float(center[row, column] * (seen.mean() if len(seen) else 0))
        box = np.concatenate((keypoints[:, :2].min(0), keypoints[:, :2].max(0)))
        none = np.zeros((0, 0), bool)
        persons.append(Person(score, keypoints, box, none, (0, 0), np.zeros((0, 4), np.float32)))
    persons.sort(key=lambda person: -person.score)
    return Prediction(size, tuple(persons))


def _find_keypoints(
    row: int,
    column: int,
    heat: np.ndarray,
    offset: np.ndarray,
    regress: np.ndarray,
    box_scale: np.ndarray,
    box_offset: np.ndarray,
) -> np.ndarray:
    """The keypoints of the person whose center is in a cell: (17, 3) x, y, score, in the frame."""
    _, rows, columns = heat.shape
    height, width = box_scale[:, row, column]
    y, x = box_offset[:, row, column] + (row, column)
    y0, y1 = np.clip((y - height / 2, y + height / 2), 0, rows - 1)
    x0, x1 = np.clip((x - width / 2, x + width / 2), 0, columns - 1)
    top, left = int(np.ceil(y0)), int(np.ceil(x0))
    window = np.s_[:, top : max(int(y1), top) + 1, left : max(int(x1), left) + 1]
    inside = 1 / (1 + np.exp(-heat[window]))
    # Cell to which the center's own regression leads.
    at = regress[:, row, column].reshape(17, 2) / STRIDE + (column, row)
    # d2 in cells over the box's shorter side in pixels: of the readings tried, the one nearest
    # to the published decoder's average precision.
    spread = SPREAD * STRIDE * max(min(y1 - y0, x1 - x0), 1.0)
    along_y = np.arange(top, top + inside.shape[1]) - at[:, 1, None]
    along_x = np.arange(left, left + inside.shape[2]) - at[:, 0, None]
    near_y, near_x = np.exp(-(along_y**2) / spread), np.exp(-(along_x**2) / spread)
    weighed = (inside * near_y[:, :, None] * near_x[:, None]).reshape(17, -1)
    best_y, best_x = np.divmod(weighed.argmax(1), inside.shape[2])
    each, ky, kx = np.arange(17), best_y + top, best_x + left
    keypoints = np.empty((17, 3), np.float32)
    moved = offset.reshape(17, 2, rows, columns)[each, :, ky, kx]
    keypoints[:, :2] = STRIDE * np.stack((kx, ky), 1) + moved
    keypoints[:, 2] = inside[each, best_y, best_x]
    return keypoints
