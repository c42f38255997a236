"""Why a table of figures lacks rows."""

from __future__ import annotations

from math import inf

from kdc_core.data.annotations import Annotations
from kdc_core.evaluation.coco import COCO_PROTOCOL, CROWD_INDEX, CROWDPOSE
from kdc_core.evaluation.pose2seg import POSE2SEG


def absent_rows(annotations: Annotations, protocol: str) -> list[str]:
    """A line for each row that the figures of a protocol lack, or of which nothing is annotated.

    Args:
        annotations: what is scored against.
        protocol: as `EvaluationResult` has it.
    """
    if protocol == COCO_PROTOCOL:
        return _coco(annotations)
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


def _coco(annotations: Annotations) -> list[str]:
    people = annotations.people
    masked = [person for person in people if person.segmentation is not None]
    known = {
        "keypoint_ap": ("a labelled keypoint", any(p.num_keypoints for p in people)),
        "mask_ap_keypoint_persons": (
            "both a labelled keypoint and a mask",
            any(p.num_keypoints for p in masked),
        ),
        "mask_ap_full": ("a mask", bool(masked)),
    }
    return [
        f"no {row}: none of {len(people)} persons has {what}"
        for row, (what, there) in known.items()
        if not there
    ]
