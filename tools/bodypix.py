"""BodyPix on MobileNetV1, a peer: the network, its poses and its instance masks.

Source of structure and weights: Google's BodyPix (Apache-2.0). Batch norm is folded into weights
and biases. The sides of its input are 16 n + 1, so that cell i lies at pixel 16 i.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from kdc_core.bench.peer import Peer
from kdc_core.codec.grid import Grid, Letterbox, SideRule
from kdc_core.codec.results import Person, Prediction
from kdc_core.inference.assembly import at_image
from kdc_core.network.weights import ModelFileError, read_tensors

STRIDE, LONGER_SIDE = 16, 641
# Output channels of the thirteen separable convolutions over the width, and their strides.
WIDTHS = (64, 128, 128, 256, 256, *[512] * 8)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1)
HEADS = {
    "heatmaps": 17,
    "short_offsets": 34,
    "displacement_fwd": 32,
    "displacement_bwd": 32,
    "segments": 1,
    "long_offsets": 34,
}
EDGES = (  # parent, child
    (0, 1),
    (1, 3),
    (0, 2),
    (2, 4),
    (0, 5),
    (5, 7),
    (7, 9),
    (5, 11),
    (11, 13),
    (13, 15),
    (0, 6),
    (6, 8),
    (8, 10),
    (6, 12),
    (12, 14),
    (14, 16),
)

NMS_RADIUS_PX = 20.0
KEYPOINT_SCORE = 0.3  # a keypoint below says nothing about whose a pixel is
MIN_POSE = 0.2  # a pose below takes no pixels
# Where the original has other values, in brackets, these were chosen for
# average precision on the default images of tools/peers.py.
MIN_SEED = 0.1  # (0.3)
PEOPLE = 20  # (10)
OFFSET_STEPS = 5  # a keypoint reached over an edge is moved so often by the short offsets (2)
LONG_STEPS = 4  # and a pixel's keypoint by the long offsets, after the first (10)
LATTICE_PX = 8  # of the pixels whose owners are looked for


class BodyPix(nn.Module):
    """The published network less its body parts; weights as in the published file."""

    def __init__(self, width: float = 0.75):
        super().__init__()
        channels = [int(32 * width), *(int(w * width) for w in WIDTHS)]
        # SAME padding on odd sides is symmetric.
        self.stem = nn.Conv2d(3, channels[0], 3, 2, 1)
        self.depthwise = nn.ModuleList(
            nn.Conv2d(c, c, 3, s, 1, groups=c) for c, s in zip(channels, STRIDES, strict=False)
        )
        self.pointwise = nn.ModuleList(
            nn.Conv2d(i, o, 1) for i, o in zip(channels, channels[1:], strict=False)
        )
        self.heads = nn.ModuleDict({n: nn.Conv2d(channels[-1], c, 1) for n, c in HEADS.items()})

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Map a frame (16 n + 1, 16 m + 1, 3) uint8 RGB to the maps of HEADS.

        Returns:
            (C, n + 1, m + 1) each; logits, offsets in pixels, all y before all x.
        """
        x = frame.float().permute(2, 0, 1)[None] / 127.5 - 1
        x = F.relu6(self.stem(x))
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = F.relu6(pointwise(F.relu6(depthwise(x))))
        return tuple(head(x)[0] for head in self.heads.values())


def load_bodypix(path: Path) -> BodyPix:
    """The network with the published weights, float32.

    Raises:
        ModelFileError: the file is missing or of another network.
    """
    weights, _ = read_tensors(path)
    network = BodyPix()
    known = {k: v.float() for k, v in weights.items() if not k.startswith("heads.part_")}
    try:
        network.load_state_dict(known)
    except RuntimeError as error:
        raise ModelFileError(f"'{path}' is not BodyPix: {error}") from error
    return network.eval()


def open_bodypix(threads: int, weights: Path) -> Peer:
    """BodyPix MobileNetV1 0.75 at stride 16 and 641 px in ONNX Runtime, with its decode.

    Args:
        threads: of ONNX Runtime.
        weights: file of published weights.

    Raises:
        ModelFileError: the file is missing or of another network.
    """
    return Peer.of(load_bodypix(weights), LONGER_SIDE, SideRule(STRIDE, 1), decode, threads)


def decode(maps: list[np.ndarray], letterbox: Letterbox, size: tuple[int, int]) -> Prediction:
    """Poses and instance masks.

    As the original's decoder for several people, except: the constants above; person pixels
    are those above 0.5 (0.7); a pixel's owner is the pose nearest by all keypoints (the first
    five), found on a lattice instead of at each pixel of the image; all seeds are followed at
    once. Masks are cut at the image's resolution, the logits interpolated bilinearly.

    Args:
        maps: as BodyPix returns them.
        letterbox: how the image was put into the frame.
        size: (height, width) of the image.
    """
    heat, short, forward, backward, segments, long = maps
    keypoints, scores = find_poses(heat, short, forward, backward)
    owner = find_owners(segments[0], long, keypoints, scores)
    labels = np.where(
        at_image(segments[0], letterbox.matrix(Grid(STRIDE)), size, cv2.INTER_LINEAR) > 0,
        at_image(owner, letterbox.matrix(Grid(LATTICE_PX)), size, cv2.INTER_NEAREST),
        np.uint16(0),
    )
    keypoints[..., :2] = letterbox.to_image(keypoints[..., :2])
    return make_prediction(scores, keypoints, labels)


def find_poses(
    heat: np.ndarray, short: np.ndarray, forward: np.ndarray, backward: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Grow a pose from every peak along the edges; keep those that no better one has taken.

    Args:
        heat: (17, h, w) logits.
        short: (34, h, w), pixels.
        forward, backward: (32, h, w), pixels, along EDGES and against them.

    Returns:
        keypoints (P, 17, 3) x, y, score in pixels of the frame; scores (P,), best first by
        seed. A pose's score is the mean over its keypoints, where those within NMS_RADIUS_PX
        of a better pose's count 0.
    """
    heat = _sigmoid(heat)
    peaks = np.stack([cv2.dilate(channel, np.ones((3, 3))) for channel in heat])
    types, row, column = np.nonzero((heat == peaks) & (heat >= MIN_SEED))
    order = np.argsort(-heat[types, row, column], kind="stable")
    types, row, column = types[order], row[order], column[order]

    seeds = np.arange(len(types))
    keypoints = np.zeros((len(types), 17, 3), np.float32)
    known = np.zeros((len(types), 17), bool)
    keypoints[seeds, types, 0] = STRIDE * column + short[17 + types, row, column]
    keypoints[seeds, types, 1] = STRIDE * row + short[types, row, column]
    keypoints[seeds, types, 2] = heat[types, row, column]
    known[seeds, types] = True
    up = [(e, child, parent, backward) for e, (parent, child) in enumerate(EDGES)][::-1]
    down = [(e, parent, child, forward) for e, (parent, child) in enumerate(EDGES)]
    for edge, source, target, displacement in up + down:
        go = np.flatnonzero(known[:, source] & ~known[:, target])
        if len(go):
            keypoints[go, target] = _follow(
                keypoints[go, source, :2], edge, target, displacement, heat, short
            )
            known[go, target] = True
    return _suppress(keypoints, types)


def _follow(
    points: np.ndarray,
    edge: int,
    target: int,
    displacement: np.ndarray,
    heat: np.ndarray,
    short: np.ndarray,
) -> np.ndarray:
    """From points (n, 2) over an edge to the target keypoint: (n, 3) x, y, score."""
    row, column = _cells(points, heat.shape)
    moved = points + displacement[[16 + edge, edge]][:, row, column].T
    for _ in range(OFFSET_STEPS):
        row, column = _cells(moved, heat.shape)
        offset = short[[17 + target, target]][:, row, column].T
        moved = STRIDE * np.stack((column, row), 1) + offset
    row, column = _cells(moved, heat.shape)
    return np.concatenate((moved, heat[target, row, column][:, None]), 1)


def _suppress(keypoints: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop poses whose seed lies on a better pose: keypoints (S, 17, 3), seeds' keypoints (S,)."""
    kept: list[int] = []
    scores = []
    for seed, pose in enumerate(keypoints):
        gap = np.square(keypoints[kept, :, :2] - pose[:, :2]).sum(2) <= NMS_RADIUS_PX**2
        taken = gap.any(0)
        if not taken[types[seed]]:
            kept.append(seed)
            scores.append(float(np.where(taken, 0, pose[:, 2]).mean()))
        if len(kept) == PEOPLE:
            break
    return keypoints[kept], np.array(scores, np.float32)


def find_owners(
    segments: np.ndarray, long: np.ndarray, keypoints: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """The pose nearest to where each pixel's long offsets lead, on a lattice of LATTICE_PX.

    Args:
        segments: (h, w) person logits.
        long: (34, h, w), pixels.
        keypoints: (P, 17, 3).
        scores: (P,).

    Returns:
        (h', w') uint16: 0 nobody, i + 1 pose i.
    """
    h, w = segments.shape
    factor = STRIDE // LATTICE_PX
    size = ((w - 1) * factor + 1, (h - 1) * factor + 1)
    scale = np.array([[1 / factor, 0, 0], [0, 1 / factor, 0]])
    fine = cv2.warpAffine(
        segments,
        scale,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    # Grown, so that each person pixel of the image has a person's point nearest to it.
    near = cv2.dilate((fine > 0).astype(np.uint8), np.ones((3, 3)))
    owner = np.zeros(fine.shape, np.uint16)
    valid = (keypoints[..., 2] > KEYPOINT_SCORE).astype(np.float32)
    poses = np.flatnonzero(valid.any(1) & (scores >= MIN_POSE))
    row, column = np.nonzero(near)
    if not len(poses) or not len(row):
        return owner
    start = LATTICE_PX * np.stack((column, row), 1).astype(np.float32)
    valid, points = valid[poses], keypoints[poses, :, :2]
    distance = np.zeros((len(poses), len(row)), np.float32)
    for k in range(17):
        offset = long[[17 + k, k]]
        reached = start
        for _ in range(1 + LONG_STEPS):
            y, x = _cells(reached, segments.shape)
            reached = reached + offset[:, y, x].T
        gap = np.square(points[:, k, None] - reached[None]).sum(2)
        distance += valid[:, k, None] * gap
    distance /= valid.sum(1)[:, None]
    owner[row, column] = poses[distance.argmin(0)] + 1
    return owner


def make_prediction(scores: np.ndarray, keypoints: np.ndarray, labels: np.ndarray) -> Prediction:
    """People in pixels of the image, best first.

    Args:
        scores: (P,).
        keypoints: (P, 17, 3).
        labels: (H, W) uint16; 0 background, i + 1 the pixels of person i.
    """
    persons = []
    for index in np.argsort(-scores, kind="stable"):
        points, pixels = keypoints[index], labels == index + 1
        box = np.concatenate((points[:, :2].min(0), points[:, :2].max(0)))
        x, y, width, height = cv2.boundingRect(pixels.astype(np.uint8))
        mask = pixels[y : y + height, x : x + width].copy()
        if width:
            box = np.array([x, y, x + width, y + height], np.float32) - 0.5
        none = np.zeros((0, 4), np.float32)
        persons.append(Person(float(scores[index]), points, box, mask, (x, y), none))
    return Prediction((labels.shape[0], labels.shape[1]), tuple(persons))


def _cells(points: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the cells nearest to points (n, 2)."""
    cells = np.rint(points / STRIDE).astype(np.int64)
    return cells[:, 1].clip(0, shape[-2] - 1), cells[:, 0].clip(0, shape[-1] - 1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
