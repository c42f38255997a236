"""Clips with known identities, made from annotated photographs: pans, zooms, people who cross."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from kdc_core.bench.frames import FRAME, Cutout, cut_out
from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import COCO17
from kdc_core.data.annotations import AnnotatedImage, Annotations
from kdc_core.data.images import Images
from kdc_core.data.sample import read_sample
from kdc_core.errors import KdcError

RATE = 10.0  # frames a second of every clip
MOVING, STAGED = 30, 40  # frames of clips of one photograph, and of people put together
IGNORED = 255  # label of crowd regions
SLOW_PX, FAST_PX = 1, 6  # of a pan, from frame to frame
ZOOM = 1.5  # last frame over first
LEAST_CUTOUT_PX = 150  # height of a person worth enlarging
SHADE = 120  # gray of what hides people
HIDDEN = 10  # frames of a full occlusion: a second


@dataclass(frozen=True)
class ClipFrame:
    """One frame, and who is where.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8: 0 nobody, else the person, by the same number in all frames of a
            clip; IGNORED in crowd regions.
    """

    image: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Clip:
    """A clip of RATE frames a second; iterating makes its frames.

    Attributes:
        kind: `pan`, `sweep`, `zoom`, `crossing` or `occlusion`.
        length: frames.
        make: the frame of a number.
    """

    kind: str
    length: int
    make: Callable[[int], ClipFrame]

    def __iter__(self) -> Iterator[ClipFrame]:
        return map(self.make, range(self.length))


@dataclass(frozen=True)
class Walker:
    """A cutout, scaled, on its way.

    Attributes:
        cutout: who.
        foot: (x, y) of its lower middle in frame 0, pixels.
        step: pixels to the right from frame to frame.
    """

    cutout: Cutout
    foot: tuple[float, float]
    step: float


@dataclass(frozen=True)
class Screen:
    """A gray rectangle as high as the frame, which hides people.

    Attributes:
        left: its left side in frame 0, pixels.
        width: pixels.
        step: pixels to the right from frame to frame.
    """

    left: float
    width: float
    step: float = 0.0


def make_clips(annotations: Annotations, images: Images, count: int, seed: int) -> list[Clip]:
    """Clips from photographs chosen by chance: of each a pan, a sweep and a zoom, and one
    of people who cross and of people who are hidden, before it blurred.

    Args:
        annotations: of people with masks; photographs that are too narrow to pan, or have fewer
            than two people with keypoints or somebody without a mask, are passed over.
        images: the photographs.
        count: of them, at most.
        seed: of every choice.

    Raises:
        KdcError: too few photographs or people to cut out.
    """
    rng = np.random.default_rng(seed)
    usable = [image for image in annotations.images if _usable(image)]
    order = [usable[index] for index in rng.permutation(len(usable))]
    chosen = [read_sample(images, a, COCO17.num_keypoints) for a in order[:count]]
    cutouts: list[Cutout] = []
    for annotated in order:
        if len(cutouts) >= 3 * count:
            break
        cutouts += cut_out(read_sample(images, annotated, COCO17.num_keypoints), LEAST_CUTOUT_PX)
    if len(cutouts) < 3:
        raise KdcError(
            f"'{annotations.path}' has {len(cutouts)} people to cut out, expected 3 or more: "
            f"upright, {LEAST_CUTOUT_PX} pixels high, in photographs of several people with "
            "keypoints and masks"
        )
    clips = []
    for number, photograph in enumerate(chosen):
        clips += [
            _pan("pan", photograph, SLOW_PX),
            _pan("sweep", photograph, FAST_PX),
            _zoom(photograph),
        ]
        backdrop = cv2.GaussianBlur(cv2.resize(photograph.image, FRAME[::-1]), (0, 0), 24)
        people = [cutouts[index] for index in rng.permutation(len(cutouts))[:3]]
        clips.append(_crossing(backdrop, people, rng))
        occlusion = _pillar if number % 2 else _passing
        clips.append(occlusion(backdrop, people, rng))
    return clips


def _usable(image: AnnotatedImage) -> bool:
    several = len([person for person in image.people if person.labelled.any()]) > 1
    masked = all(person.segmentation is not None for person in image.annotations)
    return several and masked and image.size[1] > MOVING * FAST_PX


def _labels(photograph: Sample) -> np.ndarray:
    """(H, W) uint8; smaller people are on top."""
    labels = np.where(photograph.crowd, IGNORED, 0).astype(np.uint8)
    areas = photograph.masks.sum((1, 2))
    for person in np.argsort(-areas)[: IGNORED - 1]:
        labels[photograph.masks[person]] = person + 1
    return labels


def _pan(kind: str, photograph: Sample, step_px: int) -> Clip:
    """A window of the photograph that goes to the right."""
    labels = _labels(photograph)
    width = labels.shape[1] - (MOVING - 1) * step_px

    def make(number: int) -> ClipFrame:
        window = np.s_[:, number * step_px : number * step_px + width]
        return ClipFrame(np.ascontiguousarray(photograph.image[window]), labels[window])

    return Clip(kind, MOVING, make)


def _zoom(photograph: Sample) -> Clip:
    """The photograph, growing around its middle."""
    labels = _labels(photograph)
    size = labels.shape[::-1]
    middle = (np.array(size) - 1) / 2

    def make(number: int) -> ClipFrame:
        scale = ZOOM ** (number / (MOVING - 1))
        matrix = np.column_stack((scale * np.eye(2), (1 - scale) * middle))
        image = cv2.warpAffine(photograph.image, matrix, size, flags=cv2.INTER_LINEAR)
        return ClipFrame(image, cv2.warpAffine(labels, matrix, size, flags=cv2.INTER_NEAREST))

    return Clip("zoom", MOVING, make)


def _crossing(backdrop: np.ndarray, people: Sequence[Cutout], rng: np.random.Generator) -> Clip:
    """Two people who walk past each other, before or behind one who stands."""
    walkers = []
    for cutout, direction in zip(people, (1, -1, 0), strict=True):
        tall = rng.uniform(0.5, 0.8) * FRAME[0]
        step = direction * rng.uniform(0.5, 0.9) * tall / RATE
        meet = FRAME[1] / 2 + rng.uniform(-60, 60)
        walkers.append(_walker(cutout, tall, meet - step * STAGED / 2, step))
    return Clip("crossing", STAGED, partial(_stage, backdrop, walkers, None))


def _pillar(backdrop: np.ndarray, people: Sequence[Cutout], rng: np.random.Generator) -> Clip:
    """One who walks and is behind a pillar for a second, and one who stands beside it."""
    tall = rng.uniform(0.5, 0.7) * FRAME[0]
    step = rng.uniform(0.6, 0.9) * tall / RATE
    middle = FRAME[1] * 0.45
    walker = _walker(people[0], tall, middle - step * STAGED / 2, step)
    width = walker.cutout.mask.shape[1] + HIDDEN * step
    stander = _walker(people[1], tall, FRAME[1] * 0.9, 0)
    screen = Screen(middle - width / 2, width)
    return Clip("occlusion", STAGED, partial(_stage, backdrop, [walker, stander], screen))


def _passing(backdrop: np.ndarray, people: Sequence[Cutout], rng: np.random.Generator) -> Clip:
    """Two people who stand, each hidden for a second by what passes before them."""
    tall = rng.uniform(0.5, 0.8) * FRAME[0]
    places = (FRAME[1] * 0.3, FRAME[1] * 0.7)
    walkers = [_walker(cutout, tall, x, 0) for cutout, x in zip(people[:2], places, strict=True)]
    step = rng.uniform(30, 50)
    width = max(walker.cutout.mask.shape[1] for walker in walkers) + HIDDEN * step
    screen = Screen(-width, width, step)
    return Clip("occlusion", STAGED, partial(_stage, backdrop, walkers, screen))


def _walker(cutout: Cutout, tall: float, x: float, step: float) -> Walker:
    """Larger people are nearer, and stand lower in the frame."""
    scale = tall / cutout.mask.shape[0]
    size = (max(1, round(cutout.mask.shape[1] * scale)), round(tall))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(cutout.image, size, interpolation=way)
    mask = cv2.resize(cutout.mask.astype(np.float32), size, interpolation=way) >= 0.5
    return Walker(Cutout(image, mask), (x, 0.5 * FRAME[0] + 0.55 * tall), step)


def _stage(
    backdrop: np.ndarray, walkers: Sequence[Walker], screen: Screen | None, number: int
) -> ClipFrame:
    """The frame of a number: people before the backdrop, lower ones on top, then the screen."""
    image, labels = backdrop.copy(), np.zeros(FRAME, np.uint8)
    for person in sorted(range(len(walkers)), key=lambda index: walkers[index].foot[1]):
        walker = walkers[person]
        height, width = walker.cutout.mask.shape
        left = round(walker.foot[0] + number * walker.step - width / 2)
        top = round(walker.foot[1]) - height
        # The part of the cutout that is inside the frame.
        rows = slice(max(0, -top), min(height, FRAME[0] - top))
        columns = slice(max(0, -left), max(0, min(width, FRAME[1] - left)))
        mask = walker.cutout.mask[rows, columns]
        place = (
            slice(max(0, top), max(0, top) + mask.shape[0]),
            slice(max(0, left), max(0, left) + mask.shape[1]),
        )
        image[place][mask] = walker.cutout.image[rows, columns][mask]
        labels[place][mask] = person + 1
    if screen is not None:
        left, right = (
            max(0, round(screen.left + number * screen.step + side)) for side in (0, screen.width)
        )
        image[:, left:right], labels[:, left:right] = SHADE, 0
    return ClipFrame(image, labels)
