"""Losses: what they measure, and where they are not taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdc_core.codec.encode import Instances, encode, encode_instances
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import DecodeConfig, TrainConfig
from kdc_core.training.losses import (
    Share,
    alone,
    instance_loss,
    mask_losses,
    pose_losses,
    total_loss,
)

from .conftest import make_people, make_person

SIZE = (128, 160)


def fields_and_targets(crowd: bool) -> tuple[Fields, Fields, Fields]:
    sample = make_people([make_person(20, 10, 50)], SIZE)
    if crowd:
        sample.crowd[:] = True
    targets, weights = encode(sample, COCO17, Grid(4, 1.5), COCO17.edges(("tree",)), 12.0)
    generator = torch.Generator().manual_seed(0)
    fields = targets.map(lambda a: torch.randn(a.shape, generator=generator).requires_grad_(True))
    return fields, targets.map(torch.from_numpy), weights.map(torch.from_numpy)


def test_perfect_fields_cost_nothing() -> None:
    _, targets, weights = fields_and_targets(crowd=False)
    perfect = targets.map(torch.clone)
    perfect.heat = 40 * (2 * targets.heat - 1)
    perfect.mask = torch.logit(targets.mask, eps=1e-6)
    losses = pose_losses(perfect, targets, weights, 12.0) | mask_losses(perfect, targets, weights)
    assert set(losses) == {"heat", "short", "mid", "mask", "dice", "embedding"}
    for name in ("heat", "short", "mid", "embedding"):
        assert losses[name] == pytest.approx(0, abs=1e-5), name
    assert losses["mask"] < 0.1, "what remains is the entropy of cells covered in part"


def test_offsets_count_pixels_over_their_scale() -> None:
    _, targets, weights = fields_and_targets(crowd=False)
    off = targets.map(torch.clone)
    off.short = targets.short + torch.tensor([11.0, 11.0])[:, None, None]
    loss = pose_losses(off, targets, weights, disk_radius_px=10.0)["short"]
    assert loss == pytest.approx((11 - 1) / 10), "smooth L1 of 11 px with beta 2 is 10"


def test_no_gradient_where_the_weights_are_zero() -> None:
    fields, targets, weights = fields_and_targets(crowd=True)
    losses = pose_losses(fields, targets, weights, 12.0) | mask_losses(fields, targets, weights)
    total_loss(losses, TrainConfig()).backward()
    for name in ("heat", "short", "mid", "mask", "embedding"):
        assert getattr(fields, name).grad.abs().max() == 0, name


def test_gradient_reaches_every_field_elsewhere() -> None:
    fields, targets, weights = fields_and_targets(crowd=False)
    losses = pose_losses(fields, targets, weights, 12.0) | mask_losses(fields, targets, weights)
    total_loss(losses, TrainConfig()).backward()
    for name in ("heat", "short", "mid", "mask", "embedding"):
        gradient = getattr(fields, name).grad
        assert gradient.abs().max() > 0, name
        allowed = np.broadcast_to(getattr(weights, name).numpy() > 0, gradient.shape)
        assert gradient.numpy()[~allowed] == pytest.approx(0), name


def two_people() -> tuple[Fields, Fields, Instances]:
    sample = make_people([make_person(10, 8, 45), make_person(90, 8, 45)], SIZE)
    grid = Grid(4, 1.5)
    targets, weights = encode(sample, COCO17, grid, COCO17.edges(("tree",)), 12.0)
    found = encode_instances(sample, COCO17, grid)
    instances = Instances(*(torch.from_numpy(value) for value in vars(found).values()))
    return targets.map(torch.from_numpy), weights.map(torch.from_numpy), instances


def test_instance_loss_is_small_where_pixels_point_at_their_own_person() -> None:
    targets, weights, instances = two_people()
    assert (instances.weight.sum(-1) > 0).sum() == 2

    def loss(embedding: torch.Tensor) -> float:
        return float(
            instance_loss(embedding, weights.mask, instances, Grid(4, 1.5), DecodeConfig())
        )

    right = loss(targets.embedding)
    swapped = targets.embedding.clone()
    swapped[:, :, 0] += torch.where(torch.arange(40) < 20, 80.0, -80.0)
    assert right < 0.05, "rims of cells that a person covers in part"
    assert loss(swapped) > 0.8
    assert loss(torch.zeros_like(swapped)) > right + 0.1


def test_instance_loss_of_nobody_is_nothing_and_crowds_give_no_gradient() -> None:
    targets, weights, instances = two_people()
    embedding = torch.randn_like(targets.embedding).requires_grad_(True)
    none = torch.zeros_like(weights.mask)
    loss = instance_loss(embedding, none, instances, Grid(4, 1.5), DecodeConfig())
    loss.backward()  # type: ignore[no-untyped-call]
    assert embedding.grad is not None and embedding.grad.abs().max() == 0
    instances.weight = torch.zeros_like(instances.weight)
    alone = instance_loss(embedding, weights.mask, instances, Grid(4, 1.5), DecodeConfig())
    assert alone == 0


def test_divisors_shared_between_processes_add_up_to_one_process() -> None:
    """Two halves of a batch, each divided by the mean of both halves' divisors."""
    sample = [
        make_people([make_person(20, 10, 50)], SIZE),
        make_people([make_person(20, 10, 30), make_person(90, 10, 45)], SIZE),
    ]
    parts = []
    for one in sample:
        targets, weights = encode(one, COCO17, Grid(4, 1.5), COCO17.edges(("tree",)), 12.0)
        parts.append((targets.map(torch.from_numpy), weights.map(torch.from_numpy)))
    generator = torch.Generator().manual_seed(1)
    fields = [t.map(lambda a: torch.randn(a.shape, generator=generator)) for t, _ in parts]

    def joined(pieces: list[Fields]) -> Fields:
        a, b = (vars(piece) for piece in pieces)
        return Fields(**{name: torch.cat((a[name], b[name])) for name in a})

    def losses(f: Fields, t: Fields, w: Fields, share: Share) -> dict[str, torch.Tensor]:
        return pose_losses(f, t, w, 12.0, 2.0, share) | mask_losses(f, t, w, 2.0, share)

    asked: list[torch.Tensor] = []
    for f, (t, w) in zip(fields, parts, strict=True):
        losses(f, t, w, lambda divisor: (asked.append(divisor), divisor)[1])
    half = len(asked) // 2
    means = [(a + b) / 2 for a, b in zip(asked[:half], asked[half:], strict=True)]
    mine = []
    for f, (t, w) in zip(fields, parts, strict=True):
        queue = iter(means)
        mine.append(losses(f, t, w, lambda divisor: next(queue)))  # noqa: B023
    whole = losses(
        joined(fields), joined([t for t, _ in parts]), joined([w for _, w in parts]), alone
    )
    for name, value in whole.items():
        assert (mine[0][name] + mine[1][name]) / 2 == pytest.approx(float(value), rel=1e-4), name
