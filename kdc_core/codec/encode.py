"""Encode: the Fields the network should give for an annotated image (paper III-A, III-B)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import cv2
import numpy as np

from kdc_core.codec.codec import Codec
from kdc_core.codec.coverage import coverage
from kdc_core.codec.fields import Array, Fields, Other
from kdc_core.codec.grid import Grid
from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import Skeleton

# Persons per image that the instance loss sees, and the least cells one must have.
INSTANCES = 8
LEAST_INSTANCE_CELLS = 6.0
# Radius of the body center's disk: this fraction of the box's size, and at least so many cells.
CENTER_DISK_FRACTION, LEAST_DISK_CELLS = 0.3, 1.5
# Sigma of a Gaussian heatmap: this fraction of the person's size, within these pixels.
SIGMA_FRACTION, SIGMA_LIMITS_PX = 0.09, (4.0, 10.0)
REACH_SIGMAS = 5.0  # beyond which it is 0


@dataclass
class Instances(Generic[Array]):
    """The persons of an image one by one, for the instance loss; padded with absent ones.

    Attributes:
        point: (B, Q, T, 2) pixels.
        weight: (B, Q, T) of each type as centroid; sums to 1, or to 0 where nobody is.
        size: (B, Q) square root of the box's area, pixels.
        cover: (B, Q, h, w) fraction of each cell.
    """

    point: Array
    weight: Array
    size: Array
    cover: Array

    def map(self, function: Callable[[Array], Other]) -> Instances[Other]:
        """Apply a function to every array."""
        return Instances(*map(function, vars(self).values()))


def encode(
    sample: Sample, codec: Codec
) -> tuple[Fields[np.ndarray], Fields[np.ndarray], Instances[np.ndarray]]:
    """Draw the targets of one image and the weights of their losses, and list its people.

    Args:
        sample: image with persons; only its size and annotations are used.
        codec: skeleton, grid and form of the targets.

    Returns:
        targets, weights, instances: float32 arrays with a batch axis of 1. `heat` is 0 to 1,
        `mask` the fraction of the cell that people cover, offsets are pixels. Weights of the
        embedding are 1 / sqrt(person's cells), so that large people do not drown small ones.
        Instances are the INSTANCES largest persons with a mask.
    """
    skeleton, grid, edges = codec.skeleton, codec.grid, codec.edges
    height, width = sample.image.shape[:2]
    h, w = grid.count(height), grid.count(width)
    xs, ys = grid.cell_pixels(h, w)
    points, known = _points(sample, skeleton)
    covers = np.array([coverage(m, grid, h, w) for m in sample.masks]).reshape(-1, h, w)
    crowd = coverage(sample.crowd, grid, h, w) >= 0.5
    unmasked = coverage(sample.unmasked, grid, h, w) > 0
    union, mask_weight = _person_map(sample, grid, h, w, codec.mask_fineness)

    radius = np.full(points.shape[:2], codec.disk_radius_px, np.float32)
    box_size = np.sqrt(np.prod(np.maximum(sample.boxes[:, 2:] - sample.boxes[:, :2], 0), 1))
    least = LEAST_DISK_CELLS * grid.stride
    most = max(codec.disk_radius_px, least)
    radius[:, skeleton.center] = np.clip(CENTER_DISK_FRACTION * box_size, least, most)
    owner = _disks(points, known, radius, xs, ys)

    inside = owner >= 0
    short = np.zeros((skeleton.num_types, 2, h, w), np.float32)
    mid = np.zeros((len(edges), 2, h, w), np.float32)
    mid_weight = np.zeros((len(edges), 1, h, w), np.float32)
    for start in range(skeleton.num_types):
        cells = np.flatnonzero(inside[start])
        person = owner[start].ravel()[cells]
        here = np.stack((xs[cells % w], ys[cells // w]))
        _draw(short[start], cells, points[:, start].T[:, person] - here)
        for index, (begin, end) in enumerate(edges):
            if begin == start:
                ok = known[person, end]
                ends = points[:, end].T[:, person[ok]]
                _draw(mid[index], cells[ok], ends - here[:, ok])
                mid_weight[index].ravel()[cells[ok]] = 1

    embedding, embedding_weight = _embedding(covers, points, known, xs, ys)
    heat_weight = _heat_weight(sample, known, inside, unmasked, skeleton, xs, ys)
    if codec.heat == "gaussian":
        heat = _gaussians(points, known, box_size, xs, ys)
    else:
        heat = inside.astype(np.float32)
    targets = Fields(
        heat[None],
        short[None],
        mid[None],
        union[None, None],
        embedding[None],
    )
    weights = Fields(
        heat_weight[None],
        inside[None, :, None].astype(np.float32),
        mid_weight[None],
        mask_weight[None, None],
        embedding_weight[None],
    )
    weights.embedding[..., unmasked] = 0
    if crowd.any():
        for name, value in weights.items():
            if name != "mask":
                value[..., crowd] = 0
    return targets, weights, _instances(sample, points, known, covers)


def _person_map(
    sample: Sample, grid: Grid, h: int, w: int, fineness: int
) -> tuple[np.ndarray, np.ndarray]:
    """What fraction of each cell people cover, and where that is known; of `Grid.finer`."""
    finer, size = grid.finer(fineness), (fineness * h, fineness * w)
    union = coverage(np.any(sample.masks, axis=0), finer, *size)
    known = (coverage(sample.unmasked, finer, *size) == 0) & (
        coverage(sample.crowd, finer, *size) < 0.5
    )
    return union, known.astype(np.float32)


def _draw(field: np.ndarray, cells: np.ndarray, offsets: np.ndarray) -> None:
    """Write offsets (2, n) into cells of a field (2, h, w)."""
    flat = field.reshape(2, -1)
    flat[0, cells], flat[1, cells] = offsets


def _instances(
    sample: Sample, points: np.ndarray, known: np.ndarray, covers: np.ndarray
) -> Instances[np.ndarray]:
    """Labelled keypoints are alike as centroids; the body center counts where there are none."""
    areas = covers.sum((1, 2))
    types, (h, w) = points.shape[1], covers.shape[1:]
    found = Instances(
        np.zeros((1, INSTANCES, types, 2), np.float32),
        np.zeros((1, INSTANCES, types), np.float32),
        np.zeros((1, INSTANCES), np.float32),
        np.zeros((1, INSTANCES, h, w), np.float32),
    )
    largest = [p for p in np.argsort(-areas, kind="stable") if areas[p] >= LEAST_INSTANCE_CELLS]
    for place, person in enumerate(largest[:INSTANCES]):
        use = known[person].astype(np.float32)
        if use[:-1].any():
            use[-1] = 0
        sides = sample.boxes[person, 2:] - sample.boxes[person, :2]
        found.point[0, place] = points[person]
        found.weight[0, place] = use / use.sum()
        found.size[0, place] = np.sqrt(np.prod(np.maximum(sides, 1)))
        found.cover[0, place] = covers[person]
    return found


def _points(sample: Sample, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Positions (P, T, 2) of all types and whether they are known (P, T)."""
    people = len(sample.keypoints)
    points = np.zeros((people, skeleton.num_types, 2), np.float32)
    known = np.zeros((people, skeleton.num_types), bool)
    points[:, :-1] = sample.keypoints[..., :2]
    known[:, :-1] = sample.keypoints[..., 2] > 0
    for p in range(people):
        mask = sample.masks[p].view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        area = 0.0
        if width:
            # The body center is the mean of the mask (equation 1).
            moments = cv2.moments(mask[y : y + height, x : x + width], binaryImage=True)
            area = moments["m00"]
            points[p, -1] = x + moments["m10"] / area, y + moments["m01"] / area
        else:
            points[p, -1] = (sample.boxes[p, :2] + sample.boxes[p, 2:]) / 2
        seen = bool(known[p, :-1].any())
        # Without a mask, a box without keypoints may be anything (a crowd region, too).
        known[p, -1] = area > 0 or (seen and _at(sample.unmasked, points[p, -1]))
    return points, known


def _at(region: np.ndarray, point: np.ndarray) -> bool:
    """Whether the pixel of the region that is nearest to a point x, y belongs to it."""
    last = np.array(region.shape[::-1]) - 1
    column, row = np.clip(np.round(point), 0, last).astype(int)
    return bool(region[row, column])


def _disks(
    points: np.ndarray, known: np.ndarray, radius: np.ndarray, xs: np.ndarray, ys: np.ndarray
) -> np.ndarray:
    """Index of the person whose disk of each type covers a cell (nearest wins), else -1."""
    types = points.shape[1]
    owner = np.full((types, len(ys), len(xs)), -1, np.int16)
    nearest = np.full(owner.shape, np.inf, np.float32)
    for person, type_ in zip(*np.nonzero(known), strict=True):
        x, y = points[person, type_]
        r = radius[person, type_]
        columns = slice(*np.searchsorted(xs, (x - r, x + r + 1e-3)))
        rows = slice(*np.searchsorted(ys, (y - r, y + r + 1e-3)))
        distance = (xs[columns] - x) ** 2 + (ys[rows, None] - y) ** 2
        window = nearest[type_, rows, columns]
        closer = (distance <= r * r) & (distance < window)
        window[closer] = distance[closer]
        owner[type_, rows, columns][closer] = person
    return owner


def _gaussians(
    points: np.ndarray, known: np.ndarray, box_size: np.ndarray, xs: np.ndarray, ys: np.ndarray
) -> np.ndarray:
    """The highest of the Gaussians of each type (T, h, w) around the persons' places."""
    heat = np.zeros((points.shape[1], len(ys), len(xs)), np.float32)
    sigmas = np.clip(SIGMA_FRACTION * box_size, *SIGMA_LIMITS_PX)
    for person, type_ in zip(*np.nonzero(known), strict=True):
        (x, y), sigma = points[person, type_], sigmas[person]
        columns = slice(*np.searchsorted(xs, (x - REACH_SIGMAS * sigma, x + REACH_SIGMAS * sigma)))
        rows = slice(*np.searchsorted(ys, (y - REACH_SIGMAS * sigma, y + REACH_SIGMAS * sigma)))
        square = (xs[columns] - x) ** 2 + (ys[rows, None] - y) ** 2
        window = heat[type_, rows, columns]
        np.maximum(window, np.exp(square / (-2 * sigma**2)), out=window)
    return heat


def _embedding(
    covers: np.ndarray, points: np.ndarray, known: np.ndarray, xs: np.ndarray, ys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from each person's cells to its keypoints; where people overlap, the smaller's.

    Cells of which a person covers anything are drawn, so that at the mask's edge the embedding
    is still there to be upsampled.
    """
    types = points.shape[1]
    embedding = np.zeros((types, 2, len(ys), len(xs)), np.float32)
    weight = np.zeros((types, 1, len(ys), len(xs)), np.float32)
    areas = covers.sum((1, 2))
    owner = np.full((len(ys), len(xs)), -1, np.int64)
    largest_first = np.argsort(-areas, kind="stable")
    for least in (0.0, 0.5):
        for person in largest_first:
            owner[covers[person] > least] = person
    rows, columns = np.nonzero(owner >= 0)
    if len(rows):
        person = owner[rows, columns]
        here = np.stack((xs[columns], ys[rows]))
        ok = known[person].T
        offsets = (points[person].transpose(1, 2, 0) - here) * ok[:, None]
        embedding[:, :, rows, columns] = offsets
        weight[:, 0, rows, columns] = ok / np.sqrt(np.maximum(areas[person], 1))
    return embedding, weight


def _heat_weight(
    sample: Sample,
    known: np.ndarray,
    inside: np.ndarray,
    unmasked: np.ndarray,
    skeleton: Skeleton,
    xs: np.ndarray,
    ys: np.ndarray,
) -> np.ndarray:
    """1 where the heatmap is known: not on people without labelled keypoints."""
    weight = np.ones(inside.shape, np.float32)
    unlabelled = np.flatnonzero(known[:, :-1].sum(1) == 0)
    for box in sample.boxes[unlabelled]:
        columns = slice(*np.searchsorted(xs, (box[0], box[2] + 1e-3)))
        rows = slice(*np.searchsorted(ys, (box[1], box[3] + 1e-3)))
        weight[: skeleton.num_keypoints, rows, columns] = 0
        weight[skeleton.center, rows, columns][unmasked[rows, columns]] = 0
    weight[inside] = 1
    return weight
