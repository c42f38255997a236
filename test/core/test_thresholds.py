"""People assembled with low thresholds, and what the real ones leave of them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from kdc_core.codec.grid import Grid, Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.config import DecodeConfig
from kdc_core.inference.assembly import Raw, Thresholds, assemble, narrowed

IMAGE = (90, 120)
PEOPLE = 12


def raw(seed: int) -> Raw:
    """People of any score; some have no pixel, and some no keypoint that counts."""
    random = np.random.default_rng(seed)
    keypoints = random.random((PEOPLE, 17, 3)).astype(np.float32)
    keypoints[..., :2] *= 100
    keypoints[random.random(PEOPLE) < 0.3, :, 2] *= 0.2
    return Raw(
        score=random.random(PEOPLE).astype(np.float32) * 3,
        keypoints=keypoints,
        centroids=np.concatenate((keypoints, keypoints[..., 2:]), -1)[..., [2, 0, 1, 3]],
        owner=random.integers(0, PEOPLE // 2 + 1, (24, 32)).astype(np.int32),
        mask_probability=random.random((24, 32)).astype(np.float32),
    )


def assembled(seed: int, thresholds: Thresholds) -> Prediction:
    letterbox = Letterbox.into(IMAGE, (96, 128))
    return assemble(raw(seed), letterbox, IMAGE, Grid(4), thresholds)


@pytest.mark.parametrize(
    "thresholds",
    [
        Thresholds(0.4, 0.3, 0.5),
        Thresholds(0.02, 0.3, 0.5, max_persons=3),
        Thresholds(0.4, 0.9, 0.9, max_persons=2),
        Thresholds(0.0, 1.0, 1.0),
    ],
)
def test_lowered_and_narrowed_again_nothing_changes(thresholds: Thresholds) -> None:
    """So that whoever wants unsure people too does not change what the others get."""
    counts = []
    for seed in range(20):
        wanted = assembled(seed, thresholds)
        wide = assembled(seed, thresholds.lowered(0.1))
        found = narrowed(wide, thresholds)
        assert len(wide) >= len(found) == len(wanted)
        for ours, theirs in zip(found.persons, wanted.persons, strict=True):
            for part in fields(ours):
                assert np.array_equal(getattr(ours, part.name), getattr(theirs, part.name)), part
        counts.append((len(wide), len(found)))
    assert any(more > fewer for more, fewer in counts), "nothing was there to be left out"


def test_lowered_keeps_a_lower_confidence_and_the_masks() -> None:
    assert Thresholds(0.5, 0.3, 0.7, 4).lowered(0.1) == Thresholds(0.1, 0.0, 0.7)
    assert Thresholds(0.05, 0.3, 0.7).lowered(0.1).confidence == 0.05
    most = DecodeConfig.model_fields["people"].metadata
    assert any(getattr(bound, "le", 0) == Thresholds(0.5, 0.3, 0.7).max_persons for bound in most)
