"""The part of the image that is processed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdc_core.codec.results import Person, Prediction
from kdc_ros.region import OutsideError, Region


@given(st.tuples(*[st.integers(0, 4096)] * 2), st.tuples(*[st.integers(1, 4096)] * 2))
def test_what_is_written_is_read(place: tuple[int, int], size: tuple[int, int]) -> None:
    region = Region(*place, *size)
    assert Region.parse(f" {region.x}, {region.y},{region.width} ,{region.height} ") == region


@pytest.mark.parametrize(
    "text", ["1", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,5,5", "0,0,0,5", "1.5,0,5,5", "1 2 3 4"]
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="X,Y,WIDTH,HEIGHT"):
        Region.parse(text)


def test_nothing_is_the_whole_image() -> None:
    assert Region.parse("") is None and Region.parse("  ") is None


def test_people_come_back_to_the_pixels_they_were_cut_from() -> None:
    image = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    region = Region(7, 5, 20, 30)
    part = region.cut(image)
    assert part.shape == (30, 20, 3)
    keypoints = np.array([[3.0, 4.0, 0.9]] * 17, np.float32)
    box = np.array([1, 2, 4, 6], np.float32)
    centroids = np.array([[0, 3, 4, 1]], np.float32)
    person = Person(0.9, keypoints, box, np.ones((4, 3), bool), (1, 2), centroids)
    found = region.back(Prediction((30, 20), (person,), {"model": 1.0}), (40, 60))
    assert found.size == (40, 60) and found.timings_ms == {"model": 1.0}
    moved = found.persons[0]
    assert (image[4 + 5, 3 + 7] == part[4, 3]).all()
    assert moved.keypoints[0].tolist() == pytest.approx([10, 9, 0.9])
    assert moved.box.tolist() == [8, 7, 11, 11]
    assert moved.centroids[0].tolist() == [0, 10, 9, 1]
    assert (found.labels > 0).sum() == 12 and (found.labels[7:11, 8:11] == 1).all()
    assert keypoints[0, 0] == 3, "the person before is as it was"


@pytest.mark.parametrize("region", [Region(50, 0, 11, 5), Region(0, 39, 5, 2)])
def test_a_region_that_reaches_out_of_the_image_is_refused(region: Region) -> None:
    with pytest.raises(OutsideError, match="60 wide and 40 high"):
        region.cut(np.zeros((40, 60, 3), np.uint8))


@pytest.mark.parametrize("region", [Region(0, 0, 60, 40), Region(50, 30, 10, 10)])
def test_a_region_may_reach_to_the_border(region: Region) -> None:
    part = region.cut(np.zeros((40, 60, 3), np.uint8))
    assert part.shape == (*region.size, 3)
