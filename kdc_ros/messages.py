"""Predictions as ROS messages. All carry the header of the image they come from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header, String

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_ros.images import byte_array, fill_image

KEYPOINT = np.dtype(
    [("u", "<f4"), ("v", "<f4"), ("score", "<f4"), ("id", "<u2"), ("kp", "u1"), ("visible", "u1")]
)
PERSON = np.dtype(
    [
        ("u", "<f4"),
        ("v", "<f4"),
        ("left", "<f4"),
        ("top", "<f4"),
        ("width", "<f4"),
        ("height", "<f4"),
        ("score", "<f4"),
        ("area", "<u4"),
        ("id", "<u2"),
        ("visible", "u1"),
        ("flags", "u1"),
    ]
)
CUT_BY_BORDER = 1  # bit of `flags`

_POINT_FIELDS = {
    "<f4": PointField.FLOAT32,
    "<u4": PointField.UINT32,
    "<u2": PointField.UINT16,
    "|u1": PointField.UINT8,
}


def keypoints_cloud(
    header: Header, prediction: Prediction, skeleton: Skeleton, threshold: float
) -> PointCloud2:
    """One row per person, one column per keypoint.

    Keypoints below the threshold have u, v = NaN and visible = 0; their score is kept.
    """
    people, count = len(prediction), skeleton.num_keypoints
    rows = np.zeros((people, count), KEYPOINT)
    for index, person in enumerate(prediction.persons):
        seen = person.keypoints[:, 2] >= threshold
        rows["u"][index] = np.where(seen, person.keypoints[:, 0], np.nan)
        rows["v"][index] = np.where(seen, person.keypoints[:, 1], np.nan)
        rows["score"][index] = person.keypoints[:, 2]
        rows["visible"][index] = seen
        rows["id"][index] = _id(person, index)
    rows["kp"] = np.arange(count)
    return _cloud(header, rows)


def persons_cloud(header: Header, prediction: Prediction, threshold: float) -> PointCloud2:
    """One point per person: mask centroid, box, score, area, id, visible keypoints, flags."""
    rows = np.zeros((1, len(prediction)), PERSON)
    height, width = prediction.size
    for index, person in enumerate(prediction.persons):
        row = rows[0, index]
        x0, y0, x1, y1 = person.box
        row["u"], row["v"] = _centroid(person)
        row["left"], row["top"], row["width"], row["height"] = x0, y0, x1 - x0, y1 - y0
        row["score"], row["area"] = person.score, person.area
        row["id"] = _id(person, index)
        row["visible"] = np.count_nonzero(person.keypoints[:, 2] >= threshold)
        cut = x0 <= 0 or y0 <= 0 or x1 >= width - 1 or y1 >= height - 1
        row["flags"] = CUT_BY_BORDER if cut else 0
    return _cloud(header, rows)


def labels_image(header: Header, prediction: Prediction) -> Image:
    """mono16 of the input's size: each pixel its person's id, 0 background."""
    labels = prediction.labels
    if any(person.id is not None for person in prediction.persons):
        ids = [0, *(_id(person, i) for i, person in enumerate(prediction.persons))]
        labels = np.array(ids, np.uint16)[labels]
    return fill_image(Image(header=header), labels.astype("<u2", copy=False), "mono16")


def info_json(content: dict[str, Any]) -> String:
    """What the node is and how it is set, as JSON."""
    return String(data=json.dumps(content))


def _id(person: Person, index: int) -> int:
    """Ids are 1..n by score where people are not followed over frames."""
    return index + 1 if person.id is None else person.id


def _centroid(person: Person) -> tuple[float, float]:
    """Mean of the mask's pixels; middle of the box where there are none."""
    if not person.mask.any():
        x0, y0, x1, y1 = (float(v) for v in person.box)
        return (x0 + x1) / 2, (y0 + y1) / 2
    columns = person.mask.sum(0)
    rows = person.mask.sum(1)
    total = columns.sum()
    x, y = person.mask_origin
    return (
        x + float(columns @ np.arange(len(columns)) / total),
        y + float(rows @ np.arange(len(rows)) / total),
    )


def _cloud(header: Header, rows: np.ndarray) -> PointCloud2:
    """A structured array (height, width) as a tightly packed little-endian cloud."""
    assert rows.dtype.fields is not None and rows.dtype.names is not None
    fields = [
        PointField(
            name=name,
            offset=rows.dtype.fields[name][1],
            datatype=_POINT_FIELDS[rows.dtype.fields[name][0].str],
            count=1,
        )
        for name in rows.dtype.names
    ]
    height, width = rows.shape
    if width == 0:
        height = 0
    return PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=fields,
        is_bigendian=False,
        point_step=rows.dtype.itemsize,
        row_step=rows.dtype.itemsize * width,
        data=byte_array(rows),
        is_dense=False,
    )
