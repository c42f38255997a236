"""Targets drawn in torch for a batch are those drawn in numpy for each sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.codec.codec import Codec, Heat
from kdc_core.codec.encode import encode
from kdc_core.codec.encode_batch import encode_batch
from kdc_core.codec.grid import Grid
from kdc_core.codec.sample import Sample, Samples
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import DecodeConfig

from .conftest import make_people, make_person

SIZE = (96, 128)


def codec(
    offset: float, edges: tuple[str, ...], radius: float, fineness: int, heat: Heat
) -> Codec:
    grid = Grid(4, offset)
    return Codec(COCO17, grid, edges, radius, DecodeConfig(), fineness, heat)


def random_sample(seed: int, count: int) -> Sample:
    """People of all sizes, some without a mask, some without keypoints; crowds; unknown masks."""
    rng = np.random.default_rng(seed)
    people = [
        make_person(
            rng.uniform(-10, SIZE[1] - 10), rng.uniform(-10, SIZE[0] - 20), rng.uniform(4, 60)
        )
        for _ in range(count)
    ]
    for person in people:
        person[rng.random(17) < rng.choice([0.1, 0.5, 1.0])] = 0
        outside = (person[:, 0] > SIZE[1]) | (person[:, 1] > SIZE[0]) | (person[:, :2] < 0).any(1)
        person[outside] = 0
    places = [[*rng.uniform(0, (SIZE[1] - 9, SIZE[0] - 9))] for _ in range(count)]
    sides = rng.uniform(2, 50, (count, 2))
    boxes = [
        [x, y, min(x + w, SIZE[1] - 1), min(y + h, SIZE[0] - 1)]
        for (x, y), (w, h) in zip(places, sides, strict=True)
    ]
    sample = make_people(people, SIZE, boxes)
    sample.masks[rng.random(count) < 0.3] = False
    for region, chance in ((sample.crowd, 0.4), (sample.unmasked, 0.6)):
        if rng.random() < chance:
            y, x = rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1])
            region[y : y + rng.integers(1, 50), x : x + rng.integers(1, 50)] = True
    return sample


def batch(samples: list[Sample]) -> Samples:
    most = max(len(sample.boxes) for sample in samples)

    def padded(values: list[np.ndarray]) -> torch.Tensor:
        rows = [np.pad(v, [(0, most - len(v))] + [(0, 0)] * (v.ndim - 1)) for v in values]
        return torch.from_numpy(np.stack(rows))

    labels = [
        sum((index + 1) * mask.astype(np.int64) for index, mask in enumerate(sample.masks))
        + np.zeros(SIZE, np.int64)
        for sample in samples
    ]
    return Samples(
        torch.zeros((len(samples), 3, *SIZE), dtype=torch.uint8),
        torch.from_numpy(np.stack(labels)),
        padded([sample.keypoints.reshape(-1, 17, 3) for sample in samples]),
        padded([sample.boxes.reshape(-1, 4) for sample in samples]),
        padded([np.ones(len(sample.boxes), bool) for sample in samples]),
        torch.from_numpy(np.stack([sample.crowd for sample in samples])),
        torch.from_numpy(np.stack([sample.unmasked for sample in samples])),
    )


@pytest.mark.parametrize(
    ("offset", "edges", "radius", "fineness", "heat"),
    [
        (0.0, ("star_out",), 16.0, 2, "gaussian"),
        (0.0, ("tree", "star"), 16.0, 1, "disk"),
        (1.5, ("tree",), 9.0, 1, "disk"),
    ],
)
@given(seed=st.integers(0, 2**32 - 1), counts=st.lists(st.integers(0, 10), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_a_batch_in_torch_equals_its_samples_in_numpy(
    offset: float,
    edges: tuple[str, ...],
    radius: float,
    fineness: int,
    heat: Heat,
    seed: int,
    counts: list[int],
) -> None:
    own = codec(offset, edges, radius, fineness, heat)
    samples = [random_sample(seed + index, count) for index, count in enumerate(counts)]
    together = encode_batch(batch(samples), own)
    for index, sample in enumerate(samples):
        for found, wanted in zip(together, encode(sample, own), strict=True):
            for name, value in vars(wanted).items():
                got = getattr(found, name)[index].numpy()
                assert np.abs(got - value[0]).max(initial=0) < 2e-4, (name, index)


def test_random_samples_have_everything() -> None:
    """What the test above is of: each kind of person and region comes up."""
    samples = [random_sample(seed, 6) for seed in range(30)]
    labelled = np.concatenate([(sample.keypoints[..., 2] > 0).sum(1) for sample in samples])
    masked = np.concatenate([sample.masks.any((1, 2)) for sample in samples])
    assert (labelled == 0).any() and (labelled > 10).any()
    assert masked.any() and not masked.all()
    assert any(s.crowd.any() for s in samples) and any(s.unmasked.any() for s in samples)
