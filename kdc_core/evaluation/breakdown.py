"""Average precision by number of persons, by their size, and by how they overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from kdc_core.evaluation.coco import _evaluate, score

NAMES = ("keypoint_ap", "mask_ap_keypoint_persons", "mask_ap_full")
# Limits, the lower excluded: number of persons in a picture, largest box IoU of any two of them.
NUMBERS: dict[str, tuple[float, float]] = {
    "1": (0, 1),
    "2-4": (1, 4),
    "5-9": (4, 9),
    "10+": (9, np.inf),
}
OVERLAPS = {"none": (-1.0, 0.1), "some": (0.1, 0.3), "heavy": (0.3, np.inf)}
# COCO's areas in pixels, the upper limit excluded.
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}
_SEGM_SMALL = 3  # position in COCOeval.stats


def breakdown(
    annotations: dict[str, Any], results: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Score groups of pictures and of persons.

    A person is an annotation of category 1 that is no crowd. Pictures without any are in no group.

    Args:
        annotations: content of a COCO file.
        results: COCO results of the same pictures.

    Returns:
        For each group `persons_1`, `persons_2-4`, `persons_5-9`, `persons_10+` (persons in the
        picture), `overlap_none`, `overlap_some`, `overlap_heavy` (largest box IoU of two of its
        persons: to .1, to .3, above) and `size_small`, `size_medium`, `size_large` (COCO's areas):
        `pictures` and `persons` (int) and, as `score` gives them, `keypoint_ap`,
        `mask_ap_keypoint_persons` and `mask_ap_full`. A size counts the pictures with such a
        person. Of small persons COCO annotates no keypoints: `mask_ap_full` alone. Mask figures
        are absent where annotations lack masks; -1 where nothing was annotated.
    """
    persons: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in annotations["images"]}
    for entry in annotations["annotations"]:
        if entry["category_id"] == 1 and not entry.get("iscrowd"):
            persons[entry["image_id"]].append(entry)
    persons = {image: people for image, people in persons.items() if people}

    def group(measured: dict[int, float], low: float, high: float) -> dict[str, float]:
        keep = {image for image, value in measured.items() if low < value <= high}
        figures: dict[str, float] = dict.fromkeys(NAMES, -1.0)
        if keep:
            figures = score(*_subset(annotations, results, keep))
        return {
            "pictures": len(keep),
            "persons": sum(len(persons[image]) for image in keep),
            **{name: figures[name] for name in NAMES if name in figures},
        }

    groups = {}
    numbers: dict[int, float] = {image: len(people) for image, people in persons.items()}
    for name, limits in NUMBERS.items():
        groups[f"persons_{name}"] = group(numbers, *limits)
    overlaps = {image: _largest_iou(people) for image, people in persons.items()}
    for name, limits in OVERLAPS.items():
        groups[f"overlap_{name}"] = group(overlaps, *limits)
    whole = score(annotations, results)
    if "mask_ap_full" in whole:
        whole["mask_ap_full_small"] = _evaluate(annotations, results, "segm")[_SEGM_SMALL]
    for name, (low, high) in SIZES.items():
        inside = [sum(low <= p["area"] < high for p in people) for people in persons.values()]
        groups[f"size_{name}"] = {
            "pictures": sum(number > 0 for number in inside),
            "persons": sum(inside),
            **{n: whole[f"{n}_{name}"] for n in NAMES if f"{n}_{name}" in whole},
        }
    return groups


def _subset(
    annotations: dict[str, Any], results: list[dict[str, Any]], keep: set[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The annotations and results of some pictures."""
    few = {
        **annotations,
        "images": [image for image in annotations["images"] if image["id"] in keep],
        "annotations": [a for a in annotations["annotations"] if a["image_id"] in keep],
    }
    return few, [result for result in results if result["image_id"] in keep]


def _largest_iou(people: list[dict[str, Any]]) -> float:
    """Largest box IoU of any two, 0 with fewer."""
    boxes = np.array([person["bbox"] for person in people], np.float64)
    ious = rle_tools.iou(boxes, boxes, [0] * len(people))
    return float(np.triu(ious, 1).max())
