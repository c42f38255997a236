"""The node's output topics of each frame."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.show.drawing import draw_people
from kdc_ros import messages
from kdc_ros.images import fill_image


class Outputs:
    """Publishers of keypoints, persons, labels and, for whoever listens, the drawn image.

    Reliable, so that reliable and best-effort subscribers both match.
    """

    def __init__(self, node: Node):
        self._node = node
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._keypoints = node.create_publisher(PointCloud2, "~/keypoints", qos)
        self._persons = node.create_publisher(PointCloud2, "~/persons", qos)
        self._labels = node.create_publisher(Image, "~/labels", qos)
        self._annotated = node.create_publisher(Image, "~/annotated", qos)

    def publish(
        self,
        image: Image,
        pixels: np.ndarray,
        prediction: Prediction,
        skeleton: Skeleton,
        threshold: float,
    ) -> None:
        """Publish the people of one image, under its header.

        Args:
            image: the message they come from.
            pixels: it as (H, W, 3) uint8 RGB.
            prediction: its people.
            skeleton: of the keypoints.
            threshold: keypoints below are not visible.
        """
        header = image.header
        self._keypoints.publish(messages.keypoints_cloud(header, prediction, skeleton, threshold))
        self._persons.publish(messages.persons_cloud(header, prediction, threshold))
        self._labels.publish(messages.labels_image(header, prediction))
        if self._annotated.get_subscription_count():
            drawn = draw_people(pixels, prediction, skeleton, threshold)
            self._annotated.publish(fill_image(Image(header=header), drawn[..., ::-1], "bgr8"))

    def destroy(self) -> None:
        """Take the topics down."""
        for publisher in (self._keypoints, self._persons, self._labels, self._annotated):
            self._node.destroy_publisher(publisher)
