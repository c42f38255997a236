"""How well ids follow people whose places are known: switches and IDF1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from operator import add

import numpy as np
from scipy.optimize import linear_sum_assignment

from kdc_core.bench.clips import IGNORED
from kdc_core.codec.results import Prediction


@dataclass(frozen=True)
class IdScore:
    """How well ids follow people whose places are known; scores of clips add up.

    A person is found where the mask IoU exceeds one half, so nobody is found twice.

    Attributes:
        frames: of the clips.
        people: known, over all frames.
        predicted: people, over all frames; without those found in ignored regions.
        found: known people that were found.
        switches: how often a person was found by another id than the last time.
        kept: found under the one id that, all ids assigned at best, is the person's.
    """

    frames: int = 0
    people: int = 0
    predicted: int = 0
    found: int = 0
    switches: int = 0
    kept: int = 0

    def __add__(self, other: IdScore) -> IdScore:
        return IdScore(*map(add, astuple(self), astuple(other)))

    def figures(self) -> dict[str, float]:
        """`switches_per_100_frames`; `idf1` (F1 of identification, Ristani et al. 2016);
        `idf1_best`, what that would be if whoever is found kept one id; `frames`, `people` and
        `found`."""
        most = max(1, self.people + self.predicted)
        return {
            "switches_per_100_frames": round(100 * self.switches / max(1, self.frames), 3),
            "idf1": round(2 * self.kept / most, 4),
            "idf1_best": round(2 * self.found / most, 4),
            "frames": self.frames,
            "people": self.people,
            "found": self.found,
        }


def score_ids(frames: Iterable[tuple[Prediction, np.ndarray]]) -> IdScore:
    """Score a clip.

    Args:
        frames: people with ids, and (H, W) uint8 labels of who is there, as of `ClipFrame`.
    """
    count = people = predicted = switches = 0
    last: dict[int, int] = {}
    together: Counter[tuple[int, int]] = Counter()
    for prediction, labels in frames:
        count += 1
        known = np.unique(labels)
        people += int(((known > 0) & (known < IGNORED)).sum())
        matches, ignored = _matches(prediction, labels)
        predicted += len(prediction) - ignored
        for person, index in matches:
            id_ = prediction.persons[index].id or 0
            switches += last.setdefault(person, id_) != id_
            last[person] = id_
            together[person, id_] += 1
    return IdScore(count, people, predicted, together.total(), switches, _kept(together))


def _matches(prediction: Prediction, labels: np.ndarray) -> tuple[list[tuple[int, int]], int]:
    """(person, index of a prediction) of who is found, and how many others lie in ignored
    regions for the most part."""
    found = prediction.labels.astype(np.int64)
    number = len(prediction) + 1
    both = np.bincount((labels.astype(np.int64) * number + found).ravel(), minlength=256 * number)
    both = both.reshape(256, number)
    union = both.sum(1)[:, None] + both.sum(0)[None] - both
    same = both > 0.5 * union
    same[0], same[IGNORED], same[:, 0] = False, False, False
    ignored = (both[IGNORED] > 0.5 * both.sum(0))[1:] & ~same.any(0)[1:]
    return [(int(p), int(i) - 1) for p, i in zip(*same.nonzero(), strict=True)], int(ignored.sum())


def _kept(together: Counter[tuple[int, int]]) -> int:
    """Most frames that a one-to-one assignment of persons to ids explains."""
    persons = {person: row for row, person in enumerate({person for person, _ in together})}
    ids = {id_: column for column, id_ in enumerate({id_ for _, id_ in together})}
    counts = np.zeros((len(persons), len(ids)), np.int64)
    for (person, id_), frames in together.items():
        counts[persons[person], ids[id_]] = frames
    return int(counts[linear_sum_assignment(counts, maximize=True)].sum())
