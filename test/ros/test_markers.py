"""Markers of people in metres."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.show.drawing import color_of
from kdc_ros.markers import Markers

from .scene import SIZE, STANDING, person_of, project, surface

HEADER = Header(stamp=Time(sec=5, nanosec=6), frame_id="camera_optical")
PLACES = np.stack([STANDING + (0, 0, 2), STANDING + (1, 0, 3)]).astype(np.float32)
PERSON = person_of(np.isfinite(surface(PLACES[0])), project(PLACES[0]))
TWO = Prediction(SIZE, (replace(PERSON, id=17), replace(PERSON, id=300)))
KINDS = {
    "keypoints": Marker.SPHERE_LIST,
    "bones": Marker.LINE_LIST,
    "ids": Marker.TEXT_VIEW_FACING,
}


@pytest.fixture
def markers() -> Markers:
    return Markers()


def by_name(array: MarkerArray) -> dict[tuple[str, int], Marker]:
    found = {(marker.ns, marker.id): marker for marker in array.markers}
    assert len(found) == len(array.markers), "two markers of one name"
    return found


def coordinates(points: list[object]) -> np.ndarray:
    return np.array([[getattr(point, axis) for axis in "xyz"] for point in points])


def test_each_person_has_keypoints_bones_and_its_id(markers: Markers) -> None:
    array = markers(HEADER, TWO, PLACES, COCO17)
    found = by_name(array)
    assert set(found) == {(ns, id) for ns in KINDS for id in (17, 300)}
    for (ns, id), marker in found.items():
        places = PLACES[(17, 300).index(id)]
        assert marker.header == HEADER and marker.type == KINDS[ns]
        assert marker.action == Marker.ADD and marker.pose.orientation.w == 1.0
        assert (marker.lifetime.sec, marker.lifetime.nanosec) == (0, 500_000_000)
        color = marker.color
        assert np.allclose((color.r, color.g, color.b), color_of(PERSON, id - 1) / 255)
        assert color.a == 1.0
        if ns == "keypoints":
            assert np.allclose(coordinates(marker.points), places)
        if ns == "bones":
            ends = places[np.array(COCO17.bones)].reshape(-1, 3)
            assert np.allclose(coordinates(marker.points), ends)
        if ns == "ids":
            assert marker.text == str(id)
            above = marker.pose.position.y
            assert places[:, 1].min() - 0.5 < above < places[:, 1].min(), "y is down"


def test_only_what_has_a_place_is_shown(markers: Markers) -> None:
    places = PLACES.copy()
    places[0, [7, 9]] = np.nan  # the left elbow and wrist
    places[1] = np.nan
    found = by_name(markers(HEADER, TWO, places, COCO17))
    assert set(found) == {(ns, 17) for ns in KINDS}
    assert len(found["keypoints", 17].points) == 15
    assert len(found["bones", 17].points) == 2 * (len(COCO17.bones) - 2)
    assert np.isfinite(coordinates(found["bones", 17].points)).all()


def test_a_single_keypoint_has_no_bones(markers: Markers) -> None:
    places = np.full_like(PLACES, np.nan)
    places[0, 3] = 0.0, 0.0, 2.0
    found = by_name(markers(HEADER, TWO, places, COCO17))
    assert set(found) == {("keypoints", 17), ("ids", 17)}


def test_who_has_left_is_taken_down_once(markers: Markers) -> None:
    markers(HEADER, TWO, PLACES, COCO17)
    one = Prediction(SIZE, TWO.persons[:1])
    found = by_name(markers(HEADER, one, PLACES[:1], COCO17))
    assert {name for name, m in found.items() if m.action == Marker.DELETE} == {
        (ns, 300) for ns in KINDS
    }
    assert {name for name, m in found.items() if m.action == Marker.ADD} == {
        (ns, 17) for ns in KINDS
    }
    nobody = Prediction(SIZE, ())
    gone = markers(HEADER, nobody, PLACES[:0], COCO17).markers
    assert {(m.ns, m.id, m.action) for m in gone} == {(ns, 17, Marker.DELETE) for ns in KINDS}
    assert all(marker.header == HEADER for marker in gone)
    assert not markers(HEADER, nobody, PLACES[:0], COCO17).markers


def test_what_nobody_saw_is_not_taken_down(markers: Markers) -> None:
    markers(HEADER, TWO, PLACES, COCO17)
    markers.forget()
    assert not markers(HEADER, Prediction(SIZE, ()), PLACES[:0], COCO17).markers
