"""How far two predictions of one image are apart: people are matched first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from kdc_core.codec.results import Person, Prediction

# Only people of this score must be found by both; of those below it, one may fall on either side
# of a threshold. Both predictions hold people down to WEAK.
SURE, WEAK = 0.55, 0.35
# People are the same if their keypoints are apart by no more than this fraction of their box.
SAME = 0.2


@dataclass(frozen=True)
class Difference:
    """What one prediction has and another has not.

    Attributes:
        people: sure people that both have.
        missed: sure people of the first that the second lacks.
        extra: sure people of the second that the first lacks.
        keypoint_px: largest distance of a keypoint that is visible in the first, image pixels.
        mask_iou: least overlap (intersection over union) of two masks.
        score: largest difference of a person's score.
    """

    people: int = 0
    missed: int = 0
    extra: int = 0
    keypoint_px: float = 0.0
    mask_iou: float = 1.0
    score: float = 0.0

    def __or__(self, other: Difference) -> Difference:
        """The difference of two images: sums of people, the worst of the rest."""
        return Difference(
            self.people + other.people,
            self.missed + other.missed,
            self.extra + other.extra,
            max(self.keypoint_px, other.keypoint_px),
            min(self.mask_iou, other.mask_iou),
            max(self.score, other.score),
        )

    def __str__(self) -> str:
        return (
            f"{self.people} people matched, {self.missed} missed, {self.extra} more; keypoints "
            f"within {self.keypoint_px:.3f} px, mask IoU from {self.mask_iou:.4f}, scores within "
            f"{self.score:.4f}"
        )


def compare(first: Prediction, second: Prediction, visible: float) -> Difference:
    """Match the people of two predictions of the same image and measure how they differ.

    Args:
        first, second: with people from the score WEAK on.
        visible: score from which a keypoint of the first counts.
    """
    matches = _match(first.persons, second.persons, visible)
    difference = Difference(
        missed=sum(
            person.score >= SURE for i, person in enumerate(first.persons) if i not in matches
        ),
        extra=sum(
            person.score >= SURE
            for i, person in enumerate(second.persons)
            if i not in matches.values()
        ),
    )
    for i, j in matches.items():
        ours, theirs = first.persons[i], second.persons[j]
        if max(ours.score, theirs.score) >= SURE:
            one, other = (p.full_mask(first.size) for p in (ours, theirs))
            union = np.count_nonzero(one | other)
            difference |= Difference(
                people=1,
                keypoint_px=float(_distances(ours, theirs, visible).max(initial=0)),
                mask_iou=np.count_nonzero(one & other) / union if union else 1.0,
                score=abs(ours.score - theirs.score),
            )
    return difference


def _match(ours: tuple[Person, ...], theirs: tuple[Person, ...], visible: float) -> dict[int, int]:
    """Which of the others is which of ours, by index: the nearest to each, all together."""
    if not ours or not theirs:
        return {}
    cost = np.array(
        [
            [
                float(_distances(a, b, visible).mean()) / float(np.hypot(*(a.box[2:] - a.box[:2])))
                for b in theirs
            ]
            for a in ours
        ]
    )
    rows, columns = linear_sum_assignment(np.minimum(cost, 1.0))
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if cost[i, j] <= SAME}


def _distances(ours: Person, theirs: Person, visible: float) -> np.ndarray:
    """Pixels between keypoints that are visible in ours; all of them where none is."""
    seen = ours.keypoints[:, 2] >= visible
    if not seen.any():
        seen[:] = True
    apart: np.ndarray = np.hypot(*(ours.keypoints - theirs.keypoints)[seen, :2].T)
    return apart
