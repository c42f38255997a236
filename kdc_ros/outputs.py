"""The node's output topics of each frame."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header, String

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.show.anonymize import hide_people
from kdc_core.show.drawing import draw_people
from kdc_ros import messages
from kdc_ros.parameters import Settings
from kdc_ros.publishers import create_output


class OptionalOutput(Protocol):
    """Publishers of the same people as messages of a package that may be missing."""

    @property
    def subscribed(self) -> bool:
        """Whether anybody subscribes to any of the topics."""
        ...

    def publish(self, header: Header, prediction: Prediction, settings: Settings) -> None:
        """Publish the people of one image, under its header."""
        ...

    def clear(self) -> None:
        """Take back what is in force until the next image, for none may come."""
        ...

    def destroy(self) -> None:
        """Take the topics down."""
        ...


class Outputs:
    """Publishers of keypoints, persons, labels and, for whoever listens, the rest.

    Args:
        node: to publish by.
        skeleton: of the keypoints.
        hri: publish REP-155's topics, if hri_msgs is there.
    """

    def __init__(self, node: Node, skeleton: Skeleton, hri: bool):
        self._node, self._skeleton = node, skeleton
        self._publishers: list[Publisher] = []
        self._keypoints = self._create(PointCloud2, "keypoints")
        self._persons = self._create(PointCloud2, "persons")
        self._labels = self._create(Image, "labels")
        self._json = self._create(String, "persons/json")
        self._mask = self._create(Image, "mask")
        self._annotated = self._create(Image, "annotated")
        self._annotated_jpeg = self._create(CompressedImage, "annotated/compressed")
        self._anonymized = self._create(Image, "anonymized")
        self._optional = _optional_outputs(node, skeleton, hri)

    def _create(self, kind: type, topic: str) -> Publisher:
        self._publishers.append(create_output(self._node, kind, topic))
        return self._publishers[-1]

    @property
    def subscribed(self) -> bool:
        """Whether anybody subscribes to any of the topics."""
        listened = any(publisher.get_subscription_count() for publisher in self._publishers)
        return listened or any(output.subscribed for output in self._optional)

    @property
    def hides_people(self) -> bool:
        """Whether anybody subscribes to a picture without people, which needs `everybody`."""
        return bool(self._anonymized.get_subscription_count())

    def publish(
        self,
        header: Header,
        pixels: np.ndarray,
        prediction: Prediction,
        settings: Settings,
        everybody: Prediction | None = None,
    ) -> None:
        """Publish the people of one image, under its header.

        Args:
            header: of the message they come from.
            pixels: the image as (H, W, 3) uint8 RGB.
            prediction: its people.
            settings: parameters in force for this image.
            everybody: they, and those too unsure to be published; None = not known, and no
                picture without people is published.
        """
        skeleton, threshold = self._skeleton, settings.keypoint_threshold
        self._keypoints.publish(messages.keypoints_cloud(header, prediction, skeleton, threshold))
        self._persons.publish(messages.persons_cloud(header, prediction, threshold))
        self._labels.publish(messages.labels_image(header, prediction))
        for output in self._optional:
            output.publish(header, prediction, settings)
        if self._json.get_subscription_count():
            text = messages.persons_json(header, prediction, skeleton, threshold)
            self._json.publish(text)
        if self._mask.get_subscription_count():
            self._mask.publish(messages.mask_image(header, prediction))
        self._publish_annotated(header, pixels, prediction, settings)
        if everybody is not None and self.hides_people:
            region = settings.region
            hidden = hide_people(
                pixels,
                everybody,
                skeleton,
                fill=settings.anonymize == "fill",
                seen=None if region is None else region.window,
            )
            self._anonymized.publish(messages.color_image(header, hidden))

    def _publish_annotated(
        self,
        header: Header,
        pixels: np.ndarray,
        prediction: Prediction,
        settings: Settings,
    ) -> None:
        raw = self._annotated.get_subscription_count()
        jpeg = self._annotated_jpeg.get_subscription_count()
        if not raw and not jpeg:
            return
        drawn = draw_people(pixels, prediction, self._skeleton, settings.keypoint_threshold)
        if raw:
            self._annotated.publish(messages.color_image(header, drawn))
        if jpeg:
            image = messages.jpeg_image(header, drawn, settings.jpeg_quality)
            self._annotated_jpeg.publish(image)

    def clear(self) -> None:
        """Take back what is in force until the next image, for none may come."""
        for output in self._optional:
            output.clear()

    def destroy(self) -> None:
        """Take the topics down."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        for output in self._optional:
            output.destroy()


def _optional_outputs(node: Node, skeleton: Skeleton, hri: bool) -> list[OptionalOutput]:
    """Those whose message packages are installed."""
    found: list[OptionalOutput] = []
    try:
        from kdc_ros.vision import Detections

        found.append(Detections(node))
    except ImportError as error:
        node.get_logger().info(f"no ~/detections and ~/labels/info without vision_msgs: {error}")
    if not hri:
        return found
    try:
        from kdc_ros.hri import Bodies

        found.append(Bodies(node, skeleton))
    except ImportError as error:
        node.get_logger().warning(
            f"the parameter hri does nothing without hri_msgs: {error}; install "
            "ros-$ROS_DISTRO-hri-msgs"
        )
    return found
