"""From an annotated image to a Sample."""

from __future__ import annotations

import numpy as np

from kdc_core.codec.sample import Sample
from kdc_core.data.annotations import AnnotatedImage, AnnotationError
from kdc_core.data.headers import size_told
from kdc_core.data.images import Images, decode_image
from kdc_core.data.masks import decode_mask


def read_sample(images: Images, annotated: AnnotatedImage, num_keypoints: int) -> Sample:
    """Read an image and put its annotations to it.

    Raises:
        ImageError: it cannot be read.
        AnnotationError: it has another size than annotated; says which are annotated, stored and
            shown.
    """
    data = images.read_bytes(annotated.file_name)
    image = decode_image(data, annotated.file_name)
    shown = (image.shape[0], image.shape[1])
    if shown != annotated.size:
        raise AnnotationError(size_told(annotated.size, shown, data))
    return make_sample(image, annotated, num_keypoints)


def make_sample(image: np.ndarray, annotated: AnnotatedImage, num_keypoints: int) -> Sample:
    """Put an image and its annotations together, without any change of geometry.

    Raises:
        AnnotationError: the image has another size than annotated.
    """
    size = (image.shape[0], image.shape[1])
    if size != annotated.size:
        raise AnnotationError(
            f"'{annotated.file_name}' is {size}, but annotated as {annotated.size}"
        )
    persons = annotated.people
    masks = np.zeros((len(persons), *size), bool)
    crowd, unmasked = np.zeros((2, *size), bool)
    for mask, person in zip(masks, persons, strict=True):
        if person.segmentation is not None:
            mask[:] = decode_mask(person.segmentation, size)
        if not mask.any():
            _fill(unmasked, person.box)
    for region in annotated.annotations:
        if region.crowd and region.segmentation is not None:
            crowd |= decode_mask(region.segmentation, size)
        elif region.crowd:
            _fill(crowd, region.box)
    return Sample(
        image,
        np.array([p.keypoints for p in persons], np.float32).reshape(-1, num_keypoints, 3),
        np.array([p.box for p in persons], np.float32).reshape(-1, 4),
        masks,
        crowd,
        unmasked,
    )


def _fill(region: np.ndarray, box: np.ndarray) -> None:
    """Add a box x0, y0, x1, y1 to a region (H, W)."""
    height, width = region.shape
    x0, y0, x1, y1 = np.clip(np.round(box), 0, (width, height, width, height)).astype(int)
    region[y0:y1, x0:x1] = True
