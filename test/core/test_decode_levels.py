"""The levels of a pyramid: what each sees is one image's people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kdc_core.codec.decode import decode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Level
from kdc_core.codec.grouping import average_levels, level_weights
from kdc_core.codec.peaks import Peaks
from kdc_core.config import DecodeConfig
from kdc_core.inference.program import reduce

from .conftest import (
    SIZE,
    assembled,
    assert_found,
    codec,
    make_people,
    make_person,
    perfect_fields,
    poses_of,
)


def at_half(person: np.ndarray) -> Fields:
    """What the level of half the size sees of a person of the image."""
    level = Level.of(Grid(4, 1.5), 2)
    half = person.copy()
    half[:, :2] = (person[:, :2] - level.to_image(0)) / 2
    return perfect_fields(make_people([half], (SIZE[0] // 2, SIZE[1] // 2)))


def test_people_of_both_levels_of_a_pyramid_are_pooled() -> None:
    """Each person is seen by one level only; both come out, in pixels of the image."""
    small, large = make_person(20, 20, 40), make_person(150, 10, 110)
    first = perfect_fields(make_people([small], SIZE))
    people = decode([first, at_half(large)], codec(pyramid=[1, 2]))
    assert_found([small, large], assembled(people, SIZE))


def test_one_person_seen_at_both_levels_is_one_person() -> None:
    person = make_person(150, 10, 110)
    sample = make_people([person], SIZE)
    people = decode([perfect_fields(sample), at_half(person)], codec(pyramid=[1, 2]))
    assert (people.score > 0.02).sum() == 1
    assert (people.mask_probability[0] > 0.5).sum() == pytest.approx(
        sample.masks.sum() / 4, rel=0.1
    )


def test_a_level_speaks_for_the_people_it_sees_best() -> None:
    levels = [Level.of(Grid(4, 1.5), 1), Level.of(Grid(4, 1.5), 2)]
    small, middle, large = (make_person(0, 0, s) for s in (15, 133, 260))
    config = DecodeConfig(pyramid=[1, 2], level_px=110.0)
    weight = level_weights(poses_of(small, middle, large), levels, config)[0]
    assert torch.allclose(weight.sum(-1), torch.ones(3))
    assert weight[0, 0] > 0.99 and weight[2, 1] > 0.9
    assert 0.2 < weight[1, 0] < 0.8, "between the two"
    assert level_weights(poses_of(small), levels[:1], config).tolist() == [[[1.0]]]


def test_masks_come_from_the_level_that_sees_the_person() -> None:
    """The coarse level sees no pixel of anybody: the small person keeps its mask."""
    small = make_person(20, 20, 40)
    sample = make_people([small], SIZE)
    first = perfect_fields(sample)
    second = at_half(small)
    second.mask = torch.full_like(second.mask, -12.0)
    whole = sample.masks.sum() / 4
    by_fine = decode([first, second], codec(pyramid=[1, 2], level_px=110.0))
    assert (by_fine.mask_probability[0] > 0.5).sum() == pytest.approx(whole, rel=0.1)
    by_coarse = decode([first, second], codec(pyramid=[1, 2], level_px=5.0))
    assert (by_coarse.mask_probability[0] > 0.5).sum() < 0.1 * whole


def test_levels_of_broken_factors_lie_upon_each_other() -> None:
    grid = Grid(4, 1.5)
    level = Level.fractional(grid, 1.5)
    scaled = make_person(45, 25, 50)
    person = scaled.copy()
    person[:, :2] = level.to_image(scaled[:, :2])
    # Boxes whose pixels' edges are the same in both images.
    sample = make_people([person], SIZE, [[60, 30, 152, 227]])
    size = (int(np.ceil(SIZE[0] / 1.5)), int(np.ceil(SIZE[1] / 1.5)))
    second = perfect_fields(make_people([scaled], size, [[40, 20, 101, 151]]))
    levels = [Level.fractional(grid, 1.0), level]
    # The coarser level decides alone, so its mask must lie where the finer one's would.
    people = decode([perfect_fields(sample), second], codec(level_px=1.0), levels)
    rows, columns = np.nonzero(people.mask_probability[0].numpy() > 0.5)
    fine = Grid(2, 0.5)
    truth = np.argwhere(sample.masks[0])
    assert fine.to_pixel(np.array([rows.mean(), columns.mean()])) == pytest.approx(
        truth.mean(0), abs=0.5
    )
    assert len(rows) == pytest.approx(len(truth) / 4, rel=0.1)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_a_reduced_image_lies_where_its_level_says(factor: int, offset: float) -> None:
    """A spot of one reduced pixel, in a image whose sides the factor need not divide."""
    level = Level.of(Grid(4, offset), factor)
    spot = torch.zeros(1, 1, 128, 160)
    top, left = 8 * factor + int(level.shift), 11 * factor + int(level.shift)
    spot[..., top : top + factor, left : left + factor] = 255
    reduced = reduce(spot, level, 32)
    assert all(side % 32 == 0 for side in reduced.shape[2:])
    assert reduced[0, 0].nonzero().tolist() == [[8, 11]] and reduced.max() == 255
    middle = (factor - 1) / 2
    assert level.to_image(np.array([11, 8])) == pytest.approx([left + middle, top + middle])


def peaks_at(*keypoints: np.ndarray, score: float = 0.8) -> Peaks:
    """One peak of every type for each person."""
    position = poses_of(*keypoints).position.transpose(2, 3)
    return Peaks(position, torch.full(position[:, 0].shape, score))


def test_each_keypoint_comes_from_the_levels_that_see_a_person_of_that_size() -> None:
    person = make_person(20, 20, 60)
    fine, coarse = person.copy(), person.copy()
    fine[:, 0] += 2
    coarse[:, 0] -= 4
    told = [peaks_at(fine), peaks_at(coarse)]
    for weight in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]):
        mean = average_levels(poses_of(person), told, torch.tensor([[weight]]), DecodeConfig())
        moved = mean.position[0, 0, 0, :-1].numpy() - person[:, 0]
        # The keypoint's own place still counts a little.
        np.testing.assert_allclose(moved, 2 * weight[0] - 4 * weight[1], atol=0.4)


def test_far_peaks_do_not_move_keypoints_and_lower_their_score() -> None:
    person = make_person(20, 20, 60)
    far = person + [200.0, 0, 0]
    weight = torch.tensor([[[0.5, 0.5]]])
    mean = average_levels(poses_of(person), [peaks_at(far), peaks_at(far)], weight, DecodeConfig())
    np.testing.assert_allclose(mean.position[0, :, 0, :-1].T.numpy(), person[:, :2], atol=1e-3)
    assert (mean.keypoint_score < 0.51).all() and mean.score[0, 0] < 0.51


def test_keypoints_of_another_person_and_absent_persons_stay_without_score() -> None:
    person = make_person(20, 20, 60)
    poses = poses_of(person, person)
    poses.score[0, 1] = 0
    poses.keypoint_score[0, 0, :5] = 0
    weight = torch.full((1, 2, 2), 0.5)
    mean = average_levels(poses, [peaks_at(person), peaks_at(person)], weight, DecodeConfig())
    assert (mean.keypoint_score[0, 0, :5] == 0).all()
    assert (mean.keypoint_score[0, 0, 5:] > 0.8).all()
    assert mean.score[0, 1] == 0 and 0.5 < mean.score[0, 0] < 1


def test_two_levels_place_keypoints_better_than_the_one_that_found_the_person() -> None:
    """Peaks a cell off at the coarse level are mended by those of the fine one."""
    person = make_person(150, 10, 110)
    fine = perfect_fields(make_people([person], SIZE))
    shifted = person.copy()
    shifted[:, 0] += 6
    fine.heat[:, -1] = -10  # the fine level sees keypoints, but not that there is a person
    errors = {}
    for name, levels in (("both", [fine, at_half(shifted)]), ("coarse", [at_half(shifted)] * 2)):
        settings: dict[str, Any] = {"pyramid": [1, 2] if name == "both" else [2, 2]}
        settings |= {"keypoint_seed_weight": 0.0, "level_px": 150.0}
        prediction = assembled(decode(levels, codec(**settings)), SIZE)
        errors[name] = np.abs(prediction.persons[0].keypoints[:, 0] - person[:, 0]).mean()
    assert errors["coarse"] > 5 and errors["both"] < 0.6 * errors["coarse"]
