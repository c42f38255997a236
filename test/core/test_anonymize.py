"""Pictures that show nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.show.anonymize import FILL, hide_people

SIZE = (200, 300)
NOISE = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
# A person of 40 x 80 pixels: a mask in which neighbours differ.
LEFT, TOP, WIDTH, HEIGHT = 100, 60, 40, 80
STYLES = pytest.mark.parametrize("fill", [False, True], ids=["pixelate", "fill"])


def person(
    left: int = LEFT, top: int = TOP, width: int = WIDTH, height: int = HEIGHT, masked: bool = True
) -> Person:
    """A rectangle whose keypoints have no score."""
    box = np.array([left - 0.5, top - 0.5, left + width - 0.5, top + height - 0.5], np.float32)
    return Person(
        score=0.9,
        keypoints=np.zeros((17, 3), np.float32),
        box=box,
        mask=np.ones((height, width) if masked else (0, 0), bool),
        mask_origin=(left, top) if masked else (0, 0),
        centroids=np.zeros((0, 4), np.float32),
    )


def hide(*persons: Person, fill: bool, seen: tuple[slice, slice] | None = None) -> np.ndarray:
    return hide_people(NOISE, Prediction(SIZE, persons), COCO17, fill, seen)


def rectangle(grown: int = 0) -> np.ndarray:
    """(H, W) bool, where the person of these tests is."""
    mask = np.zeros(SIZE, bool)
    mask[TOP - grown : TOP + HEIGHT + grown, LEFT - grown : LEFT + WIDTH + grown] = True
    return mask


@STYLES
def test_the_mask_and_a_little_more_is_hidden_and_nothing_else(fill: bool) -> None:
    before = NOISE.copy()
    hidden = hide(person(), fill=fill)
    changed = (hidden != NOISE).any(-1)
    # Of noise next to no pixel is by chance as the average of its block.
    assert changed[rectangle(grown=1)].mean() > 0.99
    assert not changed[~rectangle(grown=4)].any()
    assert (NOISE == before).all(), "the image itself was changed"


@STYLES
def test_where_nobody_is_the_image_stays(fill: bool) -> None:
    hidden = hide(fill=fill)
    assert (hidden == NOISE).all() and hidden is not NOISE


def test_filled_people_are_gray() -> None:
    assert (hide(person(), fill=True)[rectangle()] == FILL).all()


def test_pixelated_people_are_a_few_blocks() -> None:
    """Of 40 x 80 pixels and what is near them; a face is less than a third of a body."""
    hidden = hide(person(), fill=False)[rectangle()]
    assert 20 < len(np.unique(hidden, axis=0)) < 100
    large = hide(person(0, 0, 300, 200), fill=False)
    assert len(np.unique(large.reshape(-1, 3), axis=0)) < 150


def test_a_face_from_nearby_is_a_few_blocks() -> None:
    """Where the face is all that is seen, blocks go by it and not by a body."""
    somebody = person(50, 0, 160, 200)
    somebody.keypoints[:5] = [
        (130, 110, 0.9),
        (105, 80, 0.9),
        (155, 80, 0.9),
        (65, 90, 0.9),
        (195, 90, 0.9),
    ]
    hidden = hide(somebody, fill=False)[0:200, 50:210]
    assert 4 < len(np.unique(hidden.reshape(-1, 3), axis=0)) < 40


@STYLES
def test_of_a_person_without_a_mask_the_box_is_hidden(fill: bool) -> None:
    changed = (hide(person(masked=False), fill=fill) != NOISE).any(-1)
    assert changed[rectangle()].mean() > 0.99


@STYLES
@pytest.mark.parametrize("score", [0.0, 0.15])
def test_a_face_that_the_mask_left_out_is_hidden(fill: bool, score: float) -> None:
    """As is what lies between the keypoints; keypoints of no score at all say nothing."""
    somebody = person()
    eyes = [COCO17.keypoints.index(name) for name in ("left_eye", "right_eye")]
    somebody.keypoints[eyes] = [(115, 40, score), (125, 40, score)]
    changed = (hide(somebody, fill=fill) != NOISE).any(-1)
    assert (changed[33:47, 113:127].mean() > 0.98) == (score > 0)


@STYLES
def test_a_limb_that_the_mask_left_out_is_hidden(fill: bool) -> None:
    somebody = person()
    arm = [COCO17.keypoints.index(f"left_{name}") for name in ("shoulder", "elbow", "wrist")]
    somebody.keypoints[arm] = [(130, 80, 0.5), (170, 80, 0.5), (170, 40, 0.5)]
    changed = (hide(somebody, fill=fill) != NOISE).any(-1)
    assert changed[79:82, 130:170].mean() > 0.95 and changed[40:80, 169:172].mean() > 0.95


@STYLES
def test_people_at_and_beyond_the_border_are_hidden(fill: bool) -> None:
    somebody = person(0, 120, 30, 80)
    somebody.keypoints[:2] = [(-50, 250, 0.9), (1e4, -1e4, 0.9)]
    hidden = hide(somebody, fill=fill)
    assert (hidden[120:, :30] != NOISE[120:, :30]).any(-1).mean() > 0.99
    away = replace(person(masked=False), box=np.array([-90, -80, -50, -10], np.float32))
    assert (hide(away, fill=fill) == NOISE).all()


def test_a_small_person_in_front_does_not_show_a_large_one_in_small_blocks() -> None:
    large, small = person(0, 0, 280, 200), person(40, 40, 24, 40)
    alone = hide(large, fill=False)
    both = hide(small, large, fill=False)
    assert (both[40:80, 40:64] == alone[40:80, 40:64]).all()


@STYLES
def test_what_nobody_looked_at_is_hidden(fill: bool) -> None:
    seen = (slice(50, 150), slice(80, 200))
    hidden = hide(person(), fill=fill, seen=seen)
    inside = hide(person(), fill=fill)
    assert (hidden[seen] == inside[seen]).all()
    outside = np.ones(SIZE, bool)
    outside[seen] = False
    assert (hidden != NOISE).any(-1)[outside].mean() > 0.99


@STYLES
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_a_keypoint_that_is_nowhere_shows_nobody(fill: bool, value: float) -> None:
    somebody = person()
    somebody.keypoints[:] = (120, 100, 0.9)
    somebody.keypoints[[0, 12], [0, 1]] = value
    changed = (hide(somebody, fill=fill) != NOISE).any(-1)
    assert changed[rectangle()].mean() > 0.99


def test_a_box_that_is_no_numbers_is_refused() -> None:
    somebody = replace(person(), box=np.array([100, np.nan, 140, 140], np.float32))
    with pytest.raises(ValueError, match="expected numbers, got"):
        hide(somebody, fill=True)
