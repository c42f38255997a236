"""Dynamic centroids: whose pixels they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from kdc_core.codec.centroids import choose_centroids, mean_embedding, pixel_affinity, smooth
from kdc_core.codec.decode import decode
from kdc_core.codec.grid import Level
from kdc_core.codec.grouping import Poses, person_size
from kdc_core.codec.sample import Sample
from kdc_core.config import DecodeConfig

from .conftest import (
    SIZE,
    assembled,
    codec,
    make_people,
    make_person,
    perfect_fields,
    poses_of,
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


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("scale", [5, 100])
def test_phi_is_what_its_formula_says_at_every_level(scale: int, factor: int) -> None:
    """Of a person so small that the least sigma holds, and of a larger one."""
    poses, own = poses_of(make_person(30, 20, scale)), codec(sigma_scale=0.25, sigma_min_px=8.0)
    centroids, level = choose_centroids(poses, own.settings), Level.of(own.grid, factor)
    generator = torch.Generator().manual_seed(0)
    embedding = 20 * torch.randn(1, 18, 2, 12, 16, generator=generator)
    found = pixel_affinity(embedding, poses, centroids, level, own)

    sigma = max(8.0, 0.25 * float(person_size(poses.position)))
    cells = torch.meshgrid(torch.arange(16.0), torch.arange(12.0), indexing="xy")
    pixels = own.grid.to_pixel(torch.stack(cells))
    wanted = torch.zeros(12, 16)
    of_person = (centroids.types[0, 0], centroids.weight[0, 0], centroids.position[0, :, 0].T)
    for type_, weight, place in zip(*of_person, strict=True):
        off = level.to_image(pixels + embedding[0, type_]) - place[:, None, None]
        wanted += weight * torch.exp(off.square().sum(0) / (-2 * sigma**2))
    assert wanted.max() > 0.05
    assert torch.allclose(found[0, 0], wanted, atol=1e-4)


def test_phi_of_far_pixels_is_no_denormal_number() -> None:
    """Processors take many times as long for those, and most pixels are far from everybody."""
    person = make_person(20, 10, 30)
    fields = perfect_fields(make_people([person], SIZE))
    poses, own = poses_of(person), codec(sigma_min_px=3.0)
    centroids, level = choose_centroids(poses, own.settings), Level.of(own.grid, 1)
    for reach in (1.0, 2.0, 4.0, 8.0, 16.0):  # wherever exp comes to be denormal
        spread = reach * torch.randn(fields.embedding.shape) * 10
        phi = pixel_affinity(fields.embedding + spread, poses, centroids, level, own)
        assert phi.min() > torch.finfo(torch.float32).tiny


def test_mean_embedding_moves_a_wrong_centroid_to_where_pixels_point() -> None:
    """Equation 4: the centroid is off by a tenth of the person, its pixels are not."""
    person = make_person(90, 10, 110)
    fields = perfect_fields(make_people([person], SIZE))
    wrong = person.copy()
    wrong[:, 0] += 8
    poses, own = poses_of(wrong), codec(phi_threshold=0.2)
    centroids, level = choose_centroids(poses, own.settings), Level.of(own.grid, 1)
    phi = pixel_affinity(fields.embedding, poses, centroids, level, own)
    moved = mean_embedding(
        fields.embedding, phi, torch.sigmoid(fields.mask), centroids, level, own
    )
    truth = torch.from_numpy(person[:, :2])[centroids.types[0, 0]]
    assert (centroids.position[0, :, 0].T - truth).abs().max() == pytest.approx(8, abs=1e-3)
    assert (moved.position[0, :, 0].T - truth).abs().max() < 0.5


def test_centroids_of_a_person_without_pixels_stay_where_they_are() -> None:
    person = make_person(90, 10, 110)
    fields = perfect_fields(make_people([person], SIZE))
    poses, own = poses_of(person), codec()
    centroids, level = choose_centroids(poses, own.settings), Level.of(own.grid, 1)
    phi = pixel_affinity(fields.embedding, poses, centroids, level, own)
    nobody = torch.zeros_like(fields.mask)
    moved = mean_embedding(fields.embedding, phi, nobody, centroids, level, own)
    assert torch.equal(moved.position, centroids.position)


def test_smoothing_spreads_each_persons_phi_and_keeps_its_sum() -> None:
    phi = torch.zeros(1, 2, 21, 21)
    phi[0, 0, 10, 10] = 1
    smoothed = smooth(phi, 1.0)
    assert smoothed[0, 0].sum() == pytest.approx(1, abs=1e-5) and smoothed[0, 0].max() < 0.2
    assert not smoothed[0, 1].any()
