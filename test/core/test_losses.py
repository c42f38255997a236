"""Losses: what they measure, and where they are not taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdc_core.codec.codec import Codec
from kdc_core.codec.encode import Instances, encode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid
from kdc_core.codec.person_map import near_edge
from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import ConfigError, DecodeConfig, TrainConfig
from kdc_core.config_file import load_preset
from kdc_core.training.losses import (
    EDGE_CELLS,
    Loss,
    all_losses,
    instance_loss,
    mask_losses,
    pose_losses,
    score_loss,
    total_loss,
)

from .conftest import make_people, make_person

SIZE = (128, 160)
CODEC = Codec(COCO17, Grid(4, 1.5), ("tree",), 12.0, DecodeConfig())
Maps = Fields[torch.Tensor]


def values(losses: dict[str, Loss]) -> dict[str, torch.Tensor]:
    """The losses of one process."""
    return {name: loss.over(loss.divisor) for name, loss in losses.items()}


def encoded(sample: Sample, codec: Codec = CODEC) -> tuple[Maps, Maps, Instances[torch.Tensor]]:
    targets, weights, instances = encode(sample, codec)
    to_torch = torch.from_numpy
    return targets.map(to_torch), weights.map(to_torch), instances.map(to_torch)


def fields_and_targets(crowd: bool) -> tuple[Maps, Maps, Maps]:
    sample = make_people([make_person(20, 10, 50)], SIZE)
    if crowd:
        sample.crowd[:] = True
    targets, weights, _ = encoded(sample)
    generator = torch.Generator().manual_seed(0)
    fields = targets.map(lambda a: torch.randn(a.shape, generator=generator).requires_grad_(True))
    return fields, targets, weights


def both(fields: Maps, targets: Maps, weights: Maps) -> dict[str, Loss]:
    return pose_losses(fields, targets, weights, CODEC) | mask_losses(fields, targets, weights)


def test_perfect_fields_cost_nothing() -> None:
    _, targets, weights = fields_and_targets(crowd=False)
    perfect = targets.map(torch.clone)
    perfect.heat = 40 * (2 * targets.heat - 1)
    perfect.mask = torch.logit(targets.mask, eps=1e-6)
    losses = values(both(perfect, targets, weights))
    assert set(losses) == {"heat", "short", "mid", "mask", "dice", "embedding"}
    for name in ("heat", "short", "mid", "embedding"):
        assert losses[name] == pytest.approx(0, abs=1e-5), name
    assert losses["mask"] < 0.1, "what remains is the entropy of cells covered in part"


@pytest.mark.parametrize(("name", "scale_px"), [("short", 12), ("mid", 24), ("embedding", 32)])
def test_offsets_count_pixels_over_their_scale(name: str, scale_px: float) -> None:
    _, targets, weights = fields_and_targets(crowd=False)
    off = targets.map(torch.clone)
    setattr(off, name, getattr(targets, name) + 11)
    loss = values(both(off, targets, weights))[name]
    assert loss == pytest.approx((11 - 1) / scale_px), "smooth L1 of 11 px with beta 2 is 10"


def test_no_gradient_where_the_weights_are_zero() -> None:
    fields, targets, weights = fields_and_targets(crowd=True)
    total_loss(values(both(fields, targets, weights)), TrainConfig()).backward()
    for name in ("heat", "short", "mid", "mask", "embedding"):
        assert getattr(fields, name).grad.abs().max() == 0, name


def test_score_loss_has_no_gradient_in_crowds() -> None:
    fields, targets, weights = fields_and_targets(crowd=True)
    torch.autograd.backward(score_loss(fields, targets, weights, tau_px=8.0).total)
    assert fields.heat.grad is not None and fields.heat.grad.abs().max() == 0


def test_dice_is_of_cells_whose_mask_is_known() -> None:
    _, targets, weights = fields_and_targets(crowd=False)
    perfect = targets.map(torch.clone)
    perfect.mask = 40 * (2 * (targets.mask > 0.5) - 1.0)
    targets.mask = (targets.mask > 0.5).float()
    known = weights.map(torch.clone)
    known.mask[..., 12:] = 0
    assert targets.mask[..., 12:].any() and targets.mask[..., :12].any()
    assert values(mask_losses(perfect, targets, known))["dice"] == pytest.approx(0, abs=1e-6)


def test_images_without_masks_do_not_count_in_dice() -> None:
    fields, targets, weights = fields_and_targets(crowd=False)
    alone = values(mask_losses(fields, targets, weights))["dice"].item()
    fields, targets, weights = (
        maps.map(lambda one: torch.cat((one, one))) for maps in (fields, targets, weights)
    )
    weights.mask[1] = 0
    together = values(mask_losses(fields, targets, weights))["dice"].item()
    assert together == pytest.approx(alone) and alone > 0.1


def test_gradient_reaches_every_field_elsewhere() -> None:
    fields, targets, weights = fields_and_targets(crowd=False)
    total_loss(values(both(fields, targets, weights)), TrainConfig()).backward()
    for name in ("heat", "short", "mid", "mask", "embedding"):
        gradient = getattr(fields, name).grad
        assert gradient.abs().max() > 0, name
        allowed = np.broadcast_to(getattr(weights, name).numpy() > 0, gradient.shape)
        assert gradient.numpy()[~allowed] == pytest.approx(0), name


def two_people() -> tuple[Maps, Maps, Instances[torch.Tensor]]:
    return encoded(make_people([make_person(10, 8, 45), make_person(90, 8, 45)], SIZE))


def test_instance_loss_is_small_where_pixels_point_at_their_own_person() -> None:
    targets, weights, instances = two_people()
    assert (instances.weight.sum(-1) > 0).sum() == 2

    def loss(embedding: torch.Tensor) -> float:
        found = instance_loss(embedding, weights.mask, instances, CODEC)
        return float(found.over(found.divisor))

    right = loss(targets.embedding)
    swapped = targets.embedding.clone()
    swapped[:, :, 0] += torch.where(torch.arange(40) < 20, 80.0, -80.0)
    assert right < 0.05, "rims of cells that a person covers in part"
    assert loss(swapped) > 0.8
    assert loss(torch.zeros_like(swapped)) > right + 0.1


def test_instance_loss_is_the_same_beside_a_finer_person_map() -> None:
    targets, weights, instances = two_people()
    generator = torch.Generator().manual_seed(0)
    embedding = 20 * torch.randn(targets.embedding.shape, generator=generator)
    weights.mask[..., :9] = 0
    finer = weights.mask.repeat_interleave(2, 2).repeat_interleave(2, 3)
    plain, fine = (
        instance_loss(embedding, weight, instances, CODEC) for weight in (weights.mask, finer)
    )
    assert fine.total == plain.total > 0 and fine.divisor == plain.divisor


def test_instance_loss_of_nobody_is_nothing_and_crowds_give_no_gradient() -> None:
    targets, weights, instances = two_people()
    embedding = torch.randn_like(targets.embedding).requires_grad_(True)
    none = torch.zeros_like(weights.mask)
    torch.autograd.backward(instance_loss(embedding, none, instances, CODEC).total)
    assert embedding.grad is not None and embedding.grad.abs().max() == 0
    instances.weight = torch.zeros_like(instances.weight)
    nobody = instance_loss(embedding, weights.mask, instances, CODEC)
    assert nobody.over(nobody.divisor) == 0


def test_score_loss_brings_heat_and_short_offsets_together() -> None:
    _, targets, weights = fields_and_targets(crowd=False)
    perfect = targets.map(torch.clone)
    perfect.heat = 40 * (2 * targets.heat - 1)

    def loss(fields: Maps) -> float:
        found = score_loss(fields, targets, weights, tau_px=8.0)
        return float(found.over(found.divisor))

    right = loss(perfect)
    assert right == pytest.approx(0, abs=1e-3)
    beside = perfect.map(torch.clone)
    beside.short = perfect.short + 8.0
    assert loss(beside) > right + 0.05, "the peak lies beside the keypoint"
    elsewhere = perfect.map(torch.clone)
    elsewhere.heat[..., :8, :] = 40.0
    elsewhere.short[..., :8, :] = 0.0
    assert loss(elsewhere) > right + 1, "a peak where nobody is"


@pytest.mark.parametrize("heat", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("short", [0.0, 500.0])
def test_score_loss_and_its_gradient_are_finite(heat: float, short: float) -> None:
    _, targets, weights = fields_and_targets(crowd=False)
    fields = targets.map(torch.clone)
    fields.heat = torch.full_like(targets.heat, heat).requires_grad_(True)
    fields.short = torch.full_like(targets.short, short).requires_grad_(True)
    loss = score_loss(fields, targets, weights, tau_px=8.0)
    torch.autograd.backward(loss.total)
    assert loss.total.isfinite()
    for field in (fields.heat, fields.short):
        assert field.grad is not None and field.grad.isfinite().all()


def test_losses_that_count_for_nothing_are_refused() -> None:
    """Whatever the weights of others are, which this run does not take."""
    train = TrainConfig(weight_mask=0, weight_dice=0)
    assert train.weight_heat > 0
    with pytest.raises(ConfigError, match="weight_mask, weight_dice: one must be above 0"):
        total_loss({"mask": torch.ones(()), "dice": torch.ones(())}, train)


def test_gaussian_heatmaps_are_learnt_by_a_focal_loss() -> None:
    codec = replace(CODEC, heat="gaussian")
    sample = make_people([make_person(20, 10, 50)], SIZE)
    targets, weights, _ = encoded(sample, codec)

    def loss(heat: torch.Tensor) -> float:
        fields = targets.map(torch.clone)
        fields.heat = heat
        return float(values(pose_losses(fields, targets, weights, codec))["heat"])

    right = loss(torch.logit(targets.heat, eps=1e-6))
    assert right == pytest.approx(0, abs=1e-4), "no entropy of the target remains"
    assert loss(torch.full_like(targets.heat, -9.0)) > right + 1


POSE, MASKS = {"heat", "short", "mid"}, {"mask", "dice", "embedding", "instance"}


@pytest.mark.parametrize(
    ("parts", "refine", "names"),
    [
        ("[posenet]", False, POSE),
        ("[segnet]", False, MASKS),
        ("[posenet]", True, POSE),
        ("[segnet]", True, POSE | MASKS),
        ("[posenet, segnet]", False, POSE | MASKS),
    ],
)
def test_the_parts_that_learn_have_losses(parts: str, refine: bool, names: set[str]) -> None:
    """Where SegNet refines PoseNet's maps, they change although PoseNet is frozen."""
    targets, weights, instances = two_people()
    changes = [f"train.train={parts}", f"network.refine={refine}", "train.weight_score=0"]
    config = load_preset("kdc_light", changes)
    assert set(all_losses(targets, targets, weights, instances, CODEC, config)) == names


def test_edges_are_within_two_cells_of_a_border() -> None:
    mask = torch.zeros(1, 1, 12, 20, dtype=torch.bool)
    mask[..., 4:, 6:] = True
    edge = near_edge(mask, 2)[0, 0]
    assert edge[:, 0:4].sum() == 0 and edge[:2].sum() == 0
    assert edge[6:, 8:].sum() == 0, "inside"
    assert edge[2:6, 8:].all() and edge[6:, 4:8].all()
    for one in (torch.ones_like(mask), torch.zeros_like(mask)):
        assert not near_edge(one, 2).any(), "the image's border is none"
    assert not near_edge(mask, 2, known=mask).any(), "one side alone is known"


def test_errors_at_edges_weigh_more_in_the_cross_entropy_alone() -> None:
    _, targets, weights = fields_and_targets(crowd=False)
    edge = near_edge(targets.mask > 0.5, EDGE_CELLS, weights.mask > 0)
    assert 0 < edge.sum() < edge.numel() / 2

    def loss(wrong: torch.Tensor, weight: float) -> dict[str, torch.Tensor]:
        fields = targets.map(torch.clone)
        truth = torch.logit(targets.mask, eps=1e-3)
        fields.mask = torch.where(wrong, -truth, truth)
        return values(mask_losses(fields, targets, weights, weight_edge=weight))

    there, elsewhere = (
        {weight: loss(wrong, weight) for weight in (1.0, 20.0)} for wrong in (edge, ~edge)
    )
    assert there[20.0]["mask"] > there[1.0]["mask"]
    assert elsewhere[20.0]["mask"] < elsewhere[1.0]["mask"]
    for by_weight in (there, elsewhere):
        assert by_weight[20.0]["dice"] == by_weight[1.0]["dice"]


def test_divisors_shared_between_processes_add_up_to_one_process() -> None:
    """Two halves of a batch, each divided by the mean of both halves' divisors."""
    samples = [
        make_people([make_person(20, 10, 50)], SIZE),
        make_people([make_person(20, 10, 30), make_person(90, 10, 45)], SIZE),
    ]
    parts = [encoded(sample) for sample in samples]
    generator = torch.Generator().manual_seed(1)
    fields = [t.map(lambda a: torch.randn(a.shape, generator=generator)) for t, *_ in parts]

    def joined(one: Maps, two: Maps) -> Maps:
        pairs = zip(one.items(), two.items(), strict=True)
        return Fields(*(torch.cat((a, b)) for (_, a), (_, b) in pairs))

    (a_targets, a_weights, _), (b_targets, b_weights, _) = parts
    one = both(fields[0], a_targets, a_weights)
    two = both(fields[1], b_targets, b_weights)
    whole = both(joined(*fields), joined(a_targets, b_targets), joined(a_weights, b_weights))
    for name, value in values(whole).items():
        divisor = (one[name].divisor + two[name].divisor) / 2
        mean = (one[name].over(divisor) + two[name].over(divisor)) / 2
        assert mean == pytest.approx(float(value), rel=1e-4), name
