"""Confidence: of the persons given at a threshold, how many are right, and how many are missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kdc_core.data.annotations import Annotations
from kdc_core.evaluation.coco import Result
from kdc_core.evaluation.misses import (
    COVER_FRACTION,
    FOUND_IOU,
    FOUND_OKS,
    Comparison,
    compare,
    match_greedily,
)
from kdc_core.evaluation.plots import draw_lines

THRESHOLDS = np.linspace(0.02, 0.98, 49)


@dataclass(frozen=True)
class Curve:
    """Precision and recall over the threshold.

    Attributes:
        confidence: (n,) thresholds, ascending.
        precision: (n,) fraction of the given persons that are right; 1 where none is given.
        recall: (n,) fraction of the annotated persons with keypoints that are found.
        recall_all: (n,) the same of all persons that are no crowd.
    """

    confidence: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    recall_all: np.ndarray

    def at(self, threshold: float) -> dict[str, float]:
        """The figures at the nearest threshold."""
        i = int(np.abs(self.confidence - threshold).argmin())
        return {name: round(float(values[i]), 4) for name, values in asdict(self).items()}


def precision_recall_curve(annotations: Annotations, results: Sequence[Result]) -> Curve:
    """Judge every given person, best first, and count over thresholds of 0.02 to 0.98.

    A person is right with an OKS of at least .5 with an annotated one not yet taken; where that
    has no keypoints, with a mask IoU of at least .5. One that lies half or more in a crowd region
    counts neither way.

    Args:
        annotations: what is true.
        results: COCO results of the same images.
    """
    compared = list(compare(annotations, results))
    score = np.array([value for comparison in compared for value in comparison.scores])
    judged = [row for comparison in compared for row in _judge(comparison)]
    known, other, wrong = np.array(judged, bool).reshape(-1, 3).T
    persons = sum(len(comparison.persons) for comparison in compared)
    unknown = sum(len(comparison.unknown) for comparison in compared)
    # (n, given): who is given at each threshold.
    given = score >= THRESHOLDS[:, None]
    found, right = (given & known).sum(1), (given & (known | other)).sum(1)
    judged_at = right + (given & wrong).sum(1)
    precision = np.where(judged_at > 0, right / np.maximum(judged_at, 1), 1.0)
    return Curve(THRESHOLDS, precision, found / max(1, persons), right / max(1, persons + unknown))


def _judge(compared: Comparison) -> list[tuple[bool, bool, bool]]:
    """Of each given person: a person with keypoints, one without, or nobody."""
    known = match_greedily(compared.oks, FOUND_OKS)
    left = compared.unknown_iou.copy()
    left[list(known)] = -1
    other = match_greedily(left, FOUND_IOU)
    crowd = compared.in_crowd >= COVER_FRACTION
    return [
        (d in known, d in other, not (d in known or d in other or crowd[d]))
        for d in range(len(compared.scores))
    ]


def draw_curve(curve: Curve, default: float, title: str, path: Path) -> None:
    """Draw precision and recall over the threshold, the default marked (png or svg)."""
    lines = {
        "given persons that are right": curve.precision,
        "persons with keypoints found": curve.recall,
        "all persons found": curve.recall_all,
    }
    mark = ("default", default)
    draw_lines(path, title, curve.confidence, lines, "confidence", mark=mark, unit=True)
