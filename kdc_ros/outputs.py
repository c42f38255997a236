"""The node's output topics of each frame."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.show.drawing import draw_people
from kdc_ros import messages
from kdc_ros.images import fill_image
from kdc_ros.parameters import Settings


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
        self._publishers = (self._keypoints, self._persons, self._labels, self._annotated)

    @property
    def wanted(self) -> bool:
        """Whether anybody subscribes to any of the topics."""
        return any(publisher.get_subscription_count() for publisher in self._publishers)

    def publish(
        self,
        header: Header,
        pixels: np.ndarray,
        prediction: Prediction,
        skeleton: Skeleton,
        settings: Settings,
    ) -> None:
        """Publish the people of one image, under its header.

        Args:
            header: of the message they come from.
            pixels: the image as (H, W, 3) uint8 RGB.
            prediction: its people.
            skeleton: of the keypoints.
            settings: parameters in force for this image.
        """
        threshold = settings.keypoint_threshold
        self._keypoints.publish(messages.keypoints_cloud(header, prediction, skeleton, threshold))
        self._persons.publish(messages.persons_cloud(header, prediction, threshold))
        self._labels.publish(messages.labels_image(header, prediction))
        if self._annotated.get_subscription_count():
            drawn = draw_people(pixels, prediction, skeleton, threshold)
            self._annotated.publish(fill_image(Image(header=header), drawn[..., ::-1], "bgr8"))

    def destroy(self) -> None:
        """Take the topics down."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
