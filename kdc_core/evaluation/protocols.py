"""Whose rules annotations are scored by, and what their tables lack for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotatedPerson, Annotations
from kdc_core.evaluation.coco import (
    COCO_PROTOCOL,
    CROWD_INDEX,
    CROWDPOSE,
    Result,
    Scorer,
    mask_or_box,
)
from kdc_core.evaluation.figures import KEYPOINT_AP, MASK_AP, MASK_AP_ALL

# Masks of people whose keypoints are given, all of the same score.
POSE2SEG = "pose2seg"


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
            kept.append(replace(image, annotations=persons))
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
    return {name: value for name, value in figures.items() if name.startswith(MASK_AP)}


def on_skeleton(annotations: Annotations, skeleton: Skeleton) -> Annotations:
    """CrowdPose's people on a model's skeleton; keypoints that only it has are unlabelled.

    Args:
        annotations: of their own skeleton.
        skeleton: whose keypoints of the same names are the same.
    """
    theirs = annotations.skeleton.keypoints
    common = tuple(k for k, name in enumerate(skeleton.keypoints) if name in theirs)
    places = [theirs.index(skeleton.keypoints[k]) for k in common]

    def moved(person: AnnotatedPerson) -> AnnotatedPerson:
        keypoints = np.zeros((skeleton.num_keypoints, 3), np.float32)
        keypoints[list(common)] = person.keypoints[places]
        count = int((keypoints[:, 2] > 0).sum())
        return replace(person, keypoints=keypoints, num_keypoints=count)

    images = tuple(
        replace(image, annotations=tuple(map(moved, image.annotations)))
        for image in annotations.images
    )
    return replace(annotations, images=images, skeleton=skeleton, common=common)


def absent_rows(annotations: Annotations, protocol: str) -> list[str]:
    """A line for each row that the figures of a protocol lack, or of which nothing is annotated.

    Args:
        annotations: what is scored against.
        protocol: as `EvaluationResult` has it.
    """
    if protocol == COCO_PROTOCOL:
        return _absent_by_coco(annotations)
    if protocol == POSE2SEG:
        return [
            "no keypoint_ap: the keypoints are given",
            "no mask_ap_full: persons without keypoints or mask are left out",
        ]
    lines = ["no AP of masks: CrowdPose scores keypoints alone"]
    if protocol == CROWDPOSE:
        indices = [i.crowd_index for i in annotations.images if i.crowd_index is not None]
        for name, (low, high) in CROWD_INDEX.items():
            if not any(low <= index < high for index in indices):
                limits = f" from {low:g}" * (low > -inf) + f" below {high:g}" * (high < inf)
                lines.append(f"no keypoint_ap_crowd_{name}: no image has a crowd index{limits}")
    return lines


def _absent_by_coco(annotations: Annotations) -> list[str]:
    people = annotations.people
    masked = [person for person in people if person.segmentation is not None]
    known = {
        KEYPOINT_AP: ("a labelled keypoint", any(p.num_keypoints for p in people)),
        MASK_AP: (
            "both a labelled keypoint and a mask",
            any(p.num_keypoints for p in masked),
        ),
        MASK_AP_ALL: ("a mask", bool(masked)),
    }
    return [
        f"no {row}: none of {len(people)} persons has {what}"
        for row, (what, there) in known.items()
        if not there
    ]
