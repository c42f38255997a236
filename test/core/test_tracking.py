"""Tracking: people keep their ids, whatever happens to them, to the clock or to the camera."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdc_core.bench import ids as ids_bench
from kdc_core.bench.clips import IGNORED, Clip, make_clips
from kdc_core.bench.frames import SAMPLES
from kdc_core.bench.id_score import IdScore, score_ids
from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17, CROWDPOSE14
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.errors import KdcError
from kdc_core.inference import tracking
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.tracking import (
    LAST_ID,
    LIMIT,
    LOST_S,
    Tracker,
    follow,
    tracking_thresholds,
)

from .commands import kdc

SIZE = (480, 640)
TALL, WIDE = 120, 40
RATE = 10.0


def person(x: float, y: float = 240, score: float = 0.9, seed: int = 0) -> Person:
    """Somebody whose middle is there, cut by the sides of the image."""
    rng = np.random.default_rng(seed)
    keypoints = np.ones((17, 3), np.float32)
    keypoints[:, :2] = (x, y) + rng.uniform(-0.5, 0.5, (17, 2)) * (WIDE, TALL)
    x0, x1 = (int(np.clip(x + side, 0, SIZE[1])) for side in (-WIDE // 2, WIDE // 2))
    y0, y1 = (int(np.clip(y + side, 0, SIZE[0])) for side in (-TALL // 2, TALL // 2))
    box = np.array([x0, y0, x1, y1], np.float32) - 0.5
    mask = np.ones((y1 - y0, x1 - x0), bool)
    return Person(score, keypoints, box, mask, (x0, y0), np.zeros((0, 4)))


def frame(*persons: Person, size: tuple[int, int] = SIZE) -> Prediction:
    return Prediction(size, persons)


def ids(prediction: Prediction) -> list[int | None]:
    return [person.id for person in prediction.persons]


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(COCO17, 1.0)


# Who keeps an id


def test_ids_count_from_1_and_order_and_people_stay(tracker: Tracker) -> None:
    people = [person(100), person(300), person(500)]
    found = tracker(frame(*people), 0.0)
    assert ids(found) == [1, 2, 3] and found.size == SIZE
    for before, after in zip(people, found.persons, strict=True):
        assert after == replace(before, id=after.id)
    again = tracker(frame(people[2], people[0], people[1]), 0.1)
    assert ids(again) == [3, 1, 2]


@pytest.mark.parametrize("speed", [0, 30, 150, -400])
def test_who_moves_keeps_its_id(tracker: Tracker, speed: float) -> None:
    """In pixels a second; a person is 120 high."""
    for n in range(12):
        now = n / RATE
        found = tracker(frame(person(500 + speed * now), person(100)), now)
        assert ids(found) == [1, 2]


def test_people_who_cross_keep_their_ids(tracker: Tracker) -> None:
    """One passes before the other, who is not found meanwhile."""
    for n in range(40):
        left, right = person(100 + 10 * n, seed=1), person(540 - 10 * n, seed=2)
        hidden = abs(n - 22) < 4
        found = tracker(frame(left) if hidden else frame(right, left), n / RATE)
        assert ids(found) == ([2] if hidden else [1, 2])


@pytest.mark.parametrize("speed", [0, 80])
def test_an_id_outlasts_a_second_out_of_sight(tracker: Tracker, speed: float) -> None:
    """And half a second in which somebody half hidden is not found."""
    for n in range(40):
        hidden = 12 <= n < 12 + 10 + 4
        found = tracker(frame() if hidden else frame(person(100 + speed * n / RATE)), n / RATE)
        assert ids(found) == ([] if hidden else [1])
    assert (tracker.lost, tracker.regained) == (1, 1)


def test_who_was_half_seen_keeps_its_id(tracker: Tracker) -> None:
    """An occluder leaves the left half of the mask and of the keypoints."""
    whole = person(300)
    keypoints = whole.keypoints.copy()
    keypoints[keypoints[:, 0] > 300, 2] = 0
    half = replace(
        whole,
        keypoints=keypoints,
        mask=whole.mask[:, : WIDE // 2],
        box=whole.box - np.array([0, 0, WIDE // 2, 0], np.float32),
    )
    for n, who in enumerate([whole, whole, half, half, whole]):
        assert ids(tracker(frame(who), n / RATE)) == [1]


def test_who_was_away_for_longer_is_new(tracker: Tracker) -> None:
    tracker(frame(person(300)), 0.0)
    tracker(frame(), 0.1)
    for n in range(2, 20):
        assert ids(tracker(frame(), n / RATE)) == []
    assert ids(tracker(frame(person(300)), 2.0)) == [2]
    assert (tracker.lost, tracker.regained) == (1, 0)


def test_of_many_who_are_missing_those_seen_last_are_waited_for(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "MOST_MISSING", 1)
    tracker(frame(person(100), person(500)), 0.0)
    tracker(frame(person(100)), 0.1)
    tracker(frame(), 0.2)
    assert ids(tracker(frame(person(100), person(500)), 0.3)) == [1, 3]


def test_the_timeout_may_be_changed(tracker: Tracker) -> None:
    for timeout_s, kept in ((5.0, True), (0.0, False)):
        tracker.reset()
        tracker.timeout_s = timeout_s
        tracker(frame(person(300)), 0.0)
        tracker(frame(), LOST_S + 0.1)
        assert ids(tracker(frame(person(300)), LOST_S + 0.2)) == [1 if kept else 2]


def test_a_missing_frame_is_no_loss(tracker: Tracker) -> None:
    for n in range(20):
        tracker(frame() if n % 4 == 3 else frame(person(300)), n / RATE)
    assert (tracker.lost, tracker.regained) == (0, 0)


def test_two_far_apart_are_two(tracker: Tracker) -> None:
    tracker(frame(person(100)), 0.0)
    assert ids(tracker(frame(person(500)), 0.1)) == [2]


def test_who_is_faint_is_followed_but_not_begun_with(tracker: Tracker) -> None:
    tracker.confidence = 0.5
    assert ids(tracker(frame(person(300, score=0.4)), 0.0)) == []
    assert ids(tracker(frame(person(300, score=0.5)), 0.1)) == [1]
    found = tracker(frame(person(300, score=0.4), person(100, score=0.4)), 0.2)
    assert ids(found) == [1] and found.persons[0].keypoints[0, 0] > 200
    assert tracking_thresholds(Thresholds(0.5, 0.3, 0.7, 4)) == Thresholds(0.45, 0.3, 0.7, 4)


def cost_of(tracker: Tracker, before: Person, after: Person, shift: float) -> float:
    """Of calling them the same, of whom the first should have moved to the right."""
    tracker(frame(), 0.0)
    _, cost = tracker._compare(
        [before], [after], np.array([[shift, 0]], np.float32), np.ones(1, np.float32)
    )
    return float(cost[0, 0])


def test_masks_are_compared_where_the_person_should_be(tracker: Tracker) -> None:
    there, elsewhere = (cost_of(tracker, person(200), person(300), shift) for shift in (100, 0))
    assert there == pytest.approx(0, abs=1e-3) and elsewhere > LIMIT


def test_keypoints_that_are_not_seen_tell_nobody_apart(tracker: Tracker) -> None:
    before, after = person(200), person(200)
    after.keypoints[::2] = 0
    assert cost_of(tracker, before, after, 0) == pytest.approx(0, abs=1e-3)
    after.keypoints[::2, 2] = 1
    assert cost_of(tracker, before, after, 0) > 0.1


# Ids as such


def test_ids_begin_again_after_the_last_past_those_in_use(tracker: Tracker) -> None:
    tracker(frame(person(100)), 0.0)
    tracker._last_id = LAST_ID - 1
    found = tracker(frame(person(100), person(300), person(500)), 0.1)
    assert ids(found) == [1, LAST_ID, 2]


def test_reset_begins_with_1_and_keeps_the_counts(tracker: Tracker) -> None:
    test_an_id_outlasts_a_second_out_of_sight(tracker, 0)
    tracker.reset()
    assert ids(tracker(frame(person(500), person(100)), 0.0)) == [1, 2]
    assert (tracker.lost, tracker.regained) == (1, 1)


# Clock and camera


def test_another_size_makes_everybody_new(tracker: Tracker) -> None:
    tracker(frame(person(100)), 0.0)
    assert ids(tracker(frame(person(100), size=(720, 1280)), 0.1)) == [2]


@pytest.mark.parametrize(("back_s", "expected"), [(0.0, 1), (0.9, 1), (1.1, 2), (1e9, 2)])
def test_a_time_that_goes_back(tracker: Tracker, back_s: float, expected: int) -> None:
    """By more than a second, as when a bag begins anew, makes everybody new."""
    for n in range(3):
        tracker(frame(person(100)), 50 + n / RATE)
    for n in range(3):
        assert ids(tracker(frame(person(100)), 50.2 - back_s + n / RATE)) == [expected]


@pytest.mark.parametrize("time_s", [0.0, 1e9])
def test_a_time_that_stands_still_follows_all_the_same(tracker: Tracker, time_s: float) -> None:
    for n in range(10):
        assert ids(tracker(frame(person(100 + n), person(300)), time_s)) == [1, 2]


@pytest.mark.parametrize("gap_s", [1e-6, 1e-3])
@pytest.mark.parametrize("burst", [2, 6])
def test_who_moves_keeps_its_id_where_stamps_come_in_bursts(
    tracker: Tracker, gap_s: float, burst: int
) -> None:
    """As of a camera that stamps images as they arrive over a busy link."""
    for n in range(30):
        now = 50 + (n - n % burst) / 30 + n % burst * gap_s
        assert ids(tracker(frame(person(100 + 2 * n, seed=n)), now)) == [1]


def test_a_leap_of_time_makes_everybody_new(tracker: Tracker) -> None:
    tracker(frame(person(100)), 0.0)
    assert ids(tracker(frame(person(100)), 3600.0)) == [2]


def test_slow_frames_follow_all_the_same(tracker: Tracker) -> None:
    """Of two a second, and of one in two seconds, whatever the timeout."""
    tracker.timeout_s = 0.0
    for now in (0.0, 0.5, 1.0, 3.0, 5.0):
        assert ids(tracker(frame(person(100 + now)), now)) == [1]


# What cannot be

POINTS = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1e30, -1e30, 250.0])


@settings(max_examples=50, deadline=None)
@given(values=st.lists(POINTS, min_size=4, max_size=4), seed=st.integers(0, 99))
@example(values=[-1e30, -1e30, 1e30, 1e30], seed=0)
def test_whatever_is_no_number_has_an_id_and_harms_nobody(values: list[float], seed: int) -> None:
    tracker, rng = Tracker(COCO17, 1.0), np.random.default_rng(seed)
    bad = person(300)
    bad.keypoints[rng.random((17, 3)) < 0.5] = values[0]
    bad = replace(bad, box=np.array(values, np.float32))
    with np.errstate(all="ignore"):
        for n in range(4):
            found = tracker(frame(person(100 + n), bad), n / RATE)
            assert ids(found)[0] == 1 and len(set(ids(found))) == 2


def test_people_without_mask_or_keypoints_are_followed(tracker: Tracker) -> None:
    nothing = np.zeros((0, 0), bool)
    for n in range(5):
        unseen, flat = person(100 + 5 * n), person(400 + 5 * n)
        unseen.keypoints[:, 2] = 0
        flat = replace(flat, mask=nothing, mask_origin=(0, 0))
        assert ids(tracker(frame(unseen, flat), n / RATE)) == [1, 2]


def test_another_skeleton_is_followed() -> None:
    tracker = Tracker(CROWDPOSE14, 1.0)
    for n in range(3):
        who = person(100 + n)
        who = replace(who, keypoints=who.keypoints[:14])
        assert ids(tracker(frame(who), n / RATE)) == [1]


# Any people at all

PEOPLE = st.lists(
    st.tuples(st.floats(-40, 700), st.floats(-40, 520), st.floats(0.1, 1), st.integers(0, 9)),
    max_size=8,
)
CLIPS = st.lists(st.tuples(PEOPLE, st.floats(-2, 3)), max_size=8)


def predictions(
    clip: list[tuple[list[tuple[float, float, float, int]], float]],
) -> Iterator[tuple[Prediction, float]]:
    """Frames and times; nobody is as far from one as from another."""
    now, rng = 10.0, np.random.default_rng(0)
    for people, step in clip:
        now += step
        yield frame(*(person(x + rng.uniform(-5, 5), y, s, n) for x, y, s, n in people)), now


@settings(max_examples=60, deadline=None)
@given(clip=CLIPS)
def test_ids_are_one_each_and_those_given_before_never_come_again(clip: list) -> None:
    tracker = Tracker(COCO17, 1.0)
    latest, newest = {}, 0
    for number, (prediction, now) in enumerate(predictions(clip)):
        found = ids(tracker(prediction, now))
        assert len(set(found)) == len(found) == len(prediction)
        for id_ in found:
            assert isinstance(id_, int)
            if id_ not in latest:
                assert id_ == newest + 1
                newest = id_
            latest[id_] = number
    assert tracker.regained <= tracker.lost <= newest + tracker.regained


@settings(max_examples=60, deadline=None)
@given(clip=CLIPS, seed=st.integers(0, 99))
def test_the_order_of_people_changes_no_id(clip: list, seed: int) -> None:
    """Of those followed; new ones are counted in the order in which they come."""
    rng, one, other = np.random.default_rng(seed), Tracker(COCO17, 1.0), Tracker(COCO17, 1.0)
    names: dict[int | None, int | None] = {}
    for prediction, now in predictions(clip):
        order = rng.permutation(len(prediction))
        found = ids(one(prediction, now))
        shuffled = replace(prediction, persons=tuple(prediction.persons[i] for i in order))
        for index, id_ in zip(order, ids(other(shuffled, now)), strict=True):
            assert names.setdefault(found[index], id_) == id_
    assert len(set(names.values())) == len(names)


# Scores


def labelled(*places: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 with person `label` around x, of each (label, x)."""
    labels = np.zeros(SIZE, np.uint8)
    for label, x in places:
        who = person(x)
        labels[who.mask_window] = label
    return labels


def named(*places: tuple[int, int]) -> Prediction:
    return frame(*(replace(person(x), id=id_) for id_, x in places))


def test_ids_that_change_are_switches_also_after_a_gap() -> None:
    truth = labelled((1, 100), (2, 300))
    clip = [
        (named((1, 100), (2, 300)), truth),
        (named((2, 100), (1, 300)), truth),  # both swapped
        (named((2, 100)), truth),
        (named((2, 100), (3, 300)), truth),  # another one after a gap
    ]
    score = score_ids(clip)
    assert score == IdScore(frames=4, people=8, predicted=7, found=7, switches=3, kept=4)
    assert score.figures() == {
        "switches_per_100_frames": 75.0,
        "idf1": round(8 / 15, 4),
        "idf1_best": round(14 / 15, 4),
        "frames": 4,
        "people": 8,
        "found": 7,
    }
    assert (score + score).figures()["switches_per_100_frames"] == 75.0


def test_who_is_beside_the_truth_is_found_by_nobody_and_crowds_count_for_nothing() -> None:
    truth = labelled((1, 100), (IGNORED, 300))
    score = score_ids([(named((1, 130), (2, 305)), truth)])
    assert (score.people, score.predicted, score.found) == (1, 1, 0)
    assert score_ids([]).figures()["idf1"] == 0


def test_idf1_takes_the_best_assignment_of_ids_to_people() -> None:
    """Not the first: an id that is one person's for two frames and another's for three."""
    truth = labelled((1, 100), (2, 300))
    clip = [(named((1, 100)), truth)] * 2 + [(named((1, 300), (2, 100)), truth)] * 3
    assert score_ids(clip).kept == 6


# Clips


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return make_clips(read_annotations(SAMPLES / "annotations.json"), Images(SAMPLES), 2, 0)


def test_clips_are_the_same_again_and_of_every_kind(clips: list[Clip]) -> None:
    again = make_clips(read_annotations(SAMPLES / "annotations.json"), Images(SAMPLES), 2, 0)
    kinds = ["pan", "sweep", "zoom", "crossing", "occlusion"]
    assert [clip.kind for clip in clips] == kinds * 2
    for one, other in zip(clips, again, strict=True):
        first, second = one.make(7), other.make(7)
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.labels, second.labels)
        last = one.make(one.length - 1)
        assert last.image.shape[:2] == first.image.shape[:2] == last.labels.shape


def test_a_pan_moves_people_by_a_pixel(clips: list[Clip]) -> None:
    for number in (0, 5):
        before, after = (clips[0].make(n) for n in (number, number + 1))
        assert np.array_equal(before.image[:, 1:], after.image[:, :-1])
        assert np.array_equal(before.labels[:, 1:], after.labels[:, :-1])
        assert before.labels.any()


def test_somebody_is_hidden_for_a_second_and_is_there_before_and_after(clips: list[Clip]) -> None:
    for clip in clips:
        if clip.kind == "occlusion":
            there = np.array([(frame.labels == 1).any() for frame in clip])
            first, last = np.flatnonzero(there)[[0, -1]]
            assert 9 <= (~there[first:last]).sum() <= 12


def test_people_cross(clips: list[Clip]) -> None:
    for clip in clips:
        if clip.kind == "crossing":
            middles = [
                [np.nonzero(frame.labels == who)[1].mean() for who in (1, 2)]
                for frame in (clip.make(8), clip.make(32))
            ]
            assert middles[0][0] < middles[0][1] and middles[1][0] > middles[1][1]


def test_photographs_of_too_few_people_are_refused() -> None:
    annotations = read_annotations(SAMPLES / "annotations.json").of([885])
    with pytest.raises(KdcError, match="people to cut out, expected 3 or more"):
        make_clips(annotations, Images(SAMPLES), 2, 0)


# With the model


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("kdc_light")


def test_panning_a_still_image_changes_no_id(predictor: Predictor) -> None:
    image = Images(SAMPLES).read("000000448076.jpg")
    tracker = Tracker(predictor.skeleton, 1.0)
    places: dict[int | None, np.ndarray] = {}
    for n in range(6):
        found = follow(predictor, tracker, n / RATE, image[:, n : n + 600])
        assert len(found) >= 4
        for who in found.persons:
            place = who.keypoints[:, 0] + n
            assert np.abs(np.median(places.setdefault(who.id, place) - place)) < 10


def test_following_leaves_the_thresholds(predictor: Predictor) -> None:
    """And finds nobody new whom the predictor would not."""
    before, image = predictor.thresholds, Images(SAMPLES).read("000000448076.jpg")
    found = follow(predictor, Tracker(predictor.skeleton, 1.0), 0.0, image)
    assert predictor.thresholds == before
    assert [p.score for p in found.persons] == [p.score for p in predictor(image).persons]


@pytest.mark.all
@pytest.mark.slow
def test_the_bench_counts_switches_and_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one photograph, and of the first frames of the package's video."""
    monkeypatch.setattr(ids_bench, "PHOTOGRAPHS", 1)
    monkeypatch.setattr(ids_bench, "REAL", tmp_path / "none")
    monkeypatch.setattr(ids_bench, "REAL_S", 0.35)
    done = kdc("bench", "ids", "--json", tmp_path / "f.json")
    assert done.returncode == 0, done.stderr
    assert f"no videos in '{tmp_path / 'none'}'" in done.stdout
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["switches_per_100_frames"] <= 2
    assert 0.5 < figures["idf1"] <= figures["idf1_best"] < 1
    assert set(figures["kinds"]) == {"pan", "sweep", "zoom", "crossing", "occlusion"}
    parts = figures["kinds"].values()
    for name in ("frames", "people", "found"):
        assert figures[name] == sum(part[name] for part in parts) > 100
    assert set(figures["videos"]) == {"people.mp4"}
    assert 1 <= figures["videos"]["people.mp4"]["ids"] <= 10
    assert 0 < figures["smoothing_lag_ms_30hz"] < figures["smoothing_lag_ms_10hz"]


@pytest.mark.timed
def test_32_people_take_less_time_than_a_frame_of_500_hz() -> None:
    tracker = Tracker(COCO17, 1.0)
    took = []
    for n in range(40):
        people = [person(20 + 18.75 * k + n, 100 + 50 * (k % 6), seed=k) for k in range(32)]
        before = time.thread_time()
        found = tracker(frame(*people), n / RATE)
        took.append(time.thread_time() - before)
        assert ids(found) == list(range(1, 33))
    assert np.median(took) < 0.002
