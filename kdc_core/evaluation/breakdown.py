"""Average precision by number of persons, by their size, and by how they overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdc_core.data.annotations import SIZES, AnnotatedImage, Annotations
from kdc_core.evaluation.coco import Result, Scorer
from kdc_core.evaluation.figures import ROWS
from kdc_core.evaluation.flicker import box_iou

# Limits, the lower excluded: number of persons in an image, largest box IoU of any two of them.
NUMBERS = {"1": (0.0, 1.0), "2-4": (1.0, 4.0), "5-9": (4.0, 9.0), "10+": (9.0, np.inf)}
OVERLAPS = {"none": (-1.0, 0.1), "some": (0.1, 0.3), "heavy": (0.3, np.inf)}


def breakdown(annotations: Annotations, results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Score groups of images and of persons.

    A person is an annotation that is no crowd. Images without any are in no group.

    Args:
        annotations: what is true.
        results: COCO results of the same images.

    Returns:
        For each group `persons_1`, `persons_2-4`, `persons_5-9`, `persons_10+` (persons in the
        image), `overlap_none`, `overlap_some`, `overlap_heavy` (largest box IoU of two of its
        persons: to .1, to .3, above) and `size_small`, `size_medium`, `size_large` (COCO's areas):
        `pictures` and `persons` (int) and, as `score` gives them, `keypoint_ap`,
        `mask_ap_keypoint_persons` and `mask_ap_full`. A size counts the images with such a
        person. Of small persons COCO annotates no keypoints: `mask_ap_full` alone. Mask figures
        are absent where annotations lack masks; -1 where nothing was annotated.
    """
    scorer = Scorer(annotations, results)
    images = [image for image in annotations.images if image.people]
    groups = {}
    for prefix, limits, measured in (
        ("persons", NUMBERS, [len(image.people) for image in images]),
        ("overlap", OVERLAPS, [_largest_iou(image) for image in images]),
    ):
        for name, (low, high) in limits.items():
            inside = [i for i, value in zip(images, measured, strict=True) if low < value <= high]
            figures: dict[str, float] = dict.fromkeys(ROWS, -1.0)
            if inside:
                figures = scorer.figures(image.id for image in inside)
            groups[f"{prefix}_{name}"] = {
                "pictures": len(inside),
                "persons": sum(len(image.people) for image in inside),
                **{key: figures[key] for key in ROWS if key in figures},
            }
    whole = scorer.figures()
    for name, (low, high) in SIZES.items():
        counts = [sum(low <= person.area < high for person in image.people) for image in images]
        groups[f"size_{name}"] = {
            "pictures": sum(count > 0 for count in counts),
            "persons": sum(counts),
            **{key: whole[f"{key}_{name}"] for key in ROWS if f"{key}_{name}" in whole},
        }
    return groups


def _largest_iou(image: AnnotatedImage) -> float:
    """Largest box IoU of any two persons, 0 with fewer."""
    boxes = np.array([person.box for person in image.people], np.float64)
    return float(np.triu(box_iou(boxes, boxes), 1).max())
