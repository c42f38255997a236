"""Sample: a picture with everything annotated on it, in one frame of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdc_core.data.coco import AnnotatedPicture, decode_mask


@dataclass
class Sample:
    """A picture and its P persons.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        keypoints: (P, K, 3) float32 x, y, v in pixels; v = 0 where not labelled.
        boxes: (P, 4) float32 x0, y0, x1, y1.
        masks: (P, H, W) bool; all False where `has_masks` is False.
        crowd: (H, W) bool; regions where no loss is taken.
        has_masks: persons carry masks; else mask and embedding are not trained here.
    """

    image: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    crowd: np.ndarray
    has_masks: bool


def make_sample(image: np.ndarray, picture: AnnotatedPicture, num_keypoints: int = 17) -> Sample:
    """Put a picture and its annotations together, without any change of geometry.

    Raises:
        ValueError: the picture has another size than annotated, or a mask cannot be decoded.
    """
    size = image.shape[:2]
    if size != picture.size:
        raise ValueError(f"'{picture.file_name}' is {size}, but annotated as {picture.size}")
    persons = [p for p in picture.persons if not p.crowd]
    crowd = np.zeros(size, bool)
    for region in picture.persons:
        if region.crowd and region.segmentation:
            crowd |= decode_mask(region.segmentation, size)
        elif region.crowd:
            x0, y0, x1, y1 = np.clip(np.round(region.box), 0, (*size[::-1], *size[::-1])).astype(
                int
            )
            crowd[y0:y1, x0:x1] = True
    masks = np.zeros((len(persons), *size), bool)
    if picture.has_masks:
        for index, person in enumerate(persons):
            masks[index] = decode_mask(person.segmentation, size)
    return Sample(
        image,
        np.array([p.keypoints for p in persons], np.float32).reshape(-1, num_keypoints, 3),
        np.array([p.box for p in persons], np.float32).reshape(-1, 4),
        masks,
        crowd,
        picture.has_masks,
    )
