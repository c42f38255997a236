"""Results: one person's mask, and the labels of all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import find_objects

from kdc_core import Person, Prediction
from kdc_core.inference.assembly import extents

SIZE = (12, 16)
Window = tuple[int, int, int, int]


def person(x: int, y: int, width: int, height: int) -> Person:
    box = np.array([x, y, x + width, y + height], np.float32) - 0.5
    keypoints, centroids = np.zeros((17, 3), np.float32), np.zeros((0, 4), np.float32)
    return Person(0.5, keypoints, box, np.ones((height, width), bool), (x, y), centroids)


windows = st.tuples(st.integers(0, 12), st.integers(0, 8), st.integers(0, 4), st.integers(0, 4))


@given(st.lists(windows, max_size=5))
def test_a_pixel_s_label_is_the_first_person_that_covers_it(places: list[Window]) -> None:
    prediction = Prediction(SIZE, tuple(person(*place) for place in places))
    labels = prediction.labels
    assert labels.shape == SIZE and labels.dtype == np.uint16
    full = [p.full_mask(SIZE) for p in prediction.persons]
    for row, column in np.ndindex(SIZE):
        covering = [index + 1 for index, mask in enumerate(full) if mask[row, column]]
        assert labels[row, column] == (covering[0] if covering else 0)
    assert [p.area for p in prediction.persons] == [mask.sum() for mask in full]
    assert prediction.labels is labels, "made once"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"keypoints": np.zeros((17, 2))}, "keypoints"),
        ({"box": np.zeros((2, 2))}, "box"),
        ({"mask": np.zeros(4)}, "mask"),
        ({"centroids": np.zeros(3)}, "centroids"),
    ],
)
def test_arrays_of_another_shape_are_refused(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected shape"):
        replace(person(1, 1, 2, 2), **change)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_extents_are_what_scipy_finds(seed: int, height: int, width: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    some = rng.choice(people + 1, size=rng.integers(1, people + 2), replace=False)
    labels = rng.choice(some, (height, width)).astype(np.uint8)
    places = find_objects(labels, max_label=people) if people else []
    expected = [(0, 0, 0, 0) if at is None else corners(*at) for at in places]
    assert list(map(tuple, extents(labels, people).tolist())) == expected


def corners(rows: slice, columns: slice) -> tuple[int, int, int, int]:
    return columns.start, rows.start, columns.stop, rows.stop
