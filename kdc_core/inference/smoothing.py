"""Smoothing of keypoints over frames: the One Euro filter (Casiez, Roussel, Vogel, CHI 2012)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kdc_core.codec.results import Person, Prediction, size_of

# Cutoff frequencies in Hz: of what does not move, growth with speed (a person's size a second,
# the root of its box's area), and of speed itself.
LEAST_CUTOFF, GROWTH, SPEED_CUTOFF = 1.0, 4.0, 2.0
LEAST_SCORE = 0.3  # of a keypoint; one that was below begins anew
KEPT_S = 1.0  # for which somebody out of sight is remembered


@dataclass
class _State:
    """What is known of a person.

    Attributes:
        time_s: when it was last seen.
        keypoints: (K, 3) smoothed, with the scores of then.
        speed: (K, 2) smoothed, sizes a second.
    """

    time_s: float
    keypoints: np.ndarray
    speed: np.ndarray


class Smoother:
    """Smooths the keypoints of each person, by its id, the more the slower they move.

    Where no time has passed, or it went back, the frame is taken as it is. Masks, boxes and
    scores stay as they are.
    """

    def __init__(self) -> None:
        self._size = (0, 0)
        self._states: dict[int, _State] = {}

    def __call__(self, prediction: Prediction, time_s: float) -> Prediction:
        """Smooth the people of the next frame; those without an id stay as they are.

        Args:
            prediction: people of the frame.
            time_s: when it was taken, seconds from any moment.
        """
        if prediction.size != self._size:
            self._states, self._size = {}, prediction.size
        persons = tuple(self._smooth(person, time_s) for person in prediction.persons)
        self._states = {
            id: state for id, state in self._states.items() if 0 <= time_s - state.time_s <= KEPT_S
        }
        return replace(prediction, persons=persons)

    def _smooth(self, person: Person, time_s: float) -> Person:
        if person.id is None:
            return person
        state = self._states.get(person.id)
        keypoints = person.keypoints.astype(np.float64)
        speed = np.zeros_like(keypoints[:, :2])
        if state is not None and 0 < (gap_s := time_s - state.time_s) <= KEPT_S:
            moved = keypoints[:, :2] - state.keypoints[:, :2]
            new_speed = moved / (size_of(person) * gap_s)
            new_speed = state.speed + _gain(SPEED_CUTOFF, gap_s) * (new_speed - state.speed)
            cutoff = LEAST_CUTOFF + GROWTH * np.hypot(*new_speed.T)
            known = (state.keypoints[:, 2] >= LEAST_SCORE) & np.isfinite(cutoff)
            speed[known] = new_speed[known]
            smooth = state.keypoints[:, :2] + _gain(cutoff, gap_s)[:, None] * moved
            keypoints[known, :2] = smooth[known]
        self._states[person.id] = _State(time_s, keypoints, speed)
        return replace(person, keypoints=keypoints.astype(np.float32))


def _gain(cutoff: np.ndarray | float, gap_s: float) -> np.ndarray:
    """Weight of what is new in a low-pass filter of this cutoff frequency."""
    turn = 2 * np.pi * np.asarray(cutoff) * gap_s
    return turn / (turn + 1)
