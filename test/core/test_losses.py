"""Losses: what they measure, and where they are not taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdc_core.config import TrainConfig
from kdc_core.fields import Fields
from kdc_core.grid import Grid
from kdc_core.losses import mask_losses, pose_losses, total_loss
from kdc_core.skeleton import COCO17
from kdc_core.targets import encode

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
