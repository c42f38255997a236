"""Slower ways to run a network for evaluation: mirrored, at several scales, poses given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from kdc_core.codec.decode import decode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Letterbox, Level, SideRule
from kdc_core.codec.grouping import Poses
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Edges, Skeleton
from kdc_core.data.annotations import AnnotatedImage
from kdc_core.data.augment import shrink
from kdc_core.inference.assembly import Raw
from kdc_core.inference.predictor import evaluation_thresholds, find_people
from kdc_core.inference.program import as_raw
from kdc_core.network.backbones import side_rule
from kdc_core.network.weights import load_model


class AugmentedPredictor:
    """Runs a model's network by torch with test-time augmentation, outside any exported program.

    Args:
        model: safetensors file of ours.
        scales: longer sides in pixels, the first the finest; people of all are pooled as those
            of a pyramid's levels. None = the model's own pyramid.
        flip: average the fields with those of the mirrored image.
        given: take the annotated keypoints instead of found ones, as Pose2Seg is fed.
    """

    def __init__(
        self, model: Path, scales: list[int] | None = None, flip: bool = False, given: bool = False
    ):
        self.network, _ = load_model(model)
        self.config, self.codec = self.network.config, self.network.codec
        self.flip, self.given = flip, given
        pyramid, side = self.config.decode.pyramid, self.config.predict.longer_side
        self.scales = sorted(scales or [side // factor for factor in pyramid], reverse=True)
        finest = self.scales[0]
        self.levels = [Level.fractional(self.codec.grid, finest / scale) for scale in self.scales]

    def __call__(self, image: np.ndarray, annotated: AnnotatedImage) -> Prediction:
        """Find the people of an (H, W, 3) uint8 RGB image; `annotated` is read for `given` only.

        Raises:
            ImageArrayError: not such an array.
        """
        sides, people = side_rule(self.config), self.config.decode.people

        def raw_of(frame: np.ndarray, letterbox: Letterbox) -> Raw:
            poses = None
            if self.given:
                points = annotated_points(annotated, self.codec.skeleton)
                points[..., :2] = letterbox.to_network(points[..., :2])
                poses = given_poses(points, people)
            with torch.inference_mode():
                frames = [level_frame(image, letterbox, level, sides) for level in self.levels]
                fields = [self._fields(one) for one in frames]
                return as_raw(decode(fields, self.codec, self.levels, poses))

        return find_people(
            image, raw_of, self.config, evaluation_thresholds(self.config), self.scales[0]
        )

    def _fields(self, frame: np.ndarray) -> Fields[Tensor]:
        image = torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32))
        fields: Fields[Tensor] = self.network(image)
        if not self.flip:
            return fields
        turned = self.network(mirror(image, self.codec.grid, fields.heat.shape[-1]))
        turned = mirror_fields(turned, self.codec.skeleton, self.codec.edges)
        pairs = zip(vars(fields).values(), vars(turned).values(), strict=True)
        return Fields(*((one + other) / 2 for one, other in pairs))


def level_frame(
    image: np.ndarray, letterbox: Letterbox, level: Level, sides: SideRule
) -> np.ndarray:
    """Warp an image to one level of its letterboxed frame; once, so that coarse levels stay sharp.

    Args:
        image: (H, W, 3) uint8.
        letterbox: of the finest level.
        level: factor and shift against it.
        sides: that the result may have.

    Returns:
        (h, w, 3) uint8, black outside the image.
    """
    content = (int(np.ceil(side / level.factor)) for side in letterbox.content)
    height, width = map(sides.round_up, content)
    image, matrix = shrink(image, letterbox.matrix(level.lattice))
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def mirror(image: Tensor, grid: Grid, columns: int) -> Tensor:
    """Mirror images (B, C, H, W) so that cells of the grid come to lie on cells."""
    last = int(2 * grid.offset + grid.stride * (columns - 1))
    x = last - torch.arange(image.shape[-1])
    turned = image[..., x.clamp(0, image.shape[-1] - 1)]
    return turned * ((x >= 0) & (x < image.shape[-1])).to(image.dtype)


def mirror_fields(fields: Fields[Tensor], skeleton: Skeleton, edges: Edges) -> Fields[Tensor]:
    """Fields of a mirrored image, brought back: columns, left and right, and x of offsets."""
    types = [*skeleton.flip, skeleton.center]
    twin = {edge: index for index, edge in enumerate(edges)}
    order = [twin[types[a], types[b]] for a, b in edges]
    sign = torch.tensor([-1.0, 1.0])[:, None, None]
    return Fields(
        fields.heat[:, types].flip(-1),
        fields.short[:, types].flip(-1) * sign,
        fields.mid[:, order].flip(-1) * sign,
        fields.mask.flip(-1),
        fields.embedding[:, types].flip(-1) * sign,
    )


def annotated_points(annotated: AnnotatedImage, skeleton: Skeleton) -> np.ndarray:
    """(P, K + 1, 3) keypoints of all labelled persons, and the centers of their boxes."""
    persons = [person for person in annotated.people if person.labelled.any()]
    points = np.zeros((len(persons), skeleton.num_types, 3), np.float32)
    for row, person in zip(points, persons, strict=True):
        row[:-1] = person.keypoints
        row[-1, :2] = person.box.reshape(2, 2).mean(0)
    return points


def given_poses(points: np.ndarray, people: int) -> Poses:
    """Poses from known keypoints, at most `people`; unlabelled ones lie amid the labelled.

    Args:
        points: (P, T, 3) x, y in network pixels and v, the center last; somebody's are labelled.
        people: P of the decoder.
    """
    position = np.zeros((1, 2, people, points.shape[1]), np.float32)
    known = np.zeros((1, people, points.shape[1]), np.float32)
    score = np.zeros((1, people), np.float32)
    for index, person in enumerate(points[:people]):
        labelled = person[:, 2] > 0
        middle = person[labelled, :2].mean(0)
        places = np.where(labelled[:, None], person[:, :2], middle)
        places[-1] = person[-1, :2]
        position[0, :, index] = places.T
        known[0, index] = labelled
        score[0, index] = 1
    root = np.full(score.shape, points.shape[1] - 1)
    return Poses(*(torch.from_numpy(value) for value in (position, known, score, root)))
