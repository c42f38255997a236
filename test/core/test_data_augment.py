"""What augmentation keeps together: pasting people in, and warping."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import TrainConfig
from kdc_core.data.augment import View, draw_color, draw_view, look, moved_boxes, warp
from kdc_core.data.paste import LEAST_VISIBLE, can_be_pasted, draw_paste, put

from .conftest import make_people, make_person

SIZE = (240, 320)


def below() -> Sample:
    """Two persons, the smaller one in the middle of the larger; half the image is crowd."""
    sample = make_people([make_person(110, 20, 100), make_person(150, 110, 16)], SIZE)
    sample.keypoints[0, 9] = 0
    sample.crowd[:, 160:] = True
    return sample


def donor(scale: float = 60) -> Sample:
    """A person whose mask is its box; red is lit around its nose, green is everywhere."""
    sample = make_people([make_person(100, 50, scale)], SIZE)
    x, y = np.round(sample.keypoints[0, 0, :2]).astype(int)
    sample.keypoints[0, 0] = x, y, 2
    sample.keypoints[0, 1] = 0
    sample.image[..., 1] = 255
    sample.image[y - 3 : y + 4, x - 3 : x + 4, 0] = 255
    return sample


def paste(sample: Sample, donor: Sample, rng: np.random.Generator) -> Sample:
    """A person of another image over one of this image, as training draws and puts them."""
    masked = np.array([mask.any() for mask in donor.masks], bool)
    good = can_be_pasted(donor.boxes, donor.keypoints, masked)
    drawn = draw_paste(sample.boxes, donor.boxes, good, rng)
    return sample if drawn is None else put(sample, donor, drawn)


def pastes(seeds: Iterator[int] | range = range(300)) -> Iterator[tuple[Sample, Sample]]:
    """Samples and what pasting makes of them."""
    for seed in seeds:
        sample = below()
        after = paste(sample, donor(), np.random.default_rng(seed))
        if after is not sample:
            yield sample, after


@given(st.integers(0, 2**32 - 1), st.sampled_from([40, 60, 90]))
@settings(max_examples=60, deadline=None)
def test_pasting_keeps_picture_mask_and_keypoints_together(seed: int, scale: float) -> None:
    sample, given_ = below(), donor(scale)
    after = paste(sample, given_, np.random.default_rng(seed))
    if after is sample:
        return
    mask, keypoints = after.masks[-1], after.keypoints[-1]
    assert (mask == (after.image[..., 1] >= 128)).all(), "the pixels of the mask are the person's"
    assert keypoints[1, 2] == 0, "what was not labelled still is not"
    height, width = SIZE
    for (x, y, v), (_, _, before) in zip(keypoints, given_.keypoints[0], strict=True):
        if v:
            assert v == before
            assert mask[min(round(y), height - 1), min(round(x), width - 1)]
    x, y, v = keypoints[0]
    if v and 12 < x < width - 12 and 12 < y < height - 12:
        light = after.image[..., 0].astype(float)
        to = np.array(
            [(light.sum(0) * np.arange(width)).sum(), (light.sum(1) * np.arange(height)).sum()]
        )
        assert to / light.sum() == pytest.approx((x, y), abs=0.35)
    rows, columns = np.nonzero(mask)
    box = (columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5)
    assert after.boxes[-1] == pytest.approx(box)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_what_is_covered_is_hidden_and_all_else_stays(seed: int) -> None:
    sample = below()
    after = paste(sample, donor(), np.random.default_rng(seed))
    if after is sample:
        return
    covered = after.masks[-1]
    left = sample.masks & ~covered
    stays = left.sum((1, 2)) >= LEAST_VISIBLE * sample.masks.sum((1, 2))
    assert (after.masks[:-1] == left[stays]).all() and len(after.masks) == stays.sum() + 1
    assert (after.boxes[:-1] == sample.boxes[stays]).all()
    assert (after.crowd == (sample.crowd & ~covered)).all()
    assert (after.keypoints[:-1, :, :2] == sample.keypoints[stays][..., :2]).all()
    for before, now in zip(sample.keypoints[stays], after.keypoints[:-1], strict=True):
        for (x, y, v), (_, _, flag) in zip(before, now, strict=True):
            assert flag == (1 if v and covered[round(y), round(x)] else v)


def test_someone_wholly_covered_is_dropped() -> None:
    dropped = [(s, a) for s, a in pastes() if len(a.boxes) == 2]
    assert len(dropped) > 10
    for sample, after in dropped:
        left = (sample.masks & ~after.masks[-1]).sum((1, 2))
        gone = left < LEAST_VISIBLE * sample.masks.sum((1, 2))
        assert gone.sum() == 1
        assert (after.boxes[0] == sample.boxes[~gone][0]).all()


def test_pasting_leaves_both_inputs_alone() -> None:
    for seed in range(20):
        sample, other = below(), donor()
        before = copy.deepcopy((sample, other))
        after = paste(sample, other, np.random.default_rng(seed))
        for old, now in zip(before, (sample, other), strict=True):
            for field in fields(Sample):
                assert np.array_equal(getattr(old, field.name), getattr(now, field.name))
        after.keypoints[:], after.boxes[:], after.image[:] = -1, -1, 77
        if after is not sample:
            assert (sample.keypoints == before[0].keypoints).all()
            assert (sample.image == before[0].image).all()


def test_nothing_is_pasted_without_a_whole_donor_or_somebody_to_cover() -> None:
    def same(sample: Sample, other: Sample) -> bool:
        return paste(sample, other, np.random.default_rng(0)) is sample

    assert not same(below(), donor())
    maskless, few, small = donor(), donor(), donor(10)
    maskless.masks[:] = False
    few.keypoints[0, 4:] = 0
    assert small.boxes[0, 2] - small.boxes[0, 0] < 32
    assert same(below(), maskless) and same(below(), few) and same(below(), small)
    assert same(make_people([], SIZE), donor()) and same(below(), make_people([], SIZE))


def test_of_who_is_pasted_into_an_image_without_masks_the_mask_is_known() -> None:
    sample = below()
    sample.unmasked[:] = True
    sample.masks[:] = False
    after = paste(sample, donor(), np.random.default_rng(1))
    assert len(after.boxes) == 3 and not after.masks[:2].any() and after.masks[2].any()
    assert (after.unmasked == ~after.masks[2]).all()
    assert after.keypoints[-1].any() and after.image.any()


def test_regions_without_masks_move_with_the_image() -> None:
    sample = make_people([make_person(30, 20, 50)], SIZE)
    sample.unmasked[10:40, 20:60] = True
    moved = warp(sample, np.array([[1.0, 0, 15], [0, 1, 5]]), SIZE, None)
    wanted = np.zeros(SIZE, bool)
    wanted[15:45, 35:75] = True
    assert (moved.unmasked == wanted).all()


def test_a_donor_pasted_much_smaller_is_not_aliased() -> None:
    striped = donor(110)
    striped.image[:] = 0
    striped.image[:, ::2] = 255
    sample = make_people([make_person(150, 100, 14)], SIZE)
    for seed in range(10):
        after = paste(sample, striped, np.random.default_rng(seed))
        inside = after.masks[-1]
        inside[1:-1, 1:-1] &= inside[2:, 1:-1] & inside[:-2, 1:-1]
        inside[1:-1, 1:-1] &= inside[1:-1, 2:] & inside[1:-1, :-2]
        assert np.abs(after.image[inside].astype(int) - 128).max() < 45


@given(st.floats(0.1, 0.45), st.floats(-180, 180), st.booleans())
@settings(max_examples=40, deadline=None)
def test_shrinking_much_keeps_light_keypoint_mask_and_crowd_together(
    scale: float, degrees: float, mirror: bool
) -> None:
    sample = make_people([make_person(120, 30, 90)], SIZE)
    patch = np.s_[80:121, 140:181]  # its middle is (160, 100)
    sample.keypoints[0, 9] = 160, 100, 1
    sample.image[patch] = 255
    sample.masks[:] = False
    sample.masks[0][patch] = True
    sample.crowd[patch] = True
    turn = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if mirror:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    to = np.array([81.3, 77.6])
    shift = to - matrix @ (160, 100)
    moved = warp(sample, np.c_[matrix, shift], (160, 170), COCO17.flip if mirror else None)
    place = COCO17.flip[9] if mirror else 9
    assert moved.keypoints[0, place] == pytest.approx((*to, 1), abs=1e-3)
    light = moved.image[..., 0].astype(float)
    for weights in (light, moved.masks[0], moved.crowd):
        total = weights.sum()
        middle = [(weights.sum(0) * np.arange(170)).sum(), (weights.sum(1) * np.arange(160)).sum()]
        assert np.array(middle) / total == pytest.approx(to, abs=0.6)
    assert (light >= 128)[moved.masks[0]].mean() > 0.7
    assert 0.75 < (light.sum() / 255) / (41 * scale) ** 2 < 1.25


def test_persons_that_leave_the_crop_are_dropped() -> None:
    sample = make_people([make_person(20, 20, 40), make_person(220, 20, 40)], SIZE)
    right = np.array([[1.0, 0, -160], [0, 1, 0]])
    moved = warp(sample, right, (240, 160), None)
    assert len(moved.boxes) == len(moved.masks) == len(moved.keypoints) == 1
    assert (moved.masks[0] == sample.masks[1][:, 160:]).all()


def turned(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 200], [sin, cos, 100]])


def test_a_box_that_is_not_turned_moves_as_its_corners_do() -> None:
    boxes = np.array([[10.0, 20, 40, 90]])
    mirrored = np.array([[-2.0, 0, 300], [0, 0.5, 7]])
    assert moved_boxes(boxes, mirrored) == pytest.approx(np.array([[220.0, 17, 280, 52]]))
    assert moved_boxes(boxes, turned(90)) == pytest.approx(np.array([[110.0, 110, 180, 140]]))


@given(st.floats(-180, 180), st.floats(4, 200))
def test_a_round_person_stays_as_large_however_it_is_turned(degrees: float, size: float) -> None:
    sample = make_people([make_person(60, 40, 30)], SIZE)
    sample.boxes[0] = 60, 40, 60 + size, 40 + size
    box = moved_boxes(sample.boxes, turned(degrees))[0]
    assert box[2:] - box[:2] == pytest.approx(np.array([size, size]), rel=1e-4)


def test_who_shows_in_a_corner_alone_is_not_dropped() -> None:
    """Its ellipse lies outside the crop, a corner of its box inside."""
    sample = make_people([make_person(40, 40, 60)], SIZE)
    sample.boxes[0], sample.masks[0] = (40, 40, 140, 140), False
    sample.masks[0, 130:140, 130:140] = True
    matrix = np.array([[0.7071, -0.7071, 20], [0.7071, 0.7071, -185.0]])
    moved = warp(sample, matrix, (64, 64), None)
    assert moved.masks.any() and len(moved.boxes) == 1


def test_padding_has_no_color() -> None:
    sample = make_people([make_person(110, 20, 100)], SIZE)
    sample.image[:] = 90
    color = np.c_[0.5 * np.eye(3), [40.0, 50, 60]].astype(np.float32)
    shift = np.array([[1.0, 0, -100], [0, 1, 0]])
    seen = look(sample, View(shift, False, color), 240, COCO17).image
    assert (seen[:, :220] == (85, 95, 105)).all() and (seen[:, 220:] == 0).all()
    assert draw_color(0.0, np.random.default_rng(0)) == pytest.approx(np.eye(3, 4))


def test_a_mask_moved_by_half_a_pixel_does_not_grow() -> None:
    sample = make_people([make_person(110, 20, 100)], SIZE)
    sample.masks[:] = False
    sample.masks[0, 60:80, 120:150] = True
    sample.crowd[:] = sample.masks[0]
    moved = warp(sample, np.array([[1.0, 0, 0.5], [0, 1, 0.5]]), SIZE, None)
    assert moved.masks[0].sum() == moved.crowd.sum() == 20 * 30


# What views are drawn


def views(**options: Any) -> list[View]:
    """Of an image of SIZE with a person in a corner, and one at the other side."""
    sample = make_people([make_person(2, 2, 20), make_person(290, 60, 25)], SIZE)
    train, rng = TrainConfig(**{"crop": 128, **options}), np.random.default_rng(0)
    return [draw_view(SIZE, sample.boxes, train, rng) for _ in range(50)]


@pytest.mark.parametrize("flip", [0.0, 0.2, 1.0])
def test_as_many_views_are_mirrored_as_asked_for(flip: float) -> None:
    drawn = views(flip=flip)
    mirrored = [view.mirror for view in drawn]
    assert mirrored == [bool(np.linalg.det(view.matrix[:, :2]) < 0) for view in drawn]
    assert np.mean(mirrored) == pytest.approx(flip, abs=0.15 if 0 < flip < 1 else 0)


def test_the_longer_side_is_scaled_as_asked_for() -> None:
    drawn = views(flip=0, longer_side=(200, 800))
    sides = max(SIZE) * np.sqrt([np.linalg.det(view.matrix[:, :2]) for view in drawn])
    assert 200 <= sides.min() < 250 and 650 < sides.max() <= 800


def test_a_crop_stays_in_an_image_that_is_larger() -> None:
    corners = np.array([[-0.5, -0.5], [127.5, 127.5]])
    last = np.array(SIZE[::-1]) - 0.5
    for view in views(longer_side=(200, 600)):
        seen = (corners - view.matrix[:, 2]) @ np.linalg.inv(view.matrix[:, :2]).T
        assert (seen >= -0.5 - 1e-6).all() and (seen <= last + 1e-6).all()


def test_contrast_leaves_middle_gray_and_saturation_leaves_lightness() -> None:
    rng, lightness = np.random.default_rng(0), np.array([0.299, 0.587, 0.114])
    drawn = [draw_color(0.3, rng).astype(float) for _ in range(200)]
    for color in drawn:
        gray = color @ (128, 128, 128, 1)
        assert np.ptp(gray) < 1e-3 and 128 * 0.7 - 0.1 < gray[0] < 128 * 1.3 + 0.1
        assert lightness @ color[:, :3] == pytest.approx(color[0, :3].sum() * lightness, abs=1e-5)


def test_now_and_then_a_view_has_no_color() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    seen = [cv2.transform(image, draw_color(0.3, rng)) for _ in range(200)]
    colorless = [bool((np.ptp(colors, axis=2) <= 1).all()) for colors in seen]
    assert 2 <= sum(colorless) <= 30
