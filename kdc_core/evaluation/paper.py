"""The paper's tables, as printed there, and which of our figures stand beside them.

All masks. The paper's own inconsistencies are named in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

COLUMNS = ("AP", "AP50", "AP75", "APM", "APL", "AR")
SUFFIXES = ("", "50", "75", "_medium", "_large", "_recall")  # of our figures, in that order


@dataclass(frozen=True)
class Published:
    """One row of a table.

    Attributes:
        model: name and backbone.
        values: AP, AP50, AP75, APM, APL, AR, or the first of them; None where the paper prints
            none.
    """

    model: str
    values: tuple[float | None, ...]


# Table I: COCO val. The first two PersonLab rows are single-scale, the next two multi-scale.
TABLE_1 = (
    Published("PersonLab RN-101, single-scale", (0.382, 0.661, 0.397, 0.476, 0.592, 0.162)),
    Published("PersonLab RN-152, single-scale", (0.387, 0.667, 0.406, 0.483, 0.595, 0.163)),
    Published("PersonLab RN-101, multi-scale", (0.414, 0.684, 0.447, 0.492, 0.621, 0.170)),
    Published("PersonLab RN-152, multi-scale", (0.418, 0.688, 0.455, 0.497, 0.621, 0.170)),
    Published("Pose2Seg RN-50-fpn", (0.555, None, None, 0.498, 0.670, None)),
    Published("PosePlusSeg RN-152", (0.563, 0.701, 0.557, 0.509, 0.683, 0.701)),
    Published("KDC RN-101", (0.580, 0.721, 0.559, 0.521, 0.691, 0.699)),
    Published("KDC RN-152", (0.610, 0.764, 0.579, 0.567, 0.724, 0.706)),
)
# Table II: COCO test-dev.
TABLE_2 = (
    Published("Mask-RCNN RN-101", (0.371, 0.600, 0.394, 0.399, 0.535, None)),
    Published("PersonLab RN-101, single-scale", (0.377, 0.659, 0.394, 0.480, 0.595, 0.162)),
    Published("PersonLab RN-152, single-scale", (0.385, 0.668, 0.404, 0.488, 0.602, 0.164)),
    Published("PersonLab RN-101, multi-scale", (0.411, 0.686, 0.445, 0.496, 0.626, 0.169)),
    Published("PersonLab RN-152, multi-scale", (0.417, 0.691, 0.453, 0.502, 0.630, 0.171)),
    Published("PosePlusSeg RN-152", (0.445, 0.794, 0.471, 0.524, 0.651, 0.677)),
    Published("KDC RN-101", (0.457, 0.804, 0.478, 0.535, 0.674, 0.677)),
    Published("KDC RN-152", (0.476, 0.818, 0.487, 0.546, 0.678, 0.682)),
)
# Table III: OCHuman, AP alone; val and test.
TABLE_3 = {
    "val": (
        Published("Pose2Seg RN-50-fpn, keypoints given", (0.544,)),
        Published("KDC RN-101", (0.567,)),
        Published("KDC RN-152", (0.583,)),
    ),
    "test": (
        Published("Pose2Seg RN-50-fpn, keypoints given", (0.552,)),
        Published("KDC RN-101", (0.570,)),
        Published("KDC RN-152", (0.596,)),
    ),
}
# Table IV: static against dynamic centroids, COCO val.
TABLE_4 = (
    Published("PersonLab", (0.418, 0.688, 0.455, 0.497, 0.621)),
    Published("Pose2Seg", (0.555, None, None, 0.498, 0.670)),
    Published("PosePlusSeg", (0.563, 0.701, 0.557, 0.509, 0.683)),
    Published("KDC RN-101, SM_c", (0.568, 0.721, 0.561, 0.531, 0.690)),
    Published("KDC RN-152, SM_c", (0.570, 0.734, 0.565, 0.547, 0.698)),
    Published("KDC RN-101, DM_c", (0.599, 0.751, 0.572, 0.551, 0.717)),
    Published("KDC RN-152, DM_c", (0.610, 0.764, 0.579, 0.567, 0.724)),
)


def masks_of(name: str, figures: dict[str, float], protocol: str) -> Published:
    """Our row: the mask figures of one evaluation.

    Args:
        name: of the row.
        figures: of `kdc_core.evaluation.coco.score`.
        protocol: `mask_ap_keypoint_persons` (COCOPersons) or `mask_ap_full`.
    """
    return Published(name, tuple(figures.get(protocol + suffix) for suffix in SUFFIXES))


def cells(row: Published) -> Iterable[str]:
    """The row's values as text; empty where there is none."""
    return ("" if v is None or v < 0 else f"{v:.3f}" for v in row.values)
