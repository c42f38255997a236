"""Decode undoes encode, and each of its steps does what it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.codec.centroids import assign, choose_centroids, mean_embedding
from kdc_core.codec.decode import as_logits, decode
from kdc_core.codec.encode import encode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Level
from kdc_core.codec.grouping import Poses
from kdc_core.codec.peaks import find_peaks, score_map
from kdc_core.codec.results import Prediction
from kdc_core.codec.sample import Sample
from kdc_core.codec.suppression import suppress
from kdc_core.config import Config, DecodeConfig

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
        targets, _ = encode(sample, own)
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


def test_weights_of_every_centroid_choice() -> None:
    score = torch.tensor([[[0.9, 0.2, 0.6] + [0.1] * 14 + [0.8]]])
    poses = Poses(torch.zeros(1, 2, 1, 18), score, torch.ones(1, 1), torch.zeros(1, 1))

    def chosen(**settings: Any) -> dict[int, float]:
        found = choose_centroids(poses, DecodeConfig(**settings))
        pairs = zip(found.types[0, 0].tolist(), found.weight[0, 0].tolist(), strict=True)
        return {k: w for k, w in pairs if w > 1e-3}

    assert chosen(centroid="static") == {17: 1.0}
    assert chosen(centroid="dynamic") == {0: pytest.approx(1.0)}
    multi = chosen(centroid="dynamic_multi", centroids=2)
    assert multi == {0: pytest.approx(0.6), 2: pytest.approx(0.4)}
    led = chosen(centroid="dynamic_multi", centroids=2, center_weight=1.5)
    assert led == {17: pytest.approx(1.2 / 2.1, abs=1e-3), 0: pytest.approx(0.9 / 2.1, abs=1e-3)}
    alike = chosen(centroid="personlab", visible=0.3)
    assert alike == {0: pytest.approx(0.5, abs=1e-3), 2: pytest.approx(0.5, abs=1e-3)}
    blind = dataclasses.replace(poses, keypoint_score=score * (torch.arange(18) == 17))
    for choice in ("static", "dynamic", "dynamic_multi", "personlab"):
        found = choose_centroids(blind, DecodeConfig(centroid=choice))
        assert found.types[0, 0, 0] == 17 and found.weight[0, 0, 0] == pytest.approx(1.0)


def occluded() -> Sample:
    """A person of whom 70 % are hidden: the mask is the upper body alone."""
    hidden, front = make_person(120, 10, 100), make_person(135, 70, 90)
    hidden[7:, 2] = 0
    sample = make_people([hidden, front], SIZE)
    sample.masks[0] = False
    sample.masks[0, 4:62, 128:212] = True
    sample.masks[1] &= ~sample.masks[0]
    return sample


def hidden_iou(choice: str, noise_px: float) -> float:
    """IoU of the hidden person's mask when its body center is predicted wrongly.

    The body center of a hidden person has to be guessed; its visible keypoints do not.
    """
    sample = occluded()
    fields = perfect_fields(sample)
    inside = torch.from_numpy(sample.masks[0][2::4, 2::4])
    # The embedding of the hidden person's pixels points at the center of its whole body.
    fields.embedding[0, 17, 1][inside] += noise_px
    prediction = assembled(decode([fields], codec(centroid=choice)), SIZE)
    truth = sample.masks[0]
    masks = [p.full_mask(SIZE) for p in prediction.persons]
    return max(float((m & truth).sum() / (m | truth).sum()) for m in masks)


def test_an_occluded_person_keeps_its_pixels_by_dynamic_centroids_only() -> None:
    assert hidden_iou("dynamic", 60) > 0.9
    assert hidden_iou("dynamic_multi", 60) > 0.9
    assert hidden_iou("static", 60) < 0.3


def test_two_people_with_crossing_arms_keep_their_hands() -> None:
    left, right = make_person(60, 20, 90), make_person(170, 20, 90)
    # The left person's left hand lies on the other's side, and the other way round.
    left[9, :2], right[10, :2] = (185, 100), (145, 115)
    left[7, :2], right[8, :2] = (160, 90), (165, 100)
    assert_found([left, right], predict(make_people([left, right], SIZE)))


def test_torch_decodes_alike_on_one_and_two_threads(oracle_config: Config) -> None:
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


def test_phi_of_far_pixels_is_no_denormal_number() -> None:
    """Processors take many times as long for those, and most pixels are far from everybody."""
    person = make_person(20, 10, 30)
    fields = perfect_fields(make_people([person], SIZE))
    poses, own = poses_of(person), codec(sigma_min_px=3.0)
    centroids, level = choose_centroids(poses, own.settings), Level.of(own.grid, 1)
    for reach in (1.0, 2.0, 4.0, 8.0, 16.0):  # wherever exp comes to be denormal
        spread = reach * torch.randn(fields.embedding.shape) * 10
        phi = assign(fields.embedding + spread, poses, centroids, level, own)
        assert phi.min() > torch.finfo(torch.float32).tiny


def test_mean_embedding_moves_a_wrong_centroid_to_where_pixels_point() -> None:
    """Equation 4: the centroid is off by a tenth of the person, its pixels are not."""
    person = make_person(90, 10, 110)
    fields = perfect_fields(make_people([person], SIZE))
    wrong = person.copy()
    wrong[:, 0] += 8
    poses, own = poses_of(wrong), codec(phi_threshold=0.2)
    centroids, level = choose_centroids(poses, own.settings), Level.of(own.grid, 1)
    phi = assign(fields.embedding, poses, centroids, level, own)
    moved = mean_embedding(
        fields.embedding, phi, torch.sigmoid(fields.mask), centroids, level, own
    )
    truth = torch.from_numpy(person[:, :2])[centroids.types[0, 0]]
    assert (centroids.position[0, :, 0].T - truth).abs().max() == pytest.approx(8, abs=1e-3)
    assert (moved.position[0, :, 0].T - truth).abs().max() < 0.5
