"""Predictions as ROS messages. All carry the header of the image they come from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header, String

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_ros.images import byte_array, fill_image
from kdc_ros.tables import KEYPOINT as KEYPOINT
from kdc_ros.tables import PERSON as PERSON
from kdc_ros.tables import fill_cloud, keypoint_rows, label_pixels, person_rows


def keypoints_cloud(
    header: Header, prediction: Prediction, skeleton: Skeleton, threshold: float
) -> PointCloud2:
    """One row per person, one column per keypoint (`keypoint_rows`)."""
    return _cloud(header, keypoint_rows(prediction, skeleton, threshold))


def persons_cloud(header: Header, prediction: Prediction, threshold: float) -> PointCloud2:
    """One point per person (`person_rows`)."""
    return _cloud(header, person_rows(prediction, threshold))


def labels_image(header: Header, prediction: Prediction) -> Image:
    """mono16 of the input's size: each pixel its person's id, 0 background."""
    return fill_image(Image(header=header), label_pixels(prediction), "mono16")


def info_json(content: dict[str, Any]) -> String:
    """What the node is and how it is set, as JSON."""
    return String(data=json.dumps(content))


def _cloud(header: Header, rows: np.ndarray) -> PointCloud2:
    return fill_cloud(PointCloud2, PointField, header, rows, byte_array(rows))
