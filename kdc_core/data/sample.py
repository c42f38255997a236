"""From an annotated image to a Sample."""

from __future__ import annotations

import numpy as np

from kdc_core.codec.sample import Sample
from kdc_core.data.annotations import AnnotatedImage, AnnotationError
from kdc_core.data.masks import decode_mask


def make_sample(image: np.ndarray, annotated: AnnotatedImage, num_keypoints: int = 17) -> Sample:
    """Put an image and its annotations together, without any change of geometry.

    Raises:
        AnnotationError: the image has another size than annotated, or a mask cannot be decoded.
    """
    size = (image.shape[0], image.shape[1])
    if size != annotated.size:
        raise AnnotationError(
            f"'{annotated.file_name}' is {size}, but annotated as {annotated.size}"
        )
    persons = [p for p in annotated.persons if not p.crowd]
    crowd = np.zeros(size, bool)
    for region in annotated.persons:
        if region.crowd and region.segmentation:
            crowd |= decode_mask(region.segmentation, size)
        elif region.crowd:
            limits = (size[1], size[0], size[1], size[0])
            x0, y0, x1, y1 = np.clip(np.round(region.box), 0, limits).astype(int)
            crowd[y0:y1, x0:x1] = True
    masks = np.zeros((len(persons), *size), bool)
    if annotated.has_masks:
        for index, person in enumerate(persons):
            masks[index] = decode_mask(person.segmentation, size)
    return Sample(
        image,
        np.array([p.keypoints for p in persons], np.float32).reshape(-1, num_keypoints, 3),
        np.array([p.box for p in persons], np.float32).reshape(-1, 4),
        masks,
        crowd,
        annotated.has_masks,
    )
