"""Predictions as the rows of the node's tables, without ROS: the node and `kdc bag` fill messages
with them."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TypeVar

import numpy as np

from kdc_core.codec.results import Person, Prediction, number_of
from kdc_core.codec.skeleton import Skeleton

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
# Topics on which the node publishes images: `kdc bag` takes none for a camera's.
IMAGES = ("labels", "mask", "annotated", "annotated/compressed", "anonymized")

# Constants of sensor_msgs/PointField.
_POINT_FIELDS = {"|u1": 2, "<u2": 4, "<u4": 6, "<f4": 7}

Cloud = TypeVar("Cloud")


def keypoint_rows(prediction: Prediction, skeleton: Skeleton, threshold: float) -> np.ndarray:
    """(people, keypoints) of KEYPOINT, by id.

    Keypoints below the threshold have u, v = NaN and visible = 0; their score is kept.
    """
    people, count = len(prediction), skeleton.num_keypoints
    rows = np.zeros((people, count), KEYPOINT)
    for index, (id, person) in enumerate(people_by_id(prediction)):
        seen = person.keypoints[:, 2] >= threshold
        rows["u"][index] = np.where(seen, person.keypoints[:, 0], np.nan)
        rows["v"][index] = np.where(seen, person.keypoints[:, 1], np.nan)
        rows["score"][index] = person.keypoints[:, 2]
        rows["visible"][index] = seen
        rows["id"][index] = id
    rows["kp"] = np.arange(count)
    return rows


def person_rows(prediction: Prediction, threshold: float) -> np.ndarray:
    """(1, people) of PERSON, by id: mask centroid, box, score, area, visible keypoints, flags."""
    rows = np.zeros((1, len(prediction)), PERSON)
    height, width = prediction.size
    for index, (id, person) in enumerate(people_by_id(prediction)):
        row = rows[0, index]
        x0, y0, x1, y1 = person.box
        row["u"], row["v"] = _centroid(person)
        row["left"], row["top"], row["width"], row["height"] = x0, y0, x1 - x0, y1 - y0
        row["score"], row["area"] = person.score, person.area
        row["id"] = id
        row["visible"] = np.count_nonzero(person.keypoints[:, 2] >= threshold)
        cut = x0 <= 0 or y0 <= 0 or x1 >= width - 1 or y1 >= height - 1
        row["flags"] = CUT_BY_BORDER if cut else 0
    return rows


def label_pixels(prediction: Prediction) -> np.ndarray:
    """(H, W) uint16, little-endian: each pixel its person's id, 0 background.

    Where masks overlap, the person of the higher score is on top.
    """
    labels = np.zeros(prediction.size, "<u2")
    for index, person in reversed(list(enumerate(prediction.persons))):
        np.copyto(labels[person.mask_window], number_of(person, index), where=person.mask)
    return labels


def people_by_id(prediction: Prediction) -> list[tuple[int, Person]]:
    """The people with their ids, the lowest first: the order in every output. Where nobody is
    followed, they are numbered from 1 by score, the best first."""
    people = [
        (number_of(person, index), person) for index, person in enumerate(prediction.persons)
    ]
    return sorted(people, key=itemgetter(0))


def fill_cloud(
    cloud: Callable[..., Cloud],
    field: Callable[..., object],
    header: object,
    rows: np.ndarray,
    data: object,
) -> Cloud:
    """A tightly packed little-endian PointCloud2 of rows.

    Args:
        cloud, field: the message types PointCloud2 and PointField.
        header: of the cloud.
        rows: (height, width) of a structured dtype; no rows or no columns make an empty cloud.
        data: their bytes, of the type that the message takes.
    """
    assert rows.dtype.fields is not None and rows.dtype.names is not None
    fields = [
        field(
            name=name,
            offset=rows.dtype.fields[name][1],
            datatype=_POINT_FIELDS[rows.dtype.fields[name][0].str],
            count=1,
        )
        for name in rows.dtype.names
    ]
    height, width = rows.shape
    return cloud(
        header=header,
        height=height if width else 0,
        width=width,
        fields=fields,
        is_bigendian=False,
        point_step=rows.dtype.itemsize,
        row_step=rows.dtype.itemsize * width,
        data=data,
        is_dense=False,
    )


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
