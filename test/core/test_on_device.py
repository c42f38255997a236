"""Samples made on the device are those that OpenCV makes, but for how pixels are interpolated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdc_core.config_file import load_preset
from kdc_core.data.augment import moved_boxes
from kdc_core.network.kdc import KDC
from kdc_core.training.affine import ellipse_boxes
from kdc_core.training.module import TrainingModule
from kdc_core.training.on_device import (
    MOST_PEOPLE,
    DeviceImages,
    DrawnSamples,
    Recipes,
    fits,
)
from kdc_core.training.samples import Batch, TrainingSamples, collate

from .conftest import SAMPLES

NUMBERS = range(24)


@pytest.fixture(scope="module")
def samples() -> TrainingSamples:
    changes = [
        "train.crop=192",
        "train.paste=0.6",
        "train.rotate_degrees=15",
        "train.longer_side=[150, 500]",
        "train.heat=gaussian",
        "network.detail=true",
    ]
    return TrainingSamples([str(SAMPLES)], load_preset("kdc_light", changes))


@pytest.fixture(scope="module")
def pictures(samples: TrainingSamples) -> DeviceImages:
    return DeviceImages(samples, torch.device("cpu"), 2)


@pytest.fixture(scope="module")
def recipes(samples: TrainingSamples, pictures: DeviceImages) -> Recipes:
    drawn = DrawnSamples(samples, pictures.places)
    return collate([drawn[number] for number in NUMBERS])


@pytest.fixture(scope="module")
def both(
    samples: TrainingSamples, pictures: DeviceImages, recipes: Recipes
) -> tuple[Batch, Batch]:
    return collate([samples[number] for number in NUMBERS]), pictures.make(recipes)


def test_what_is_drawn_has_people_pasted_and_mirrored(recipes: Recipes) -> None:
    assert 0 < (recipes.person > 0).sum() < len(NUMBERS)
    assert 0 < recipes.mirror.sum() < len(NUMBERS)
    assert recipes.numbers == list(NUMBERS)


def test_the_pictures_look_alike(both: tuple[Batch, Batch]) -> None:
    ours, made = (batch.image.float() for batch in both)
    assert made.shape == ours.shape
    difference = (ours - made).abs().mean((1, 2, 3))
    # Of two pictures that show different things it is tens.
    assert difference.max() < 6 and difference.median() < 3


def test_what_lies_outside_a_picture_is_black(both: tuple[Batch, Batch]) -> None:
    ours, made = (batch.image.amax(1) for batch in both)
    outside = ours == 0
    assert outside.float().mean() > 0.02
    assert (made[outside] < 2).float().mean() > 0.98


def test_boxes_come_to_lie_at_the_same_places(recipes: Recipes) -> None:
    boxes = 300 * torch.rand(len(NUMBERS), 5, 4).sort(-1).values[..., [0, 1, 3, 2]]
    found = ellipse_boxes(recipes.matrix, boxes)
    for matrix, before, after in zip(recipes.matrix, boxes, found, strict=True):
        expected = moved_boxes(before.numpy(), matrix.numpy())
        assert after.numpy() == pytest.approx(expected, abs=1e-2)


def test_keypoints_come_to_lie_at_the_same_places(both: tuple[Batch, Batch]) -> None:
    ours, made = both
    heat = (ours.targets.heat[:, :17] - made.targets.heat[:, :17]).abs()
    assert ours.targets.heat.amax() > 0.9
    # Of a pasted person a box is cut otherwise, and with it the width of the Gaussian.
    assert heat.amax() < 0.25 and heat.mean() < 1e-3
    known = (ours.weights.short > 0) & (made.weights.short > 0)
    assert known.sum() > 0.98 * (ours.weights.short > 0).sum()
    short = (ours.targets.short - made.targets.short).abs() * known
    assert short.quantile(0.999) < 0.1 if short.numel() < 2**24 else short.amax() < 40


def test_masks_cover_the_same_cells(both: tuple[Batch, Batch]) -> None:
    ours, made = both
    assert (ours.weights.mask - made.weights.mask).abs().mean() < 0.01
    mask = (ours.targets.mask - made.targets.mask).abs() * ours.weights.mask
    assert ours.targets.mask.mean() > 0.05
    assert mask.mean() < 0.01
    shared = (ours.weights.embedding > 0) & (made.weights.embedding > 0)
    assert shared.sum() > 0.95 * (ours.weights.embedding > 0).sum()


def test_the_module_makes_batches_of_what_was_drawn(
    samples: TrainingSamples, pictures: DeviceImages, recipes: Recipes
) -> None:
    module = TrainingModule(KDC(samples.config), samples.steps, samples.names)
    module.make = pictures.make
    few = Recipes(*(part[:2] for part in recipes))  # type: ignore[arg-type]
    batch = module.on_after_batch_transfer(few, 0)
    assert isinstance(batch, Batch) and batch.numbers == list(NUMBERS)[:2]
    module.on_train_start()
    assert torch.isfinite(module.training_step(batch, 0)["loss"])
    assert module.on_after_batch_transfer(batch, 0) is batch


def test_a_picture_that_cannot_be_read_is_replaced_and_noted(
    samples: TrainingSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = samples.read
    monkeypatch.setattr(samples, "read", lambda index: read(index + 1 if index == 2 else index))
    held = DeviceImages(samples, torch.device("cpu"), 1)
    wanted = np.arange(samples.num_images)
    wanted[2] = 3
    assert (held.places == wanted).all()
    drawn = DrawnSamples(samples, held.places)
    assert all(2 not in (drawn[n].image, drawn[n].donor) for n in range(60))


def test_the_cpu_keeps_its_loader(samples: TrainingSamples) -> None:
    assert not fits(samples, torch.device("cpu"))


def test_more_people_than_labels_tell_apart_keep_the_loader(
    samples: TrainingSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1 << 60, 1 << 60))
    assert fits(samples, torch.device("cuda"))
    monkeypatch.setattr(samples, "most_people", lambda: MOST_PEOPLE + 1)
    assert not fits(samples, torch.device("cuda"))
