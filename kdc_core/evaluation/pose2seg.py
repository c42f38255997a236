"""Pose2Seg's protocol: masks of people whose keypoints are given, all of the same score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdc_core.data.annotations import Annotations
from kdc_core.evaluation.coco import Result, Scorer, mask_or_box

POSE2SEG = "pose2seg"
ROW = "mask_ap_keypoint_persons"


def pose2seg_persons(annotations: Annotations) -> Annotations:
    """The persons with keypoints and a mask, and the images that have any; all else is left out.

    Crowd regions, too: a detection in one is false.
    """
    kept = []
    for image in annotations.images:
        persons = tuple(
            person
            for person in image.people
            if person.labelled.any() and mask_or_box(person, image.size)[1]
        )
        if persons:
            kept.append(replace(image, persons=persons))
    return replace(annotations, images=tuple(kept))


def score_pose2seg(annotations: Annotations, results: Sequence[Result]) -> dict[str, float]:
    """Score masks as Pose2Seg does, by COCO's code.

    Args:
        annotations: of `pose2seg_persons`.
        results: of these persons' keypoints, all of the same score.

    Returns:
        `mask_ap_keypoint_persons` and its parts, as `kdc_core.evaluation.coco.score` names them.
    """
    figures = Scorer(annotations, results).figures()
    return {name: value for name, value in figures.items() if name.startswith(ROW)}
