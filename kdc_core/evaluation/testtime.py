"""Slower ways to run a network for evaluation: mirrored, at several scales, poses given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from kdc_core.codec.decode import Decoder
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Letterbox, Level
from kdc_core.codec.grouping import Poses
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotatedImage
from kdc_core.data.augment import shrink
from kdc_core.evaluation.oracle import raw_people
from kdc_core.inference.assembly import Thresholds, assemble
from kdc_core.network.backbones import side_rule
from kdc_core.network.weights import load_model


class TestTime:
    """Runs a model's network by torch, outside any exported program.

    Args:
        model: safetensors file of ours.
        scales: longer sides in pixels, the first the finest; people of all are pooled as those
            of a pyramid's levels. None = the model's own pyramid.
        flip: average the fields with those of the mirrored picture.
        given: take the annotated keypoints instead of found ones, as Pose2Seg is fed.
    """

    __test__ = False  # not a test, whatever its name

    def __init__(
        self, model: Path, scales: list[int] | None = None, flip: bool = False, given: bool = False
    ):
        self.network, _ = load_model(model)
        config = self.network.config
        self.flip, self.given = flip, given
        self._rule = side_rule(config)
        side = config.predict.longer_side
        self.scales = sorted(scales or [side // f for f in config.decode.pyramid], reverse=True)
        grid = self.network.grid
        self.levels = [Level.exact(grid, self.scales[0] / scale) for scale in self.scales]
        kinds = tuple(config.fields.edges)
        self.decoder = Decoder(self.network.skeleton, grid, kinds, config.decode, self.levels)

    def __call__(self, image: np.ndarray, picture: AnnotatedImage) -> Prediction:
        """Find the people of an (H, W, 3) uint8 RGB image; `picture` is read for `given` only."""
        config, size = self.network.config, (image.shape[0], image.shape[1])
        letterbox = Letterbox.fit(size, self.scales[0], *self._rule)
        with torch.inference_mode():
            fields = [
                self._fields(level_frame(image, letterbox, v, self._rule)) for v in self.levels
            ]
            poses = None
            if self.given:
                points = annotated_points(picture, self.network.skeleton)
                points[..., :2] = letterbox.to_network(points[..., :2])
                poses = given_poses(points, config.decode.people)
            people = self.decoder(fields, poses)
        return assemble(
            raw_people(people),
            letterbox,
            size,
            self.network.grid,
            config.decode.upsample,
            Thresholds(0.0, 0.0, config.predict.mask_threshold, config.decode.people),
        )

    def _fields(self, frame: np.ndarray) -> Fields:
        picture = torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32))
        fields: Fields = self.network(picture)
        if not self.flip:
            return fields
        grid = self.network.grid
        turned = self.network(mirror(picture, grid, fields.heat.shape[-1]))
        turned = mirror_fields(turned, self.network.skeleton, self.network.edges)
        both = (
            (a + b) / 2 for a, b in zip(vars(fields).values(), vars(turned).values(), strict=True)
        )
        return Fields(*both)


def level_frame(
    image: np.ndarray, letterbox: Letterbox, level: Level, rule: tuple[int, int]
) -> np.ndarray:
    """Warp an image to one level of its letterboxed picture.

    Args:
        image: (H, W, 3) uint8.
        letterbox: of the finest level.
        level: factor and shift against it.
        rule: (m, r); sides of the result are n * m + r.

    Returns:
        (h, w, 3) uint8, black outside the image.
    """
    factor, scale = level.factor, np.array([letterbox.scale_x, letterbox.scale_y])
    # image pixel u -> finest (u + 0.5) * scale - 0.5 -> this level, by the inverse of to_picture
    shift = (0.5 * scale - 0.5 - (factor - 1) / 2 - level.shift) / factor
    matrix = np.c_[np.diag(scale / factor), shift]
    content = [int(np.ceil(side / factor)) for side in letterbox.content]
    size = [side + (rule[1] - side) % rule[0] for side in content]
    image, matrix = shrink(image, matrix)
    return cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR)


def mirror(picture: Tensor, grid: Grid, columns: int) -> Tensor:
    """Mirror pictures (B, C, H, W) so that cells of the grid come to lie on cells."""
    last = int(2 * grid.offset + grid.stride * (columns - 1))
    x = last - torch.arange(picture.shape[-1])
    turned = picture[..., x.clamp(0, picture.shape[-1] - 1)]
    return turned * ((x >= 0) & (x < picture.shape[-1])).to(picture.dtype)


def mirror_fields(
    fields: Fields, skeleton: Skeleton, edges: tuple[tuple[int, int], ...]
) -> Fields:
    """Fields of a mirrored picture, brought back: columns, left and right, and x of offsets."""
    types = torch.tensor([*skeleton.flip, skeleton.center])
    twin = {edge: index for index, edge in enumerate(edges)}
    swap = types.tolist()
    order = torch.tensor([twin[swap[a], swap[b]] for a, b in edges])
    sign = torch.tensor([-1.0, 1.0])[:, None, None]
    return Fields(
        fields.heat[:, types].flip(-1),
        fields.short[:, types].flip(-1) * sign,
        fields.mid[:, order].flip(-1) * sign,
        fields.mask.flip(-1),
        fields.embedding[:, types].flip(-1) * sign,
    )


def annotated_points(picture: AnnotatedImage, skeleton: Skeleton) -> np.ndarray:
    """(P, K + 1, 3) keypoints of all labelled persons, and the centers of their boxes."""
    persons = [p for p in picture.persons if not p.crowd and (p.keypoints[:, 2] > 0).any()]
    rows = []
    for person in persons:
        x, y = (person.box[:2] + person.box[2:]) / 2
        rows.append(np.concatenate((person.keypoints, [[x, y, 0]])))
    return np.array(rows, np.float32).reshape(-1, skeleton.num_types, 3)


def given_poses(points: np.ndarray, people: int) -> Poses:
    """Poses from known keypoints, at most `people`; unlabelled ones lie amid the labelled.

    Args:
        points: (P, T, 3) x, y in network pixels and v, the center last.
        people: P of the decoder.
    """
    position = np.zeros((1, people, points.shape[1], 2), np.float32)
    known = np.zeros((1, people, points.shape[1]), np.float32)
    score = np.zeros((1, people), np.float32)
    for index, person in enumerate(points[:people]):
        labelled = person[:, 2] > 0
        middle = person[labelled, :2].mean(0) if labelled.any() else person[-1, :2]
        position[0, index] = np.where(labelled[:, None], person[:, :2], middle)
        position[0, index, -1] = person[-1, :2]
        known[0, index] = labelled
        score[0, index] = 1
    root = np.full(score.shape, points.shape[1] - 1)
    return Poses(*(torch.from_numpy(value) for value in (position, known, score, root)))
