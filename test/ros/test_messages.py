"""Predictions as messages, byte by byte."""

from __future__ import annotations

import json
import struct

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_ros.images import to_rgb
from kdc_ros.messages import (
    color_image,
    info_json,
    jpeg_image,
    keypoints_cloud,
    labels_image,
    mask_image,
    persons_cloud,
    persons_json,
)

F32, U32, U16, U8 = (
    PointField.FLOAT32,
    PointField.UINT32,
    PointField.UINT16,
    PointField.UINT8,
)
KEYPOINT_FIELDS = [
    ("u", 0, F32),
    ("v", 4, F32),
    ("score", 8, F32),
    ("id", 12, U16),
    ("kp", 14, U8),
    ("visible", 15, U8),
]
PERSON_FIELDS = [
    ("u", 0, F32),
    ("v", 4, F32),
    ("left", 8, F32),
    ("top", 12, F32),
    ("width", 16, F32),
    ("height", 20, F32),
    ("score", 24, F32),
    ("area", 28, U32),
    ("id", 32, U16),
    ("visible", 34, U8),
    ("flags", 35, U8),
]
SIZE = (40, 60)
THRESHOLD = 0.25
HEADER = Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789), frame_id="left_eye")


def person(
    mask: np.ndarray,
    origin: tuple[int, int],
    score: float,
    box: np.ndarray | None = None,
    id: int | None = None,
) -> Person:
    """A person whose box lies around its mask; keypoint k at (k, 10 + k), scores 0, .05, .1..."""
    height, width = mask.shape
    x, y = origin
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[:, 0] = np.arange(17)
    keypoints[:, 1] = 10 + np.arange(17)
    keypoints[:, 2] = np.arange(17) * 0.0625
    around = np.array([x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5], np.float32)
    return Person(
        score=score,
        keypoints=keypoints,
        box=around if box is None else box,
        mask=mask,
        mask_origin=origin,
        centroids=np.zeros((0, 4), np.float32),
        id=id,
    )


def predict(*persons: Person) -> Prediction:
    return Prediction(SIZE, persons)


@pytest.fixture
def two() -> Prediction:
    """A whole rectangle, and an L of three pixels."""
    corner = np.array([[True, False], [True, True]])
    return predict(person(np.ones((4, 6), bool), (10, 20), 0.75), person(corner, (30, 5), 0.5))


@pytest.fixture
def nobody() -> Prediction:
    return predict()


def fields(cloud: PointCloud2) -> list[tuple[str, int, int]]:
    assert all(field.count == 1 for field in cloud.fields)
    return [(field.name, field.offset, field.datatype) for field in cloud.fields]


def records(cloud: PointCloud2, layout: str) -> list[tuple[float, ...]]:
    """The points, unpacked without the code under test: `layout` as in struct, little endian."""
    assert struct.calcsize("<" + layout) == cloud.point_step
    return list(struct.iter_unpack("<" + layout, cloud.data.tobytes()))


def keypoint_records(cloud: PointCloud2) -> list[tuple[float, ...]]:
    return records(cloud, "fffHBB")


def person_records(cloud: PointCloud2) -> list[tuple[float, ...]]:
    return records(cloud, "7fIHBB")


def test_keypoints_have_the_documented_layout(two: Prediction) -> None:
    cloud = keypoints_cloud(HEADER, two, COCO17, THRESHOLD)
    assert fields(cloud) == KEYPOINT_FIELDS
    assert (cloud.height, cloud.width) == (2, 17)
    assert (cloud.point_step, cloud.row_step) == (16, 16 * 17)
    assert len(cloud.data) == 2 * 16 * 17
    assert cloud.is_bigendian is False
    assert cloud.is_dense is False


def test_keypoints_keep_their_order_and_number(two: Prediction) -> None:
    rows = keypoint_records(keypoints_cloud(HEADER, two, COCO17, THRESHOLD))
    assert [row[4] for row in rows] == [*range(17), *range(17)]


def test_visible_keypoints_have_their_place(two: Prediction) -> None:
    """Scores are 1/16 apart: the fourth is exactly at the threshold and counts as visible."""
    rows = keypoint_records(keypoints_cloud(HEADER, two, COCO17, THRESHOLD))[:17]
    for index, (u, v, _, _, _, visible) in enumerate(rows[4:], start=4):
        assert (u, v, visible) == (index, 10 + index, 1)


def test_hidden_keypoints_have_no_place_but_keep_their_score(two: Prediction) -> None:
    rows = keypoint_records(keypoints_cloud(HEADER, two, COCO17, THRESHOLD))[:17]
    for index, (u, v, score, _, _, visible) in enumerate(rows[:4]):
        assert np.isnan(u) and np.isnan(v)
        assert (score, visible) == (index / 16, 0)


def test_persons_have_the_documented_layout(two: Prediction) -> None:
    cloud = persons_cloud(HEADER, two, THRESHOLD)
    assert fields(cloud) == PERSON_FIELDS
    assert (cloud.height, cloud.width) == (1, 2)
    assert (cloud.point_step, cloud.row_step) == (36, 2 * 36)
    assert len(cloud.data) == 2 * 36
    assert cloud.is_bigendian is False
    assert cloud.is_dense is False


def test_persons_have_centroid_box_score_and_counts(two: Prediction) -> None:
    rows = [list(row) for row in person_records(persons_cloud(HEADER, two, THRESHOLD))]
    # Pixel centers are whole numbers: columns 10..15 have their middle at 12.5.
    assert rows[0] == [12.5, 21.5, 9.5, 19.5, 6.0, 4.0, 0.75, 24, 1, 13, 0]
    third = np.float32(1 / 3)
    assert rows[1] == [30 + third, np.float32(5 + 2 / 3), 29.5, 4.5, 2, 2, 0.5, 3, 2, 13, 0]


def test_a_person_without_pixels_has_the_middle_of_its_box() -> None:
    box = np.array([10, 20, 14, 30], np.float32)
    bare = person(np.zeros((0, 0), bool), (0, 0), 0.5, box=box)
    row = person_records(persons_cloud(HEADER, predict(bare), THRESHOLD))[0]
    assert row[:8] == (12, 25, 10, 20, 4, 10, 0.5, 0)


@pytest.mark.parametrize(
    ("origin", "cut"),
    [
        ((0, 20), 1),
        ((1, 20), 0),
        ((54, 20), 1),
        ((53, 20), 0),
        ((10, 0), 1),
        ((10, 1), 0),
        ((10, 36), 1),
        ((10, 35), 0),
    ],
)
def test_flags_tell_who_is_cut_by_the_border(origin: tuple[int, int], cut: int) -> None:
    """A 6 x 4 mask in a 60 x 40 image, on a border and one pixel away from it."""
    prediction = predict(person(np.ones((4, 6), bool), origin, 0.5))
    assert person_records(persons_cloud(HEADER, prediction, THRESHOLD))[0][10] == cut


def test_labels_have_the_documented_layout(two: Prediction) -> None:
    image = labels_image(HEADER, two)
    assert (image.height, image.width, image.step) == (40, 60, 120)
    assert image.encoding == "mono16"
    assert image.is_bigendian == 0
    assert len(image.data) == 40 * 120


def test_labels_hold_each_pixels_person(two: Prediction) -> None:
    pixels = np.frombuffer(labels_image(HEADER, two).data, "<u2").reshape(SIZE)
    wanted = np.zeros(SIZE, int)
    wanted[20:24, 10:16] = 1
    wanted[5:7, 30] = 2
    wanted[6, 31] = 2
    assert (pixels == wanted).all()


def test_ids_count_from_one_by_score_and_agree(two: Prediction) -> None:
    rows = keypoint_records(keypoints_cloud(HEADER, two, COCO17, THRESHOLD))
    assert [row[3] for row in rows] == [1] * 17 + [2] * 17
    assert [row[8] for row in person_records(persons_cloud(HEADER, two, THRESHOLD))] == [1, 2]
    labels = np.frombuffer(labels_image(HEADER, two).data, "<u2")
    assert sorted(set(labels.tolist())) == [0, 1, 2]


def test_ids_of_followed_persons_are_in_all_outputs() -> None:
    """Ids given by somebody who follows persons over frames, up to the largest; rows are by id."""
    one = np.ones((4, 6), bool)
    prediction = predict(person(one, (10, 20), 0.75, id=65535), person(one, (30, 5), 0.5, id=300))
    rows = keypoint_records(keypoints_cloud(HEADER, prediction, COCO17, THRESHOLD))
    assert [row[3] for row in rows] == [300] * 17 + [65535] * 17
    persons = person_records(persons_cloud(HEADER, prediction, THRESHOLD))
    assert [(row[8], row[6]) for row in persons] == [(300, 0.5), (65535, 0.75)]
    labels = np.frombuffer(labels_image(HEADER, prediction).data, "<u2").reshape(SIZE)
    assert (labels[21, 12], labels[6, 32], labels[0, 0]) == (65535, 300, 0)


def test_where_masks_overlap_the_better_person_is_on_top() -> None:
    one = np.ones((4, 6), bool)
    prediction = predict(person(one, (10, 20), 0.75, id=9), person(one, (12, 21), 0.5, id=4))
    labels = np.frombuffer(labels_image(HEADER, prediction).data, "<u2").reshape(SIZE)
    assert (labels[20:24, 10:16] == 9).all()
    assert (labels[24, 12:18] == 4).all() and (labels[21:25, 16:18] == 4).all()


def test_the_mask_is_255_where_anybody_is(two: Prediction, nobody: Prediction) -> None:
    labels = np.frombuffer(labels_image(HEADER, two).data, "<u2")
    image = mask_image(HEADER, two)
    assert (image.height, image.width, image.step, image.encoding) == (40, 60, 60, "mono8")
    assert (np.frombuffer(image.data, np.uint8) == np.where(labels > 0, 255, 0)).all()
    assert len(mask_image(HEADER, nobody).data) == 40 * 60
    assert not any(mask_image(HEADER, nobody).data)


def test_color_images_are_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    image = color_image(HEADER, pixels)
    assert (image.encoding, image.step) == ("bgr8", 3 * 60)
    assert (to_rgb(image) == pixels).all()


def test_jpeg_images_are_nearly_the_pixels_the_better_the_larger() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    pixels = cv2.resize(pixels, (96, 64), interpolation=cv2.INTER_CUBIC)
    sizes, errors = [], []
    for quality in (20, 95):
        image = jpeg_image(HEADER, pixels, quality)
        assert (image.header, image.format) == (HEADER, "bgr8; jpeg compressed bgr8")
        decoded = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        errors.append(np.abs(decoded[..., ::-1].astype(int) - pixels).mean())
        sizes.append(len(image.data))
    assert errors[1] < 3 < errors[0] and sizes[0] < sizes[1]


def test_json_has_the_people_by_id_and_what_is_visible_of_them(two: Prediction) -> None:
    content = json.loads(persons_json(HEADER, two, COCO17, THRESHOLD).data)
    stamp = {"sec": HEADER.stamp.sec, "nanosec": HEADER.stamp.nanosec}
    persons = content.pop("persons")
    assert content == {"stamp": stamp, "frame_id": "left_eye", "size": [40, 60]}
    assert [(p["id"], p["score"], p["area"]) for p in persons] == [(1, 0.75, 24), (2, 0.5, 3)]
    assert persons[0]["box"] == [9.5, 19.5, 15.5, 23.5]
    # Scores are 1/16 apart, rounded to three digits: the first four are below the threshold.
    assert list(persons[0]["keypoints"]) == list(COCO17.keypoints[4:])
    assert persons[0]["keypoints"]["right_ear"] == [4, 14, 0.25]


def test_json_of_nobody_has_no_persons(nobody: Prediction) -> None:
    content = json.loads(persons_json(HEADER, nobody, COCO17, THRESHOLD).data)
    assert (content["size"], content["persons"]) == ([40, 60], [])


def test_nobody_gives_tables_without_rows(nobody: Prediction) -> None:
    keypoints = keypoints_cloud(HEADER, nobody, COCO17, THRESHOLD)
    persons = persons_cloud(HEADER, nobody, THRESHOLD)
    assert (keypoints.height, len(keypoints.data)) == (0, 0)
    assert (persons.height, persons.width, len(persons.data)) == (0, 0, 0)
    assert fields(keypoints) == KEYPOINT_FIELDS
    assert fields(persons) == PERSON_FIELDS
    assert (keypoints.point_step, persons.point_step) == (16, 36)


def test_nobody_gives_an_empty_label_image(nobody: Prediction) -> None:
    image = labels_image(HEADER, nobody)
    assert (image.height, image.width, image.encoding) == (40, 60, "mono16")
    assert len(image.data) == 40 * 120
    assert not any(image.data)


def test_headers_are_copied(two: Prediction, nobody: Prediction) -> None:
    for prediction in (two, nobody):
        outputs: list[PointCloud2 | Image] = [
            keypoints_cloud(HEADER, prediction, COCO17, THRESHOLD),
            persons_cloud(HEADER, prediction, THRESHOLD),
            labels_image(HEADER, prediction),
            mask_image(HEADER, prediction),
        ]
        assert [output.header for output in outputs] == [HEADER] * 4


def test_a_zero_stamp_stays_zero(two: Prediction) -> None:
    assert keypoints_cloud(Header(), two, COCO17, THRESHOLD).header == Header()


def test_clouds_are_read_by_numpy_from_their_own_description(two: Prediction) -> None:
    """A reader that knows nothing but the message."""
    types = {F32: "<f4", U32: "<u4", U16: "<u2", U8: "u1"}
    cloud = persons_cloud(HEADER, two, THRESHOLD)
    layout = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": [types[field.datatype] for field in cloud.fields],
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    table = np.frombuffer(cloud.data, layout).reshape(cloud.height, cloud.width)
    assert table["id"].tolist() == [[1, 2]]
    assert table["area"].tolist() == [[24, 3]]
    assert table["width"].tolist() == [[6.0, 2.0]]


def test_clouds_are_read_by_sensor_msgs_py(two: Prediction, nobody: Prediction) -> None:
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS 2 installation"
    )
    table = point_cloud2.read_points(keypoints_cloud(HEADER, two, COCO17, THRESHOLD))
    assert table["kp"].ravel().tolist() == [*range(17), *range(17)]
    assert len(point_cloud2.read_points(keypoints_cloud(HEADER, nobody, COCO17, THRESHOLD))) == 0


def test_info_is_json() -> None:
    assert info_json({"model": "kdc_light", "bones": [[0, 1]]}).data == (
        '{"model": "kdc_light", "bones": [[0, 1]]}'
    )
