"""Decode undoes encode, and each of its steps does what it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.codec.decode import as_logits, decode
from kdc_core.codec.encode import encode
from kdc_core.codec.fields import Fields
from kdc_core.codec.results import Prediction
from kdc_core.codec.sample import Sample

from .conftest import (
    SIZE,
    assembled,
    assert_found,
    codec,
    make_people,
    make_person,
    perfect_fields,
)


def predict(sample: Sample, confidence: float = 0.02, **settings: Any) -> Prediction:
    people = decode([perfect_fields(sample)], codec(**settings))
    return assembled(people, sample.image.shape[:2], confidence)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.floats(0, 12), st.floats(0, 60), st.floats(32, 48)),
        min_size=1,
        max_size=6,
        unique_by=lambda place: place[0],
    )
)
@settings(max_examples=25, deadline=None)
def test_people_come_back_from_their_own_targets(places: list[tuple[float, ...]]) -> None:
    people = [make_person(64 * column + dx, 10 + y, scale) for column, dx, y, scale in places]
    prediction = predict(make_people(people, SIZE))
    assert_found(people, prediction)
    assert all((p.keypoints[:, 2] > 0.7).all() for p in prediction.persons)


def test_masks_come_back_from_their_own_targets() -> None:
    sample = make_people([make_person(40, 20, 90), make_person(220, 30, 70)], SIZE)
    prediction = predict(sample)
    for mask in sample.masks:
        overlaps = [p.full_mask(SIZE) for p in prediction.persons]
        best = max((m & mask).sum() / (m | mask).sum() for m in overlaps)
        assert best > 0.97


def test_a_finer_person_map_gives_finer_masks() -> None:
    sample = make_people([make_person(40, 20, 40), make_person(220, 30, 30)], SIZE)
    wrong = {}
    for fineness in (1, 2):
        own = dataclasses.replace(codec(), mask_fineness=fineness)
        targets, *_ = encode(sample, own)
        assert targets.mask_fineness == fineness
        assert float(targets.mask.sum()) / fineness**2 == pytest.approx(
            sample.masks.sum() / 16, rel=0.02
        )
        labels = assembled(decode([as_logits(targets)], own), SIZE).labels
        wrong[fineness] = int(((labels > 0) != sample.masks.any(0)).sum())
    assert wrong[2] < 0.9 * wrong[1]


def test_a_person_of_whom_one_keypoint_is_seen() -> None:
    person = np.zeros((17, 3), np.float32)
    person[0] = 100, 60, 2
    prediction = predict(make_people([person], SIZE, [[80.0, 40.0, 130.0, 120.0]]))
    assert len(prediction) == 1
    assert prediction.persons[0].keypoints[0] == pytest.approx([100, 60, 1], abs=0.25)
    assert prediction.persons[0].area == pytest.approx(51 * 81, rel=0.05)


def test_a_person_without_keypoints_is_found_by_the_body_center() -> None:
    nothing = np.zeros((17, 3), np.float32)
    prediction = predict(make_people([nothing], SIZE, [[80.0, 40.0, 130.0, 120.0]]))
    assert len(prediction) == 1
    assert prediction.persons[0].area == pytest.approx(51 * 81, rel=0.05)


def test_nobody_gives_nobody() -> None:
    prediction = predict(make_people([], SIZE), confidence=0.0)
    assert len(prediction) == 0 and not prediction.labels.any()


def test_of_forty_people_the_best_thirty_two() -> None:
    people = [make_person(4 + 38 * (i % 10), 6 + 62 * (i // 10), 26) for i in range(40)]
    for index, person in enumerate(people):
        person[index % 17 : index % 17 + index // 8] = 0  # some have fewer keypoints
    sample = make_people(people, SIZE)
    found = decode([perfect_fields(sample, 6.0)], codec(peaks=48, seeds=128))
    assert (found.score > 0).sum() == 32
    assert (found.score[0, :-1] >= found.score[0, 1:]).all()
    everybody = decode([perfect_fields(sample, 6.0)], codec(peaks=48, seeds=128, people=64))
    assert found.score[0] == pytest.approx(everybody.score[0, :32])


def test_absent_people_are_all_zero_and_own_nothing() -> None:
    people = decode([perfect_fields(make_people([make_person(40, 20, 90)], SIZE))], codec())
    assert (people.score[0, 1:] == 0).all()
    assert not people.keypoints[0, 1:].any() and not people.centroids[0, 1:].any()
    assert set(people.owner.unique().tolist()) <= {0, 1}


def test_a_batch_of_two_equals_two_batches_of_one() -> None:
    first = perfect_fields(make_people([make_person(40, 20, 90)], SIZE))
    second = perfect_fields(make_people([make_person(9, 9, 60), make_person(200, 5, 80)], SIZE))
    both = Fields(
        *(
            torch.cat((a, b))
            for a, b in zip(vars(first).values(), vars(second).values(), strict=True)
        )
    )
    together = decode([both], codec())
    alone = [decode([fields], codec()) for fields in (first, second)]
    for name in ("score", "keypoints", "centroids", "owner", "mask_probability"):
        for index in range(2):
            assert torch.allclose(
                getattr(together, name)[index].float(),
                getattr(alone[index], name)[0].float(),
                atol=1e-4,
            ), name


def test_two_people_with_crossing_arms_keep_their_hands() -> None:
    left, right = make_person(60, 20, 90), make_person(170, 20, 90)
    # The left person's left hand lies on the other's side, and the other way round.
    left[9, :2], right[10, :2] = (185, 100), (145, 115)
    left[7, :2], right[8, :2] = (160, 90), (165, 100)
    assert_found([left, right], predict(make_people([left, right], SIZE)))


def test_torch_decodes_alike_on_one_and_two_threads() -> None:
    fields = perfect_fields(make_people([make_person(40, 20, 90)], SIZE))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = decode([fields], codec())
        torch.set_num_threads(2)
        two = decode([fields], codec())
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(one.keypoints, two.keypoints, atol=1e-4)


def test_a_wrist_that_two_people_share_is_given_to_one() -> None:
    left, right = make_person(60, 20, 90), make_person(170, 20, 90)
    left[9, :2] = right[9, :2]
    people = decode([perfect_fields(make_people([left, right], SIZE))], codec())
    assert (people.score[0] > 0).sum() == 2
    assert (people.keypoints[0, :2, 9, 2] > 0).sum() == 1


def test_scores_of_poses_are_raised_to_the_power() -> None:
    fields = perfect_fields(make_people([make_person(50, 10, 100)], SIZE))
    fields.heat -= 10  # less sure of every keypoint
    plain, rooted = (decode([fields], codec(score_power=power)).score for power in (1.0, 0.5))
    assert 0.1 < plain[0, 0] < 0.95
    assert torch.allclose(rooted, plain.sqrt())


def test_poses_below_the_least_score_are_left_out() -> None:
    fields = perfect_fields(make_people([make_person(50, 10, 100)], SIZE))
    score = float(decode([fields], codec()).score.max())
    for least, found in ((score - 1e-3, 1), (score + 1e-6, 0)):
        people = decode([fields], codec(min_pose_score=least))
        assert int((people.score > 0).sum()) == found
        assert bool(people.owner.any()) == bool(found)
