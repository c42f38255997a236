"""How a data set looks: some of its annotated images on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotatedImage
from kdc_core.data.images import Images, write_image
from kdc_core.data.masks import decode_mask
from kdc_core.datacheck.check import Check
from kdc_core.files import as_utf8
from kdc_core.show.drawing import color_of, draw_people

TILE_PX = 448  # side of one image of the sheet
CAPTION_PX = 20
GROUND = (32, 32, 32)  # RGB behind the images
CROWD = (255, 255, 255)  # RGB of crowd regions
JPEG_QUALITY = 88
_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.45)


def write_sheet(path: Path, check: Check, skeleton: Skeleton, samples: int) -> int:
    """Draw annotated images, spread evenly over those with persons, into one file.

    Masks are tinted, bones join labelled keypoints where they are the skeleton's, persons without
    a mask are boxed, crowd regions are hatched and boxed.

    Args:
        path: .jpg or .png.
        check: of the data set.
        skeleton: for its bones.
        samples: most images drawn.

    Returns:
        Number of images drawn; nothing is written where it is 0.

    Raises:
        ImageError: an image can no longer be read.
        KdcError: the file cannot be written.
    """
    people = [p for p in check.readable if p.people]
    places = np.linspace(0, len(people) - 1, min(samples, len(people))).round().astype(int)
    source = Images(check.images)
    tiles = [_tile(source.read(people[i].file_name), people[i], skeleton) for i in places]
    if not tiles:
        return 0
    columns = int(np.ceil(np.sqrt(len(tiles) * 4 / 3)))
    blank = np.full_like(tiles[0], GROUND)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    write_image(path, np.vstack(rows), JPEG_QUALITY)
    return len(places)


def _tile(image: np.ndarray, annotated: AnnotatedImage, skeleton: Skeleton) -> np.ndarray:
    """One image with its annotations, above its name: (TILE + CAPTION, TILE, 3) uint8 RGB."""
    scale = (TILE_PX - 4) / max(annotated.size)
    height, width = (max(1, round(side * scale)) for side in annotated.size)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

    def shrink(mask: np.ndarray) -> np.ndarray:
        cover = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        return cover >= 0.5

    persons = []
    for number, person in enumerate(annotated.people, 1):
        whole = decode_mask(person.segmentation or [], annotated.size)
        keypoints = person.keypoints.copy()
        if len(keypoints) != skeleton.num_keypoints:  # of a skeleton whose bones nobody knows
            keypoints = np.zeros((skeleton.num_keypoints, 3), np.float32)
        keypoints[:, :2] = (keypoints[:, :2] + 0.5) * scale - 0.5
        keypoints[:, 2] = keypoints[:, 2] > 0
        none = np.zeros((0, 4), np.float32)
        mask = shrink(whole)
        persons.append(Person(1.0, keypoints, person.box * scale, mask, (0, 0), none, number))
    # The smaller person is on top, as in training.
    persons.sort(key=lambda person: person.area)
    drawn = draw_people(small, Prediction((height, width), tuple(persons)), skeleton, 0.5)
    for shown in persons:
        if not shown.area:
            _draw_box(drawn, shown.box, color_of(shown, 0).tolist())
    for region in annotated.annotations:
        if region.crowd:
            given = region.segmentation
            cover = shrink(decode_mask(given, annotated.size)) if given else None
            _draw_crowd(drawn, cover, region.box * scale)

    tile = np.full((TILE_PX + CAPTION_PX, TILE_PX, 3), GROUND, np.uint8)
    top, left = (TILE_PX - height) // 2, (TILE_PX - width) // 2
    tile[top : top + height, left : left + width] = drawn
    name = as_utf8(annotated.file_name)
    while len(name) > 1 and _text_width(name) > TILE_PX - 8:
        name = name[1:]  # the end of a path says more than its beginning
    cv2.putText(tile, name, (4, TILE_PX + CAPTION_PX - 6), *_FONT, (230, 230, 230), 1, cv2.LINE_AA)
    return tile


def _text_width(text: str) -> int:
    return int(cv2.getTextSize(text, *_FONT, 1)[0][0])


def _draw_crowd(canvas: np.ndarray, mask: np.ndarray | None, box: np.ndarray) -> None:
    """Hatch a region, its box where it has no mask, and outline the box."""
    height, width = canvas.shape[:2]
    if mask is None:
        x0, y0, x1, y1 = (max(0, round(float(v))) for v in box)
        mask = np.zeros((height, width), bool)
        mask[y0:y1, x0:x1] = True
    stripes = np.add.outer(np.arange(height), np.arange(width)) % 8 < 1
    canvas[mask & stripes] = CROWD
    _draw_box(canvas, box, CROWD)


def _draw_box(canvas: np.ndarray, box: np.ndarray, color: Sequence[int]) -> None:
    x0, y0, x1, y1 = (round(float(v)) for v in box.clip(-1e4, 1e4))
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), tuple(color), 1)
