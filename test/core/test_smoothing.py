"""Smoothing: still people stand still, walking ones are hardly behind, jumps are no paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdc_core.bench.smoothing import bench_smoothing
from kdc_core.codec.results import Person, Prediction
from kdc_core.inference.smoothing import LEAST_SCORE, Smoother

SIZE = (480, 640)


def person(x: float, id: int | None = 1, score: float = 0.9) -> Person:
    """All its keypoints at the same place."""
    keypoints = np.tile(np.array([x, 100, score], np.float32), (17, 1))
    box = np.array([x - 40, 40, x + 40, 160], np.float32)
    return Person(0.9, keypoints, box, np.ones((2, 2), bool), (3, 3), np.zeros((0, 4)), id)


def frame(*persons: Person, size: tuple[int, int] = SIZE) -> Prediction:
    return Prediction(size, persons)


def places(prediction: Prediction) -> list[float]:
    """The x of each person's keypoints, which are all the same."""
    for who in prediction.persons:
        assert np.ptp(who.keypoints[:, 0]) == 0
    return [float(who.keypoints[0, 0]) for who in prediction.persons]


@pytest.fixture
def smoother() -> Smoother:
    smoother = Smoother()
    assert places(smoother(frame(person(100)), 0.0)) == [100]
    return smoother


def test_a_small_step_is_taken_in_part_and_a_large_one_nearly_whole(smoother: Smoother) -> None:
    (small,) = places(smoother(frame(person(101)), 0.1))
    (large,) = places(smoother(frame(person(400)), 0.2))
    assert 100.2 < small < 100.8
    assert 390 < large < 400


def test_only_keypoints_change(smoother: Smoother) -> None:
    before = person(110)
    found = smoother(frame(before), 0.1)
    after = found.persons[0]
    assert after == replace(before, keypoints=after.keypoints) and found.size == SIZE
    assert after.keypoints.dtype == np.float32 and before.keypoints[0, 0] == 110
    assert np.array_equal(after.keypoints[:, 2], before.keypoints[:, 2])


def test_each_id_has_a_path_of_its_own(smoother: Smoother) -> None:
    smoother(frame(person(100, 1), person(500, 2)), 0.1)
    first, second, nobody = places(
        smoother(frame(person(499, 2), person(101, 1), person(101, None)), 0.2)
    )
    assert 499 < first < 500 and 100 < second < 101 and nobody == 101


@pytest.mark.parametrize("time_s", [0.0, -0.5, -100.0, 1.1, 100.0])
def test_where_time_stands_still_or_leaps_the_frame_is_taken_as_it_is(
    smoother: Smoother, time_s: float
) -> None:
    assert places(smoother(frame(person(101)), time_s)) == [101]
    (after,) = places(smoother(frame(person(102)), time_s + 0.1))
    assert 101 < after < 102


def test_a_person_out_of_sight_for_less_than_a_second_is_remembered(smoother: Smoother) -> None:
    assert places(smoother(frame(), 0.5)) == []
    (after,) = places(smoother(frame(person(101)), 0.6))
    assert 100 < after < 101


def test_whoever_is_gone_for_longer_is_forgotten(smoother: Smoother) -> None:
    for number in range(2, 50):
        smoother(frame(person(100, number)), 0.6 * number)
    assert set(smoother._states) == {48, 49}


def test_an_image_of_another_size_begins_anew(smoother: Smoother) -> None:
    assert places(smoother(frame(person(101), size=(720, 1280)), 0.1)) == [101]


def test_a_keypoint_that_was_not_seen_begins_anew(smoother: Smoother) -> None:
    smoother(frame(person(50, score=LEAST_SCORE - 0.01)), 0.1)
    assert places(smoother(frame(person(101)), 0.2)) == [101]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_passes_and_is_forgotten(smoother: Smoother, value: float) -> None:
    bad = person(100)
    bad.keypoints[3, :2] = value
    with np.errstate(all="ignore"):
        found = smoother(frame(bad), 0.1).persons[0]
        assert np.isfinite(np.delete(found.keypoints, 3, 0)).all()
        again = smoother(frame(person(101)), 0.2).persons[0]
    assert again.keypoints[3, 0] == 101 and 100 < again.keypoints[0, 0] < 101


@pytest.mark.parametrize(("rate", "lag_ms", "jitter"), [(10, 25, 0.6), (30, 20, 0.45)])
def test_lag_and_jitter_are_small(rate: float, lag_ms: float, jitter: float) -> None:
    figures = bench_smoothing(rate)
    assert 0 < figures["lag_ms"] < lag_ms
    assert 0.1 < figures["jitter"] < jitter
