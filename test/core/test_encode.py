"""Targets say what docs/design.md says, cell by cell."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.codec.coverage import coverage
from kdc_core.codec.encode import encode
from kdc_core.codec.grid import Grid
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import TrainConfig
from kdc_core.data.augment import draw_color, draw_view, look, warp

from .conftest import codec, make_people, make_person

SIZE = (160, 192)
GRID = codec().grid
EDGES = codec().edges


def test_every_cell_of_one_person() -> None:
    person = make_person(50, 20, 60)
    person[9] = 0  # left wrist not labelled
    sample = make_people([person], SIZE)
    radius = 12.0
    targets, weights, _ = encode(sample, codec(radius))
    ys, xs = np.mgrid[:40, :48] * 4 + 1.5
    rows, columns = np.nonzero(sample.masks[0])
    points = np.concatenate((person[:, :2], [[columns.mean(), rows.mean()]]))
    side = np.sqrt(np.prod(sample.boxes[0, 2:] - sample.boxes[0, :2]))
    for type_ in range(18):
        reach = radius if type_ < 17 else min(radius, 0.3 * side)
        dx, dy = points[type_, 0] - xs, points[type_, 1] - ys
        disk = (dx**2 + dy**2 <= reach**2) & (type_ != 9)
        assert (targets.heat[0, type_] == disk).all()
        assert (weights.heat[0, type_] == 1).all()
        assert (weights.short[0, type_, 0] == disk).all()
        assert targets.short[0, type_, 0][disk] == pytest.approx(dx[disk], abs=1e-4)
        assert targets.short[0, type_, 1][disk] == pytest.approx(dy[disk], abs=1e-4)
        for index, (a, b) in enumerate(EDGES):
            if a == type_:
                known = disk & (b != 9)
                assert (weights.mid[0, index, 0] == known).all()
                to_x = points[b, 0] - xs[known]
                assert targets.mid[0, index, 0][known] == pytest.approx(to_x, abs=1e-4)
    cover = coverage(sample.masks[0], GRID, 40, 48)
    assert targets.mask[0, 0] == pytest.approx(cover)
    inside = cover > 0
    for type_ in range(18):
        assert ((weights.embedding[0, type_, 0] > 0) == (inside & (type_ != 9))).all()
        if type_ != 9:
            to_x, to_y = points[type_, 0] - xs[inside], points[type_, 1] - ys[inside]
            assert targets.embedding[0, type_, 0][inside] == pytest.approx(to_x, abs=1e-4)
            assert targets.embedding[0, type_, 1][inside] == pytest.approx(to_y, abs=1e-4)


@pytest.mark.parametrize("size", [20, 60, 150])
def test_gaussian_heatmaps_fall_off_with_the_size_of_the_person(size: int) -> None:
    person = make_person(50, 4, size)
    sample = make_people([person], SIZE)
    targets, weights, _ = encode(sample, replace(codec(12.0), heat="gaussian"))
    disks, disk_weights, _ = encode(sample, codec(12.0))
    ys, xs = np.mgrid[:40, :48] * 4 + 1.5
    side = np.sqrt(np.prod(sample.boxes[0, 2:] - sample.boxes[0, :2]))
    sigma = np.clip(0.09 * side, 4, 10)
    square = (xs - person[5, 0]) ** 2 + (ys - person[5, 1]) ** 2
    assert targets.heat[0, 5] == pytest.approx(np.exp(-square / (2 * sigma**2)), abs=1e-3)
    assert (targets.short == disks.short).all() and (targets.mid == disks.mid).all()
    assert (weights.heat == disk_weights.heat).all()


def test_where_gaussians_overlap_the_higher_wins() -> None:
    left, right = make_person(60, 20, 60), make_person(72, 20, 60)

    def heat(*people: np.ndarray) -> np.ndarray:
        sample = make_people(list(people), SIZE)
        targets, *_ = encode(sample, replace(codec(12.0), heat="gaussian"))
        return targets.heat[0, :17]

    assert heat(left, right) == pytest.approx(np.maximum(heat(left), heat(right)))


def test_where_disks_overlap_the_nearest_keypoint_wins() -> None:
    left, right = make_person(40, 20, 50), make_person(56, 20, 50)
    targets, *_ = encode(make_people([left, right], SIZE), codec(24.0))
    ys, xs = np.mgrid[:40, :48] * 4 + 1.5
    to = [np.hypot(p[0, 0] - xs, p[0, 1] - ys) for p in (left, right)]
    nearest = np.where(to[0] <= to[1], left[0, 0], right[0, 0])
    disk = np.minimum(*to) <= 24
    landing = targets.short[0, 0, 0] + xs
    assert landing[disk] == pytest.approx(nearest[disk], abs=1e-3)


def test_where_masks_overlap_the_smaller_person_is_on_top() -> None:
    sample = make_people([make_person(20, 10, 70), make_person(50, 30, 30)], SIZE)
    sample.masks[0, 30:90, 50:80] = True
    targets, *_ = encode(sample, codec(16.0))
    row, column = 15, 16  # pixel (65.5, 61.5), inside both
    assert sample.masks[:, 61, 65].all()
    landing = targets.embedding[0, 0, :, row, column] + (4 * column + 1.5, 4 * row + 1.5)
    assert landing == pytest.approx(sample.keypoints[1, 0, :2], abs=1e-3)


def test_no_loss_in_crowds_nor_on_people_without_keypoints() -> None:
    known, unknown = make_person(20, 10, 40), np.zeros((17, 3), np.float32)
    sample = make_people([known, unknown], SIZE, [[14, 8, 66, 96], [100, 20, 140, 100]])
    sample.crowd[120:, :40] = True
    targets, weights, _ = encode(sample, codec(12.0))
    crowd = np.s_[..., 31:, 0:9]
    for name in ("heat", "short", "mid", "mask", "embedding"):
        assert (getattr(weights, name)[crowd] == 0).all(), name
    box = np.s_[..., 7:24, 26:34]
    assert (weights.heat[0, :17][box] == 0).all()
    assert (weights.heat[0, 17][box] == 1).all(), "the body center is known"
    assert (weights.mask[0, 0][box] == 1).all(), "and so is the mask"
    assert targets.heat[0, 17][box].any()
    assert (weights.embedding[0, :17][box] == 0).all()
    assert (weights.embedding[0, 17, 0][box] > 0).all()


def test_images_without_masks_train_keypoints_only() -> None:
    sample = make_people([make_person(50, 20, 60)], SIZE)
    sample.unmasked[:] = True
    sample.masks[:] = False
    targets, weights, _ = encode(sample, codec(12.0))
    assert not weights.mask.any() and not weights.embedding.any()
    assert targets.heat[0, :18].any((1, 2)).all() and weights.mid.any()


def test_people_without_a_mask_take_no_mask_loss_in_their_box_alone() -> None:
    boxes: list[list[float]] = [[14, 8, 66, 96], [100, 20, 140, 100]]
    sample = make_people([make_person(20, 10, 40), make_person(105, 22, 30)], SIZE, boxes)
    _, before, _ = encode(sample, codec(12.0))
    sample.masks[1] = False
    sample.unmasked[20:101, 100:141] = True
    targets, weights, _ = encode(sample, codec(12.0))
    box = coverage(sample.unmasked, GRID, 40, 48) > 0
    assert box.sum() == 21 * 11
    for now, then in ((weights.mask, before.mask), (weights.embedding, before.embedding)):
        assert now.any() and not now[..., box].any() and then[..., box].any()
        assert (now[..., ~box] == then[..., ~box]).all()
    # Its keypoints are learnt, and its center is that of its box.
    for type_ in (0, 17):
        assert targets.heat[0, type_][box].any() and weights.heat[0, type_].all()
    sample.keypoints[1] = 0
    targets, weights, _ = encode(sample, codec(12.0))
    unknown = weights.heat[0, 17] == 0
    assert unknown[5:25, 25:35].all() and not unknown[~box].any()


def test_an_image_of_nobody_is_all_background() -> None:
    targets, weights, _ = encode(make_people([], SIZE), codec(12.0))
    assert not targets.heat.any() and not targets.mask.any()
    assert weights.heat.all() and weights.mask.all()


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_coverage_is_the_share_of_each_cells_square(offset: float) -> None:
    mask = np.random.default_rng(0).random((40, 48)) < 0.4
    shares = coverage(mask, Grid(4, offset), 10, 12)
    fine = mask.repeat(2, 0).repeat(2, 1).astype(float)  # half pixels
    for row in range(1, 9):
        for column in range(1, 11):
            y, x = (int(2 * (offset + 4 * i - 2 + 0.5)) for i in (row, column))
            assert shares[row, column] == pytest.approx(fine[y : y + 8, x : x + 8].mean())


@pytest.mark.parametrize("offset", [0.0, -1.0])
def test_a_mask_that_covers_the_image_covers_cells_at_its_border_wholly(offset: float) -> None:
    shares = coverage(np.ones((16, 16), bool), Grid(2, offset), 8, 8)
    assert shares == pytest.approx(np.ones((8, 8)))


@given(st.integers(4, 43), st.integers(4, 35))
@settings(max_examples=20, deadline=None)
def test_flipping_the_image_flips_the_targets(cell_x: int, cell_y: int) -> None:
    person = make_person(cell_x * 2.0, cell_y * 0.5, 60)
    sample = make_people([person], SIZE)
    mirror = np.array([[-1.0, 0, SIZE[1] - 1], [0, 1, 0]])
    moved = warp(sample, mirror, SIZE, COCO17.flip)
    targets, *_ = encode(sample, codec(12.0))
    mirrored, *_ = encode(moved, codec(12.0))
    types = [*COCO17.flip, 17]
    assert (mirrored.heat[0, :17] == targets.heat[0, list(COCO17.flip)][..., ::-1]).mean() > 0.999
    assert mirrored.mask[0, 0] == pytest.approx(targets.mask[0, 0][:, ::-1], abs=1e-5)
    flipped = targets.embedding[0, types][..., ::-1].copy()
    flipped[:, 0] *= -1
    there = (mirrored.mask[0, 0] > 0.5) & (flipped[:17].any((0, 1)))
    assert mirrored.embedding[0, :17][..., there] == pytest.approx(
        flipped[:17][..., there], abs=1e-2
    )


@given(st.floats(0.7, 1.6), st.floats(-40, 40), st.booleans())
@settings(max_examples=30, deadline=None)
def test_offsets_follow_an_affine(scale: float, degrees: float, mirror: bool) -> None:
    """Short, mid-range and embedding offsets of the moved sample end at the moved keypoints."""
    person = make_person(60, 40, 60)
    turn = cv2.getRotationMatrix2D((SIZE[1] / 2, SIZE[0] / 2), degrees, scale)
    if mirror:
        turn = np.array([[-1.0, 0], [0, 1]]) @ turn + [[0, 0, SIZE[1] - 1], [0, 0, 0]]
    moved = warp(make_people([person], SIZE), turn, SIZE, COCO17.flip if mirror else None)
    expected = person[:, :2] @ turn[:, :2].T + turn[:, 2]
    expected = expected[list(COCO17.flip)] if mirror else expected
    targets, weights, _ = encode(moved, codec(12.0))
    xs, ys = GRID.cell_pixels(*targets.heat.shape[-2:])
    labelled = moved.keypoints[0, :, 2] > 0

    def ends(offsets: np.ndarray, where: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(where)
        return offsets[:, rows, columns].T + np.stack((xs[columns], ys[rows]), 1)

    for type_ in np.flatnonzero(labelled):
        for name in ("short", "embedding"):
            where = getattr(weights, name)[0, type_, 0] > 0
            found = ends(getattr(targets, name)[0, type_], where)
            assert len(found) and np.abs(found - expected[type_]).max() < 1e-2, name
    for index, (start, end) in enumerate(EDGES):
        if end < 17 and labelled[end] and (start == 17 or labelled[start]):
            found = ends(targets.mid[0, index], weights.mid[0, index, 0] > 0)
            assert len(found) and np.abs(found - expected[end]).max() < 1e-2


@given(
    st.floats(0.5, 2.0), st.floats(-30, 30), st.booleans(), st.floats(20, 90), st.floats(20, 130)
)
@settings(max_examples=50, deadline=None)
def test_one_lit_pixel_stays_under_its_keypoint(
    scale: float, degrees: float, mirror: bool, x: float, y: float
) -> None:
    x, y = round(x), round(y)
    sample = make_people([make_person(20, 20, 40)], SIZE)
    sample.keypoints[0, 0] = x, y, 2
    sample.image[y - 1 : y + 2, x - 1 : x + 2] = 255
    sample.masks[0] = False
    sample.masks[0, y - 1 : y + 2, x - 1 : x + 2] = True
    turn = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if mirror:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    to = np.array([150.0, 130.0])
    shift = to - matrix @ (x, y)
    moved = warp(sample, np.c_[matrix, shift], (260, 300), COCO17.flip if mirror else None)
    assert moved.keypoints[0, 0, :2] == pytest.approx(to, abs=1e-3)
    light = moved.image[..., 0].astype(float)
    where = np.array(
        [(light.sum(0) * np.arange(300)).sum(), (light.sum(1) * np.arange(260)).sum()]
    )
    assert where / light.sum() == pytest.approx(to, abs=0.35)
    rows, columns = np.nonzero(moved.masks[0])
    assert (columns.mean(), rows.mean()) == pytest.approx(to, abs=0.8)


def test_keypoints_that_leave_the_crop_become_unlabelled() -> None:
    sample = make_people([make_person(50, 20, 60)], SIZE)
    half = np.array([[1.0, 0, 0], [0, 1, -80]])
    moved = warp(sample, half, SIZE, None)
    above = sample.keypoints[0, :, 1] < 79.5
    assert (moved.keypoints[0, above] == 0).all()
    assert (moved.keypoints[0, ~above, 2] == 2).all()


@pytest.mark.parametrize("seed", range(8))
def test_augmentation_keeps_keypoints_on_their_mask(seed: int) -> None:
    sample = make_people([make_person(50, 20, 60), make_person(110, 40, 40)], SIZE)
    train = TrainConfig(crop=128, longer_side=(150, 300), rotate_degrees=20)
    view = draw_view(SIZE, sample.boxes, train, np.random.default_rng(seed))
    moved = look(sample, view, train.crop, COCO17)
    assert moved.image.shape == (128, 128, 3)
    for keypoints, mask in zip(moved.keypoints, moved.masks, strict=True):
        for x, y, v in keypoints:
            if v and 3 < x < 124 and 3 < y < 124:
                assert mask[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].any()


def test_colors_change_by_no_more_than_the_strength_and_zero_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    assert (cv2.transform(image, draw_color(0.0, rng)) == image).all()
    gray = np.full((1, 1, 3), 128, np.uint8)
    changes = [draw_color(0.3, rng) for _ in range(50)]
    assert all((cv2.transform(image, change) != image).any() for change in changes)
    seen = [int(cv2.transform(gray, change)[0, 0, 0]) for change in changes]
    assert 128 * 0.7 - 1 <= min(seen) < 115 and 140 < max(seen) <= 128 * 1.3 + 1, "brightness"
