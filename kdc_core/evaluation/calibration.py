"""Confidence: of the persons given at a threshold, how many are right, and how many are missed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdc_core.codec.skeleton import COCO17, Skeleton
from kdc_core.evaluation.misses import COVER_SHARE, FOUND_IOU, FOUND_OKS, Comparison, compare
from kdc_core.files import whole_file

RIGHT, WRONG, NEUTRAL = 1, 0, -1


@dataclass(frozen=True)
class Curve:
    """Precision and recall over the threshold.

    Attributes:
        threshold: (n,) ascending.
        precision: (n,) share of the given persons that are right; 1 where none is given.
        recall: (n,) share of the annotated persons with keypoints that are found.
        recall_all: (n,) the same of all persons that are no crowd.
    """

    threshold: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    recall_all: np.ndarray

    def at(self, threshold: float) -> dict[str, float]:
        """The figures at the nearest threshold."""
        i = int(np.abs(self.threshold - threshold).argmin())
        return {
            "confidence": round(float(self.threshold[i]), 4),
            "precision": round(float(self.precision[i]), 4),
            "recall": round(float(self.recall[i]), 4),
            "recall_all": round(float(self.recall_all[i]), 4),
        }


def calibrate(
    annotations: dict[str, Any], results: list[dict[str, Any]], skeleton: Skeleton = COCO17
) -> Curve:
    """Judge every given person, best first, and count over thresholds of 0.02 to 0.98.

    A person is right with an OKS of at least .5 with an annotated one not yet taken; where that
    has no keypoints, with a mask IoU of at least .5. One that lies half or more in a crowd region
    counts neither way.

    Args:
        annotations: content of a COCO file.
        results: COCO results of the same pictures.
        skeleton: of the keypoints of both.
    """
    scores, verdicts, labelled = [], [], []
    count = count_all = 0
    for compared in compare(annotations, results, skeleton):
        count += len(compared.persons)
        count_all += len(compared.persons) + len(compared.unknown)
        for value, judged, known in _judge(compared):
            scores.append(value)
            verdicts.append(judged)
            labelled.append(known)
    score, verdict = np.array(scores), np.array(verdicts)
    with_keypoints = np.array(labelled, bool)
    threshold = np.linspace(0.02, 0.98, 49)
    rows = []
    for cut in threshold:
        over = score >= cut
        right = int((over & (verdict == RIGHT)).sum())
        wrong = int((over & (verdict == WRONG)).sum())
        found = int((over & (verdict == RIGHT) & with_keypoints).sum())
        rows.append(
            (
                right / max(1, right + wrong) if right + wrong else 1.0,
                found / max(1, count),
                right / max(1, count_all),
            )
        )
    precision, recall, recall_all = np.array(rows).T
    return Curve(threshold, precision, recall, recall_all)


def _judge(compared: Comparison) -> list[tuple[float, int, bool]]:
    """Score, verdict, and whether the person found has keypoints, for each given person."""
    free = set(range(len(compared.persons)))
    free_unknown = set(range(len(compared.unknown)))
    judged = []
    for d, score in enumerate(compared.scores):
        best = max(free, key=lambda g: compared.oks[d, g], default=None)
        other = max(free_unknown, key=lambda u: compared.unknown_iou[d, u], default=None)
        if best is not None and compared.oks[d, best] >= FOUND_OKS:
            free.remove(best)
            judged.append((score, RIGHT, True))
        elif other is not None and compared.unknown_iou[d, other] >= FOUND_IOU:
            free_unknown.remove(other)
            judged.append((score, RIGHT, False))
        elif len(compared.crowds) and compared.in_crowd[d].max() >= COVER_SHARE:
            judged.append((score, NEUTRAL, False))
        else:
            judged.append((score, WRONG, False))
    return judged


def draw_curve(curve: Curve, default: float, title: str, path: Path) -> None:
    """Draw precision and recall over the threshold, the default marked (png or svg)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.6, 3.6), layout="constrained")
    axes.plot(curve.threshold, curve.precision, label="given persons that are right")
    axes.plot(curve.threshold, curve.recall, label="persons with keypoints found")
    axes.plot(curve.threshold, curve.recall_all, label="all persons found")
    axes.axvline(default, color="gray", linestyle="--", linewidth=1)
    axes.annotate("default", (default, 0.02), fontsize=8, rotation=90, ha="right")
    axes.set(xlabel="confidence", ylim=(0, 1.02), xlim=(0, 1))
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, dpi=130)
    pyplot.close(figure)
