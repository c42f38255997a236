"""Overlays: what is drawn of people near and far, few and many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdc_core.bench.frames import paste_people
from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.inference.predictor import Predictor
from kdc_core.show.drawing import MASK_ALPHA, PALETTE, RING, draw_people


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("kdc_light", threads=2)


# Fractions of a person's width and height: face, then a row each from shoulders to ankles.
FACE = ((0.5, 0.08), (0.55, 0.06), (0.45, 0.06), (0.6, 0.07), (0.4, 0.07))
BODY = tuple((x, y) for y in (0.2, 0.35, 0.48, 0.5, 0.72, 0.95) for x in (0.75, 0.25))


def person(height: int, at: tuple[int, int], number: int | None = None) -> Person:
    """A standing person, its mask the whole box, with nose, shoulders and hips as centroids."""
    width, (x, y) = height // 3, at
    keypoints = np.ones((COCO17.num_keypoints, 3), np.float32)
    keypoints[:, :2] = np.array(FACE + BODY) * (width, height) + at
    centroids = np.insert(keypoints, 0, np.arange(len(keypoints)), 1)[[0, 5, 6, 11, 12]]
    box = np.array([x, y, x + width, y + height], np.float32)
    return Person(0.9, keypoints, box, np.ones((height, width), bool), at, centroids, number)


def test_drawing_leaves_the_image_and_touches_people_only(predictor: Predictor) -> None:
    image = paste_people(12)
    before = image.copy()
    prediction = predictor(image)
    drawn = draw_people(image, prediction, COCO17, 0.3)
    assert (image == before).all()
    changed = (drawn != image).any(-1)
    assert len(prediction) >= 8 and changed[prediction.labels > 0].mean() > 0.9
    nobody = Prediction(prediction.size, ())
    assert (draw_people(image, nobody, COCO17, 0.3) == image).all()


@pytest.mark.parametrize("height", [40, 60, 120, 240, 460])
def test_bones_and_rings_leave_a_person_to_be_seen_near_or_far(height: int) -> None:
    """A third of a mask of 13 by 40 pixels shows the tinted image, of larger ones more."""
    image = np.full((480, 640, 3), 100, np.uint8)
    shown = Prediction((480, 640), (person(height, (300, 15), 3),))
    drawn = draw_people(image, shown, COCO17, 0.3)
    tint = 100 * (1 - MASK_ALPHA) + MASK_ALPHA * PALETTE[2]
    inside = drawn[15 : 15 + height, 300 : 300 + height // 3]
    seen = (np.abs(inside - tint).max(-1) < 3).mean()
    assert 0.3 < seen < 0.95  # and something is drawn


def test_a_ring_is_as_wide_as_the_person_is_large() -> None:
    widths = []
    for height in (60, 120, 240):
        whole = person(height, (300, 15), 3)
        one = replace(whole, centroids=whole.centroids[3:4])
        drawn = draw_people(np.zeros((480, 640, 3), np.uint8), _only(one), COCO17, 0.3)
        rows, columns = np.nonzero((np.abs(drawn.astype(int) - RING).max(-1) < 60)[: 15 + height])
        near = columns[np.abs(rows - one.centroids[0, 2]) < height / 8]
        widths.append(np.ptp(near))
    assert 1.3 < widths[1] / widths[0] < 2.7 and 1.3 < widths[2] / widths[1] < 2.7


def _only(shown: Person) -> Prediction:
    return Prediction((480, 640), (shown,))


def test_the_color_follows_the_id() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    first, second = person(200, (50, 200), 5), person(200, (400, 200), 9)
    drawn = draw_people(image, Prediction((480, 640), (first, second)), COCO17, 0.3)
    turned = draw_people(image, Prediction((480, 640), (second, first)), COCO17, 0.3)
    assert (drawn == turned).all()
    other = draw_people(image, _only(replace(first, id=6)), COCO17, 0.3)
    assert (other[210:390, 60:110] != drawn[210:390, 60:110]).any(-1).mean() > 0.5


def test_a_legend_says_what_rings_are_where_there_are_rings_and_room() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    whole = person(200, (400, 20), 3)
    corner = np.s_[440:, :200]
    assert draw_people(image, _only(whole), COCO17, 0.3)[corner].any()
    bare = replace(whole, centroids=np.zeros((0, 4), np.float32))
    assert not draw_people(image, _only(bare), COCO17, 0.3)[corner].any()
    small = np.zeros((64, 96, 3), np.uint8)
    far = Prediction((64, 96), (person(30, (60, 5), 3),))
    assert not draw_people(small, far, COCO17, 0.3)[40:, :40].any()


def test_thirty_people_have_a_legible_number_each() -> None:
    """Every caption shows its whole ground: none is hidden by another's lines or caption."""
    places = [(10 + 62 * (n % 10), 30 + 150 * (n // 10)) for n in range(30)]
    people = tuple(person(120, place, n + 1) for n, place in enumerate(places))
    drawn = draw_people(
        np.zeros((480, 640, 3), np.uint8), Prediction((480, 640), people), COCO17, 0.3
    )
    for number, (x, y) in enumerate(places):
        ground = (drawn[y - 9 : y, x : x + 8] == PALETTE[number % len(PALETTE)]).all(-1)
        assert ground.mean() > 0.3, f"number {number + 1}"


def test_people_partly_outside_are_drawn() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    keypoints = np.array([(-1e9, 3e9, 1.0)] * COCO17.num_keypoints, np.float32)
    box = np.array([-40, -40, 5, 3], np.float32)
    nowhere = Person(
        0.9, keypoints, box, np.zeros((0, 0), bool), (0, 0), keypoints[:0, [0, 0, 1, 2]]
    )
    assert draw_people(image, _only(nowhere), COCO17, 0.3).any()
