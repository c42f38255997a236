"""Tracking: who in this frame is who of the frames before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import BOX_FRACTION
from kdc_core.inference.assembly import Thresholds

if TYPE_CHECKING:
    from kdc_core.inference.predictor import Predictor

LAST_ID = 65534  # vision_msgs calls 65535 unlabeled
TIMEOUT_S = 1.0  # for which a lost person is waited for, where nobody says otherwise
BACKWARDS_S = 1.0  # a time that goes back further begins a new recording
LOST_S = 0.75  # for which a person may not be found before it is lost
SLOW_S = 2.0  # longest gap between two frames over which people are followed
MOST_MISSING = 96  # people waited for; those seen last are kept
FAINT = 0.9  # of the confidence; people from there on are followed, though not begun with

# Cost of calling a track and a person the same: the mean, by these weights, of what is lacking
# in OKS, in the IoU of the masks, and in how near the person is to where it should be.
WEIGHTS = (1.2, 0.8, 1.2)
LIMIT = 0.9  # from this cost on they are two
REACH = 0.6  # distance, in roots of the person's area, at which nearness is exp(-1/2)
DOUBT = 1.0  # growth of that distance with each second unseen, relative
VELOCITY_S = 0.8  # over which velocity is averaged
STEP_S = 0.015  # shortest time of which velocity is measured: stamps of a burst are closer
STRAIGHT_S = 1.4  # for which who is missing is taken to go straight on
LEAST_WEIGHT = 1e-12  # of two people's keypoints together; float32 blurs means of less
LATTICE = 48  # points along the longer side of the image, at which masks are compared


@dataclass
class _Track:
    """A person followed.

    Attributes:
        id: 1 to LAST_ID.
        person: as last seen.
        seen_s: when that was, by the tracker's clock.
        velocity: (2,) pixels a second.
        steps: measurements that velocity is the mean of.
        step_from_s: when the measurement under way began, by the tracker's clock.
        moved: (2,) pixels since then.
        missing: whether a frame since is without it.
        lost: whether that has been so for LOST_S.
    """

    id: int
    person: Person
    seen_s: float
    step_from_s: float
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    steps: int = 0
    moved: np.ndarray = field(default_factory=lambda: np.zeros(2))
    missing: bool = False
    lost: bool = False


def tracking_thresholds(thresholds: Thresholds) -> Thresholds:
    """These, with people kept who are too faint to be new, and good enough to be followed."""
    return replace(thresholds, confidence=FAINT * thresholds.confidence)


class Tracker:
    """Gives people ids that stay from frame to frame; of one camera or recording.

    A person is lost once it was not found for LOST_S, which may begin while it is half hidden, and
    has its id again if it is found within the timeout from then on. Ids count from 1 to 65534,
    then begin again, past those in use. With an image of another size, or a time more than a
    second before the last, everybody is new.

    Args:
        skeleton: of the people's keypoints.
        timeout_s: seconds for which a lost person is waited for; may be changed at any time.

    Attributes:
        timeout_s: as given.
        confidence: least score of a person that is new; who was there before is followed
            whatever its score. May be changed at any time.
        lost: how many people were lost.
        regained: how many of them came back within the timeout.
    """

    def __init__(self, skeleton: Skeleton, timeout_s: float):
        self.timeout_s = timeout_s
        self.confidence = 0.0
        self.lost = self.regained = 0
        self._variances = (2 * np.array(skeleton.sigmas, np.float32)) ** 2  # COCO's, of OKS
        self.reset()

    def reset(self) -> None:
        """Forget everybody; ids begin at 1. The counts stay."""
        self._tracks: list[_Track] = []
        self._last_id = 0
        self._size = (0, 0)
        self._lattice = np.empty((0, 0, 0), np.float32)  # kept: new memory takes time
        self._time_s = self._clock_s = 0.0  # of the last frame; the clock never goes back

    def __call__(self, prediction: Prediction, time_s: float) -> Prediction:
        """Give the people of the next frame their ids.

        Args:
            prediction: people of the frame, found with `tracking_thresholds` or others.
            time_s: when it was taken, seconds from any moment.

        Returns:
            The same people in the same order, without those who are new and below `confidence`.
        """
        if prediction.size != self._size or time_s < self._time_s - BACKWARDS_S:
            self._tracks, self._size, self._time_s = [], prediction.size, time_s
        self._clock_s += max(0.0, time_s - self._time_s)
        self._time_s = time_s
        waiting = [track for track in self._tracks if self._alive(track)]
        matches = self._match(waiting, prediction.persons)
        used = {track.id for track in waiting}
        followed: list[_Track] = []
        persons = []
        for index, person in enumerate(prediction.persons):
            if index in matches:
                track, offset = matches[index]
                self._follow(track, person, offset)
            elif person.score >= self.confidence:
                track = _Track(self._new_id(used), person, self._clock_s, self._clock_s)
            else:
                continue
            followed.append(track)
            persons.append(replace(person, id=track.id))
        seen = {track.id for track in followed}
        missing = [track for track in self._tracks if track.id not in seen]
        self._miss(missing)
        missing = sorted(filter(self._alive, missing), key=lambda track: track.seen_s)
        self._tracks = followed + missing[-MOST_MISSING:]
        return replace(prediction, persons=tuple(persons))

    def _alive(self, track: _Track) -> bool:
        life_s = LOST_S + self.timeout_s
        return self._clock_s - track.seen_s <= (life_s if track.missing else max(life_s, SLOW_S))

    def _match(
        self, tracks: Sequence[_Track], persons: Sequence[Person]
    ) -> dict[int, tuple[_Track, np.ndarray]]:
        """By index of a person, its track, and how far it is from where that was seen."""
        if not (tracks and persons):
            return {}
        gap_s = np.array([self._clock_s - track.seen_s for track in tracks], np.float32)
        straight_s = STRAIGHT_S * -np.expm1(-gap_s / STRAIGHT_S)
        shift = np.array([track.velocity for track in tracks], np.float32) * straight_s[:, None]
        before = [track.person for track in tracks]
        off, cost = self._compare(before, persons, shift, 1 + DOUBT * gap_s)
        cost[~(cost < LIMIT)] = LIMIT  # whatever is no number, too
        pairs = zip(*linear_sum_assignment(cost), strict=True)
        return {m: (tracks[n], shift[n] + off[n, m]) for n, m in pairs if cost[n, m] < LIMIT}

    def _compare(
        self,
        before: Sequence[Person],
        persons: Sequence[Person],
        shift: np.ndarray,
        doubt: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far each person is from where each of those before should be, and the cost of
        calling them the same.

        Args:
            before, persons: n and m.
            shift: (n, 2) pixels by which those before should have moved.
            doubt: (n,) factor of what they may be off.

        Returns:
            (n, m, 2) pixels; (n, m) from 0.
        """
        (points, score), (new_points, new_score) = _keypoints(before), _keypoints(persons)
        boxes, new_boxes = _boxes(before), _boxes(persons)
        should_be = points + shift.T[..., None]
        offsets = _middles(new_boxes)[:, None] - (_middles(boxes) + shift.T)[..., None]
        total = score @ new_score.T  # weight of the keypoints that both have
        shared = total > LEAST_WEIGHT
        weighted, new_weighted = score * should_be, new_score * new_points
        summed = score @ new_weighted.swapaxes(1, 2) - weighted @ new_score.T
        np.divide(summed, total, offsets, where=shared)
        areas = np.maximum(_areas(boxes)[:, None], _areas(new_boxes)[None])
        height, width = self._size
        areas = BOX_FRACTION * np.minimum(areas, height * width)  # else near is everywhere
        spread = 2 * areas * doubt[:, None] ** 2
        near = np.exp(-np.square(offsets).sum(0) / (REACH**2 * spread))
        x, y = (new[None] - old[:, None] for new, old in zip(new_points, should_be, strict=True))
        similar = np.exp(-(x**2 + y**2) / (spread[..., None] * self._variances))
        oks = near.copy()
        np.divide(np.einsum("nmk,nk,mk->nm", similar, score, new_score), total, oks, where=shared)
        iou = self._mask_iou(before, persons, np.rint(shift).astype(int))
        cost = 1 - np.tensordot(WEIGHTS, (oks, iou, near), 1) / sum(WEIGHTS)
        return np.moveaxis(offsets, 0, -1), cost

    def _mask_iou(
        self, before: Sequence[Person], persons: Sequence[Person], shift: np.ndarray
    ) -> np.ndarray:
        """(n, m) IoU of masks, those before shifted by (n, 2) whole pixels, on a lattice."""
        step = max(1, max(self._size) // LATTICE)
        rows, columns = (-(-side // step) for side in self._size)
        n, count = len(before), len(before) + len(persons)
        if self._lattice.shape[1:] != (rows, columns) or len(self._lattice) < count:
            self._lattice = np.empty((count, rows, columns), np.float32)
        lattice = self._lattice[:count]
        lattice[...] = 0
        moved = [*shift.tolist(), *[(0, 0)] * len(persons)]
        for points, person, (x, y) in zip(lattice, (*before, *persons), moved, strict=True):
            _sample_mask(person, x, y, step, points)
        flat = lattice.reshape(count, -1)
        area = flat.sum(1)
        both = flat[:n] @ flat[n:].T
        return both / np.maximum(area[:n, None] + area[n:] - both, 1.0)

    def _follow(self, track: _Track, person: Person, offset: np.ndarray) -> None:
        """The person that a track was found to be, so far from where it was seen."""
        if self._clock_s > track.seen_s:
            track.moved = track.moved + offset
        step_s = self._clock_s - track.step_from_s
        if step_s >= STEP_S:
            track.steps += 1
            gain = max(1 / track.steps, -math.expm1(-step_s / VELOCITY_S))
            track.velocity = track.velocity + gain * (track.moved / step_s - track.velocity)
            track.step_from_s, track.moved = self._clock_s, np.zeros(2)
        self.regained += track.lost
        track.person, track.seen_s = person, self._clock_s
        track.missing = track.lost = False

    def _miss(self, tracks: Iterable[_Track]) -> None:
        """Note whom the frame does not show."""
        for track in tracks:
            track.missing = True
            if not track.lost and self._clock_s - track.seen_s > LOST_S:
                track.lost = True
                self.lost += 1

    def _new_id(self, used: set[int]) -> int:
        while True:
            self._last_id = self._last_id % LAST_ID + 1
            if self._last_id not in used:
                return self._last_id


def follow(predictor: Predictor, tracker: Tracker, time_s: float, image: np.ndarray) -> Prediction:
    """The people of a video's next image, with their ids.

    Args:
        predictor: what finds them; new people are those it would find.
        tracker: of the video.
        time_s: when the image is shown, seconds.
        image: as the predictor takes it.

    Raises:
        ImageArrayError: not such an array.
    """
    tracker.confidence = predictor.thresholds.confidence
    return tracker(predictor(image, tracking_thresholds(predictor.thresholds)), time_s)


def _keypoints(persons: Sequence[Person]) -> tuple[np.ndarray, np.ndarray]:
    """Places (2, n, K) and scores (n, K), float32; 0 where one is no number."""
    keypoints = np.array([person.keypoints for person in persons], np.float32)
    keypoints[~np.isfinite(keypoints).all(-1)] = 0
    x, y, score = keypoints.transpose(2, 0, 1)
    return np.stack((x, y)), score.copy()


def _boxes(persons: Sequence[Person]) -> np.ndarray:
    """(n, 4) float32."""
    return np.array([person.box for person in persons], np.float32)


def _middles(boxes: np.ndarray) -> np.ndarray:
    """(2, n) of boxes (n, 4)."""
    return (boxes[:, :2] + boxes[:, 2:]).T / 2


def _areas(boxes: np.ndarray) -> np.ndarray:
    """(n,) of boxes (n, 4), at least a pixel."""
    return np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], 1), 1.0)


def _sample_mask(person: Person, x: int, y: int, step: int, points: np.ndarray) -> None:
    """Set the points at every so many pixels of the image that a mask, moved by x, y, covers."""
    left, top = person.mask_origin[0] + x, person.mask_origin[1] + y
    row, column = max(0, -(-top // step)), max(0, -(-left // step))
    place = points[row:, column:]
    part = person.mask[row * step - top :: step, column * step - left :: step]
    part = part[: place.shape[0], : place.shape[1]]
    place[: part.shape[0], : part.shape[1]] = part
