"""Keypoints in metres, from depth of known geometry."""

from __future__ import annotations

import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_ros.images import BadFrame
from kdc_ros.lifting import (
    KEYPOINT_3D,
    Pinhole,
    body_range,
    depth_plane,
    keypoint_3d_rows,
    keypoint_depths,
    lift,
    pinhole_of,
    to_metres,
)

from .scene import (
    CX,
    CY,
    FX,
    FY,
    SIZE,
    STANDING,
    camera_info,
    depth_image,
    person_of,
    project,
    surface,
)

CAMERA = Pinhole(FX, FY, CX, CY)
THRESHOLD, DEPTH_MAX = 0.3, 10.0
TWO_CM = 0.02
FORMS = [
    (encoding, big, padding)
    for encoding in ("16UC1", "32FC1")
    for big in (False, True)
    for padding in (0, 3)
]
BODY = STANDING + (0.1, 0.05, 2.0)
DEPTH = surface(BODY)
MASK = np.isfinite(DEPTH)
PIXELS = project(BODY)


def on_surface(depth: np.ndarray, pixels: np.ndarray = PIXELS) -> np.ndarray:
    """The true places of keypoints: (K, 3), on what is seen at their pixels."""
    x, y = np.rint(pixels).astype(int).T
    z = depth[y, x]
    return np.stack([(pixels[:, 0] - CX) / FX * z, (pixels[:, 1] - CY) / FY * z, z], 1)


def lifted(mask: np.ndarray, depth: np.ndarray, pixels: np.ndarray = PIXELS) -> np.ndarray:
    """(K, 3) metres of one person in a depth image of millimetres."""
    prediction = Prediction(SIZE, (person_of(mask, pixels),))
    plane = depth_plane(depth_image(depth), SIZE)
    return lift(prediction, plane, CAMERA, THRESHOLD, DEPTH_MAX)[0]


def off(places: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places - truth, axis=-1)


def wide(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask that goes over its person's border by so many pixels."""
    side = 2 * pixels + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


# Known geometry


@pytest.mark.parametrize(("encoding", "big", "padding"), FORMS)
def test_a_body_two_metres_away_is_lifted_to_two_centimetres(
    encoding: str, big: bool, padding: int
) -> None:
    message = depth_image(np.where(MASK, DEPTH, 4.0), encoding, big, padding)
    prediction = Prediction(SIZE, (person_of(MASK, PIXELS),))
    places = lift(prediction, depth_plane(message, SIZE), CAMERA, THRESHOLD, DEPTH_MAX)
    assert places.shape == (1, 17, 3) and places.dtype == np.float32
    assert off(places[0], on_surface(DEPTH)).max() <= TWO_CM


@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_a_slanted_board_is_lifted_to_two_centimetres(slope: float) -> None:
    """Depth grows by `slope` metres a metre to the right."""
    rays = (np.arange(SIZE[1]) - CX) / FX
    depth = np.broadcast_to(2.0 / (1 - slope * rays), SIZE)
    places = lifted(MASK, np.where(MASK, depth, 6.0))
    x, y, z = places.T
    assert np.abs(z - (2.0 + slope * x)).max() <= TWO_CM
    assert np.allclose(project(places), PIXELS, atol=1e-3)


@given(
    x=st.floats(-0.8, 0.8),
    y=st.floats(-0.6, 0.6),
    z=st.floats(0.5, 9.5),
    wall=st.floats(0.1, 5.0),
)
def test_what_is_projected_is_lifted_back(x: float, y: float, z: float, wall: float) -> None:
    place = np.array([[x, y, 2.0]]) * z / 2
    pixel = project(place)
    mask = np.zeros(SIZE, bool)
    column, row = np.rint(pixel[0]).astype(int).clip(3, (SIZE[1] - 4, SIZE[0] - 4))
    mask[row - 3 : row + 4, column - 3 : column + 4] = True
    back = lifted(mask, np.where(mask, z, z + wall), pixel)
    assert np.allclose(back, place, atol=1e-3 + 0.001 * z)


# What must not supply depth


@pytest.mark.parametrize("wall", [2.5, 3.0, 5.0])
@pytest.mark.parametrize("aside", [-3.0, 3.0])
def test_neither_the_wall_nor_mixed_edges_are_taken_where_the_mask_is_too_wide(
    wall: float, aside: float
) -> None:
    """Keypoints at the body's border, in a mask two pixels too wide, by a camera that blurs."""
    blurred = cv2.blur(np.where(MASK, DEPTH, wall), (3, 3))
    places = lifted(wide(MASK, 2), blurred, PIXELS + (aside, 0))
    known = np.isfinite(places[:, 2])
    assert known.sum() >= 16
    assert np.abs(places[known, 2] - on_surface(DEPTH)[known, 2]).max() < 0.12


def test_a_pole_in_front_is_not_taken_even_where_the_mask_covers_it() -> None:
    pole = np.zeros(SIZE, bool)
    left = round(float(PIXELS[5, 0])) - 4  # before a shoulder and what is below it
    pole[:, left : left + 9] = True
    places = lifted(MASK, np.where(pole, 0.9, np.where(MASK, DEPTH, 4.0)))
    known = np.isfinite(places[:, 2])
    assert known.sum() >= 13
    assert np.abs(places[known, 2] - BODY[known, 2]).max() < 0.2


def test_a_person_in_front_is_not_taken_for_one_behind() -> None:
    near = STANDING + (0.25, 0.05, 2.0)
    far = STANDING + (0.05, 0.05, 3.0)
    fronts = surface(near), surface(far)
    depth = np.minimum(*fronts)
    masks = [np.isfinite(front) & (front <= depth) for front in fronts]
    people = tuple(
        person_of(mask, project(joints), id)
        for mask, joints, id in zip(masks, (near, far), (7, 3), strict=True)
    )
    plane = depth_plane(depth_image(np.where(np.isfinite(depth), depth, 5.0)), SIZE)
    behind, before = lift(Prediction(SIZE, people), plane, CAMERA, THRESHOLD, DEPTH_MAX)
    assert np.isfinite(before).all() and np.abs(before[:, 2] - 2.0).max() < 0.25
    known = np.isfinite(behind[:, 2])
    assert 0 < known.sum() and np.abs(behind[known, 2] - 3.0).max() < 0.25


def test_an_arm_stretched_towards_the_camera_is_of_the_body() -> None:
    joints = BODY.copy()
    joints[9] = joints[5] + (0.05, 0.12, -0.5)
    joints[7] = (joints[5] + joints[9]) / 2
    depth = surface(joints)
    pixels = project(joints)
    places = lifted(np.isfinite(depth), np.where(np.isfinite(depth), depth, 4.0), pixels)
    assert off(places, on_surface(depth, pixels)).max() <= TWO_CM


# Holes


def test_a_small_hole_is_bridged_by_the_body_around_it() -> None:
    depth = np.where(MASK, DEPTH, 4.0)
    x, y = np.rint(PIXELS[13]).astype(int)  # a knee
    depth[y - 2 : y + 3, x - 2 : x + 3] = np.nan
    assert off(lifted(MASK, depth), on_surface(DEPTH)).max() <= TWO_CM


def test_without_depth_around_there_is_no_place_and_the_rest_stays() -> None:
    depth = np.where(MASK, DEPTH, 4.0)
    x, y = np.rint(PIXELS[13]).astype(int)
    depth[y - 20 : y + 21, x - 20 : x + 21] = np.nan
    places = lifted(MASK, depth)
    lost = np.isnan(places).all(1)
    assert lost[13] and not lost[[0, 5, 6, 9, 15]].any()
    assert np.isfinite(places[~lost]).all()


def test_one_stray_pixel_in_a_hole_is_not_taken() -> None:
    depth = np.where(MASK, DEPTH, 4.0)
    x, y = np.rint(PIXELS[13]).astype(int)
    depth[y - 2 : y + 3, x - 2 : x + 3] = np.nan
    depth[y, x] = DEPTH[y, x] - 0.15
    assert off(lifted(MASK, depth), on_surface(DEPTH)).max() <= TWO_CM


def test_a_bodys_few_nearest_pixels_are_of_it_beside_a_pole() -> None:
    """A hand, nearer than the rest; fewer pixels than lie between two that are compared."""
    pole, hand, rest = np.full(1000, 0.9), np.full(60, 1.85), np.linspace(2.0, 2.4, 9000)
    near, far = body_range(np.concatenate([rest, hand, pole]))
    assert 0.9 < near <= 1.85 and far >= 2.4


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, -np.inf, DEPTH_MAX + 0.01])
def test_values_that_are_no_depth(value: float) -> None:
    metres = to_metres(np.array([[value, 2.0]], np.float32), DEPTH_MAX)
    assert metres.tolist() == [[np.inf, 2.0]]


def test_millimetres_that_are_no_depth() -> None:
    values = np.array([0, 1, 10_000, 10_001, 65_535], np.uint16)
    metres = to_metres(values, DEPTH_MAX)
    assert np.allclose(metres, [np.inf, 0.001, 10.0, np.inf, np.inf])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metres", [np.nan, 0.0, 20.0])
def test_a_person_without_any_depth_has_no_place(metres: float) -> None:
    assert np.isnan(lifted(MASK, np.full(SIZE, metres))).all()


def test_a_person_without_a_mask_has_no_place() -> None:
    nobody = person_of(np.zeros(SIZE, bool), PIXELS)
    plane = depth_plane(depth_image(np.full(SIZE, 2.0)), SIZE)
    assert np.isnan(keypoint_depths(nobody, plane, THRESHOLD, DEPTH_MAX)).all()


def test_a_keypoint_far_from_its_mask_or_hardly_seen_has_no_place() -> None:
    person = person_of(MASK, PIXELS)
    person.keypoints[2, 2] = THRESHOLD - 0.01
    person.keypoints[3, :2] = 1.0, 1.0
    person.keypoints[4, :2] = np.nan
    person.keypoints[5, :2] = 1e30
    plane = depth_plane(depth_image(np.where(MASK, DEPTH, 4.0)), SIZE)
    depths = keypoint_depths(person, plane, THRESHOLD, DEPTH_MAX)
    assert (
        np.isnan(depths[[2, 3, 4, 5]]).all() and np.isfinite(np.delete(depths, [2, 3, 4, 5])).all()
    )


def test_a_keypoint_beside_a_mask_that_fills_its_box_has_no_place() -> None:
    mask = np.zeros(SIZE, bool)
    mask[10:50, 10:50] = True
    person = person_of(mask, np.array([[30.0, 30], [70, 30], [30, 70], [0, 30]]))
    plane = np.full(SIZE, 2000, np.uint16)
    depths = keypoint_depths(person, plane, THRESHOLD, DEPTH_MAX)
    assert depths[0] == 2 and np.isnan(depths[1:]).all()


def test_the_median_of_an_even_number_of_pixels_lies_between_two() -> None:
    mask = np.zeros(SIZE, bool)
    mask[100:102, 100:103] = True
    plane = np.full(SIZE, 2000, np.uint16)
    plane[101] = 2060
    person = person_of(mask, np.array([[101.0, 100]]))
    (depth,) = keypoint_depths(person, plane, THRESHOLD, DEPTH_MAX)
    assert depth == pytest.approx(2.03, abs=1e-6)


def test_nobody_is_lifted_to_nothing() -> None:
    plane = depth_plane(depth_image(np.full(SIZE, 2.0)), SIZE)
    nobody = Prediction(SIZE, ())
    places = lift(nobody, plane, CAMERA, THRESHOLD, DEPTH_MAX)
    assert keypoint_3d_rows(nobody, COCO17, places).shape == (0, 17)


# The table


def test_rows_are_packed_by_id_with_scores_of_all() -> None:
    half = replace(person_of(MASK, PIXELS), id=9)
    half.keypoints[:8, 2] = 0.1
    people = (half, replace(person_of(MASK, PIXELS), id=2))
    plane = depth_plane(depth_image(np.where(MASK, DEPTH, 4.0)), SIZE)
    prediction = Prediction(SIZE, people)
    places = lift(prediction, plane, CAMERA, THRESHOLD, DEPTH_MAX)
    rows = keypoint_3d_rows(prediction, COCO17, places)
    records = list(struct.iter_unpack("<4fHBB", rows.tobytes()))
    assert KEYPOINT_3D.itemsize == 20 and len(records) == 34
    assert [record[4] for record in records] == [2] * 17 + [9] * 17
    assert [record[5] for record in records] == [*range(17)] * 2
    assert [record[6] for record in records] == [1] * 17 + [0] * 8 + [1] * 9
    assert np.allclose([record[3] for record in records[17:25]], 0.1)
    assert all(np.isnan(record[:3]).all() for record in records[17:25])
    assert np.allclose([record[:3] for record in records[:17]], places[0])


# Depth images that cannot be used


def spoilt(**fields: object) -> Image:
    message = depth_image(np.full(SIZE, 2.0))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (spoilt(encoding="mono16"), "encoding 'mono16', expected 16UC1"),
        (spoilt(width=0), "0x240 pixels, expected sides of 1 to 8192"),
        (spoilt(height=100_000), "320x100000 pixels, expected sides"),
        (depth_image(np.full((120, 160), 2.0)), "160x120 pixels, the image 320x240"),
        (spoilt(step=639), "step 639, a row of it 640 bytes"),
        (spoilt(encoding="32FC1"), "step 640, a row of it 1280 bytes"),
        (spoilt(data=b"\0" * 1000), "1000 bytes, expected at least 153600"),
    ],
    ids=["encoding", "no width", "too high", "other size", "step", "type", "short"],
)
def test_depth_that_cannot_be_used_is_refused_with_the_cause(message: Image, cause: str) -> None:
    with pytest.raises(BadFrame, match=cause):
        depth_plane(message, SIZE)


# The camera


def projection(fx: float, fy: float, cx: float, cy: float) -> list[float]:
    return [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]


def test_the_middle_of_an_image_whose_principal_point_it_is_lies_straight_ahead() -> None:
    """A pixel's center has whole coordinates, as in camera_info: 0 to width - 1."""
    camera = Pinhole(100.0, 100.0, (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2)
    corners = np.array([[0.0, 0.0], [SIZE[1] - 1.0, SIZE[0] - 1.0]])
    first, last = camera.points(corners, np.full(2, 2.0))
    assert np.allclose(first[:2], -last[:2]) and first[2] == last[2] == 2.0


@pytest.mark.parametrize(
    ("info", "wanted"),
    [
        (camera_info(), (FX, FY, CX, CY)),
        (camera_info(p=projection(250, 251, 150, 120)), (250, 251, 150, 120)),
        (
            camera_info((480, 640), binning_x=2, binning_y=2),
            (FX / 2, FY / 2, CX / 2, CY / 2),
        ),
        (
            camera_info(
                (600, 800), roi=RegionOfInterest(x_offset=30, y_offset=20, width=320, height=240)
            ),
            (FX, FY, CX - 30, CY - 20),
        ),
        (
            camera_info(
                (600, 800),
                binning_x=2,
                binning_y=1,
                roi=RegionOfInterest(x_offset=30, y_offset=20, width=641, height=240),
            ),
            (FX / 2, FY, (CX - 30) / 2, CY - 20),
        ),
    ],
    ids=["K", "P", "binning", "roi", "both"],
)
def test_a_camera_is_read_as_image_geometry_does(
    info: CameraInfo, wanted: tuple[float, ...]
) -> None:
    camera = pinhole_of(info, SIZE)
    assert np.allclose((camera.fx, camera.fy, camera.cx, camera.cy), wanted)


@pytest.mark.parametrize(
    ("info", "cause"),
    [
        (camera_info(k=[0.0] * 9), "not calibrated"),
        (camera_info((480, 640)), "is of 640x480 pixels .* the image has 320x240"),
        (camera_info(binning_x=2, binning_y=2), "is of 160x120 pixels"),
        (camera_info(k=[np.nan, 0, 1, 0, 1, 1, 0, 0, 1]), "focal lengths nan"),
        (camera_info(k=[-1.0, 0, 1, 0, 1, 1, 0, 0, 1]), "focal lengths -1"),
        (camera_info(p=projection(250, np.inf, 150, 120)), "focal lengths 250, inf"),
    ],
)
def test_a_camera_that_cannot_be_used_is_refused_with_the_cause(
    info: CameraInfo, cause: str
) -> None:
    with pytest.raises(BadFrame, match=cause):
        pinhole_of(info, SIZE)
