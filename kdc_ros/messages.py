"""Predictions as ROS messages. All carry the header of the image they come from."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header, String

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.show.people_json import person_summary
from kdc_ros.images import byte_array, fill_image
from kdc_ros.tables import (
    fill_cloud,
    keypoint_rows,
    label_pixels,
    people_by_id,
    person_rows,
)

JPEG_FORMAT = "bgr8; jpeg compressed bgr8"  # as image_transport names what OpenCV encodes


def keypoints_cloud(
    header: Header, prediction: Prediction, skeleton: Skeleton, threshold: float
) -> PointCloud2:
    """One row per person, one column per keypoint (`keypoint_rows`)."""
    return table_cloud(header, keypoint_rows(prediction, skeleton, threshold))


def persons_cloud(header: Header, prediction: Prediction, threshold: float) -> PointCloud2:
    """One point per person (`person_rows`)."""
    return table_cloud(header, person_rows(prediction, threshold))


def labels_image(header: Header, prediction: Prediction) -> Image:
    """mono16 of the input's size: each pixel its person's id, 0 background (`label_pixels`)."""
    return fill_image(Image(header=header), label_pixels(prediction), "mono16")


def mask_image(header: Header, prediction: Prediction) -> Image:
    """mono8 of the input's size: 255 where anybody is, 0 background."""
    mask = np.zeros(prediction.size, np.uint8)
    for person in prediction.persons:
        np.copyto(mask[person.mask_window], 255, where=person.mask)
    return fill_image(Image(header=header), mask, "mono8")


def color_image(header: Header, pixels: np.ndarray) -> Image:
    """(H, W, 3) uint8 RGB as bgr8."""
    return fill_image(Image(header=header), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), "bgr8")


def jpeg_image(header: Header, pixels: np.ndarray, quality: int) -> CompressedImage:
    """(H, W, 3) uint8 RGB as JPEG of a quality of 1 to 100."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return CompressedImage(header=header, format=JPEG_FORMAT, data=byte_array(data))


def persons_json(
    header: Header, prediction: Prediction, skeleton: Skeleton, threshold: float
) -> String:
    """The people as one JSON object, to be read by people and web pages; masks are left out.

    It has stamp {sec, nanosec} and frame_id of the header, size [height, width] of the image, and
    persons, each with id and `person_summary`.
    """
    stamp = header.stamp
    content = {
        "stamp": {"sec": stamp.sec, "nanosec": stamp.nanosec},
        "frame_id": header.frame_id,
        "size": list(prediction.size),
        "persons": [
            {"id": id, **person_summary(person, skeleton, threshold)}
            for id, person in people_by_id(prediction)
        ],
    }
    return String(data=json.dumps(content, allow_nan=False))


def info_json(content: dict[str, Any]) -> String:
    """What the node is and how it is set, as JSON."""
    return String(data=json.dumps(content))


def table_cloud(header: Header, rows: np.ndarray) -> PointCloud2:
    """A table (height, width) of a structured dtype as a cloud of points."""
    return fill_cloud(PointCloud2, PointField, header, rows, byte_array(rows))
