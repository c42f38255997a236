"""Frames for benchmarks: people of the sample images, pasted on gray."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import COCO17
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.data.sample import read_sample
from kdc_core.inference.assembly import Thresholds

SAMPLES = Path(str(files("kdc_core") / "samples"))
FRAME = (480, 640)
# The crowd of a frame, whole: more of it than with the thresholds of a model.
CROWD = Thresholds(0.1, 0.3, 0.5)


class Cutout(NamedTuple):
    """A person cut out of an image.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        mask: (h, w) bool, its pixels.
    """

    image: np.ndarray
    mask: np.ndarray


def one_person_image() -> np.ndarray:
    """A VGA frame with one person of the sample images on gray: (480, 640, 3) uint8 RGB."""
    return paste_people(1)


def paste_people(count: int) -> np.ndarray:
    """A VGA frame with so many people of the sample images side by side on gray.

    Args:
        count: 1 to 30.
    """
    cutouts = _cutouts()
    canvas = np.full((*FRAME, 3), 114, np.uint8)
    columns, rows = 10, 3
    cell = (FRAME[0] // rows, FRAME[1] // columns)
    for place in range(count):
        image, mask = cutouts[place % len(cutouts)]
        scale = min(cell[0] / image.shape[0], cell[1] / image.shape[1])
        size = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
        row, column = divmod(place, columns)
        y = row * cell[0] + (cell[0] - size[1]) // 2
        x = column * cell[1] + (cell[1] - size[0]) // 2
        window = canvas[y : y + size[1], x : x + size[0]]
        window[inside] = small[inside]
    return canvas


def _cutouts() -> list[Cutout]:
    """Well visible people of the sample images."""
    images = Images(SAMPLES)
    annotations = read_annotations(SAMPLES / "annotations.json")
    samples = (
        read_sample(images, annotated, COCO17.num_keypoints) for annotated in annotations.images
    )
    return [cutout for sample in samples for cutout in cut_out(sample, 80)]


def cut_out(sample: Sample, least_px: int) -> list[Cutout]:
    """Well visible, upright people of an image, higher than so many pixels."""
    cutouts = []
    for keypoints, box, mask in zip(sample.keypoints, sample.boxes, sample.masks, strict=True):
        x0, y0, x1, y1 = (max(0, int(v)) for v in box)
        whole = (keypoints[:, 2] > 0).sum() >= 12
        upright = y1 - y0 > 1.5 * (x1 - x0) and y1 - y0 > least_px
        if whole and upright and mask.any():
            cutouts.append(Cutout(sample.image[y0:y1, x0:x1], mask[y0:y1, x0:x1]))
    return cutouts
