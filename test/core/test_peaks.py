"""Peaks of keypoints, and the suppression of poses that are alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.codec.grid import Grid
from kdc_core.codec.grouping import person_size
from kdc_core.codec.peaks import find_peaks, score_map
from kdc_core.codec.skeleton import COCO17
from kdc_core.codec.suppression import conflicts, pose_oks, soft_nms, suppress

from .conftest import (
    SIZE,
    codec,
    make_people,
    make_person,
    perfect_fields,
    poses_of,
)


def test_score_map_finds_the_peaks_that_hough_voting_finds() -> None:
    """Hough voting (PersonLab): every cell of a disk votes where its offset points."""
    grid = Grid(4, 1.5)
    sample = make_people([make_person(30, 20, 90), make_person(190, 40, 80)], SIZE)
    fields = perfect_fields(sample)
    noise = torch.Generator().manual_seed(0)
    fields.short += torch.randn(fields.short.shape, generator=noise)
    fields.heat += torch.randn(fields.heat.shape, generator=noise)
    score = score_map(fields.heat, fields.short, 4.0)
    peaks = find_peaks(score, fields.short, grid, 8, 7, 4.0)
    height, width = score.shape[-2:]
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for type_ in range(17):
        votes = torch.zeros(height, width)
        heat = torch.sigmoid(fields.heat[0, type_])
        x = (grid.to_cell(grid.to_pixel(xs) + fields.short[0, type_, 0])).round().long()
        y = (grid.to_cell(grid.to_pixel(ys) + fields.short[0, type_, 1])).round().long()
        good = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        votes.index_put_((y[good], x[good]), heat[good], accumulate=True)
        pooled = torch.nn.functional.max_pool2d(votes[None], 7, 1, 3)[0]
        top = ((votes == pooled) & (votes > 5)).nonzero()
        found = peaks.position[0, :, type_, peaks.score[0, type_] > 0.5].T
        assert len(found) == len(top) == 2
        for row, column in top:
            at = torch.tensor([grid.to_pixel(column), grid.to_pixel(row)])
            assert (found - at).norm(dim=-1).min() < 6.0, "within a cell and a half"


def test_cells_around_a_peak_vote_on_its_place() -> None:
    """Of offsets with independent errors the mean is nearer than one."""
    grid, tau_px = Grid(4, 1.5), 8.0
    sample = make_people([make_person(30, 20, 90), make_person(190, 40, 80)], SIZE)
    fields = perfect_fields(sample)
    truth = find_peaks(
        score_map(fields.heat, fields.short, tau_px), fields.short, grid, 2, 5, tau_px
    )
    noise = torch.Generator().manual_seed(0)
    fields.short += torch.randn(fields.short.shape, generator=noise)
    score = score_map(fields.heat, fields.short, tau_px)

    def error(window: int) -> float:
        """Mean distance of the two peaks of each type from where they are without noise."""
        found = find_peaks(score, fields.short, grid, 2, window, tau_px).position
        apart = (found[..., None] - truth.position[..., None, :]).norm(dim=1)
        return float(apart.amin(-1)[:, :17].mean())

    assert error(1) > 0.8, "one cell alone: the noise"
    assert error(5) < 0.6 * error(1)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.5]))
@settings(max_examples=30, deadline=None)
def test_votes_are_those_of_a_plain_loop(seed: int, offset: float) -> None:
    """At the border, too: there nothing is read from beyond it that counts."""
    grid, tau_px, half = Grid(4, offset), 8.0, 2
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(1, 3, 9, 11, generator=generator)
    short = 6 * torch.randn(1, 3, 2, 9, 11, generator=generator)
    inner = score.clone()
    inner[..., :half, :], inner[..., -half:, :] = 0, 0
    inner[..., :half], inner[..., -half:] = 0, 0
    found = find_peaks(inner, short, grid, 4, 2 * half + 1, tau_px)
    number = torch.where(
        inner == torch.nn.functional.max_pool2d(inner, 5, 1, 2), inner, 0.0
    ).flatten(2)
    for type_ in range(3):
        value, cell = number[0, type_].topk(4)
        for peak in range(4):
            if value[peak] == 0:
                continue
            row, column = divmod(int(cell[peak]), 11)
            own = short[0, type_, :, row, column]
            weights, votes = 0.0, torch.zeros(2)
            for y in range(row - half, row + half + 1):
                for x in range(column - half, column + half + 1):
                    place = torch.tensor([grid.to_pixel(x), grid.to_pixel(y)])
                    vote = place + short[0, type_, :, y, x]
                    here = torch.tensor([grid.to_pixel(column), grid.to_pixel(row)]) + own
                    near = torch.exp((vote - here).square().sum() / (-2 * (0.75 * tau_px) ** 2))
                    weight = float(inner[0, type_, y, x] ** 2 * near)
                    weights, votes = weights + weight, votes + weight * vote
            assert found.position[0, :, type_, peak].numpy() == pytest.approx(
                (votes / weights).numpy(), abs=1e-3
            )


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0.0, 0.5))
@settings(max_examples=60, deadline=None)
def test_suppression_equals_the_sequential_loop(seed: int, count: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    conflict = np.tril(rng.random((count, count)) < density, -1)
    alive = rng.random(count) < 0.9
    keep: list[int] = []
    for i in range(count):
        if alive[i] and not any(conflict[i, j] for j in keep):
            keep.append(i)
    got = suppress(torch.tensor(alive)[None], torch.tensor(conflict)[None], rounds=count)
    assert got[0].nonzero().flatten().tolist() == keep


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_twelve_rounds_of_suppression_suffice_for_near_duplicates(seed: int) -> None:
    """Seeds that conflict by distance, as people do: chains stay short."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 300, (96, 2))
    near = np.hypot(*(places[:, None] - places).transpose(2, 0, 1)) < 20
    conflict = torch.tensor(np.tril(near, -1))[None]
    alive = torch.ones(1, 96, dtype=torch.bool)
    assert torch.equal(suppress(alive, conflict, 12), suppress(alive, conflict, 96))


def test_poses_conflict_where_the_root_is_the_same_or_oks_is_high() -> None:
    own, person = codec(skip_radius_px=10.0, same_pose_oks=0.5), make_person(50, 10, 100)
    same_root, alike, apart = person.copy(), person.copy(), person.copy()
    root = int(poses_of(person).root)
    same_root[np.arange(17) != root, 0] += 400
    alike[root, 0] += 30
    apart[:, 0] += 400
    for other, conflict in ((same_root, True), (alike, True), (apart, False)):
        found = conflicts(poses_of(person, other), own)[0]
        assert found.tolist() == [[False, False], [conflict, False]]


def test_oks_of_two_poses_is_by_the_size_of_the_larger() -> None:
    large, small = make_person(50, 10, 100), make_person(80, 60, 30)
    position = poses_of(large, small).position
    sigmas = 2 * np.array(COCO17.sigmas) * float(person_size(position).max())
    square = np.square(large - small)[:, :2].sum(1)
    wanted = np.exp(-square / (2 * sigmas**2)).mean()
    assert 0.01 < wanted < 0.9
    oks = pose_oks(position, COCO17)[0].numpy()
    assert oks == pytest.approx(np.array([[1, wanted], [wanted, 1]]), abs=1e-3)


def test_a_shared_keypoint_counts_for_the_earlier_person_alone() -> None:
    first = make_person(50, 10, 100)
    second = first + np.array([400, 0, 0], np.float32)
    second[5, :2], second[6, :2] = first[5, :2] + (9, 0), first[6, :2] + (11, 0)
    poses = poses_of(first, second)
    ours, theirs = soft_nms(poses, 10.0)[0]
    assert ours.all() and (theirs == 0).nonzero().flatten().tolist() == [5]
    poses.score[0, 0] = 0
    assert soft_nms(poses, 10.0).all(), "who is suppressed has no keypoints"
