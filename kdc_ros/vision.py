"""People as messages of vision_msgs, which not every robot has installed."""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.node import Node
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from kdc_core.codec.results import Person, Prediction
from kdc_ros.parameters import Settings
from kdc_ros.publishers import create_output
from kdc_ros.tables import people_by_id


def detections(header: Header, prediction: Prediction) -> Detection2DArray:
    """One detection per person, by id: box, class "person" with its score, and the id as text."""
    people = [_detection(header, id, person) for id, person in people_by_id(prediction)]
    return Detection2DArray(header=header, detections=people)


def label_info(header: Header, ids: Iterable[int], threshold: float) -> LabelInfo:
    """What the values of the label image mean: 0 background, each id "person_<id>".

    Args:
        header: of the first image with these ids.
        ids: of the people in it.
        threshold: score from which a person counts.
    """
    classes = [VisionClass(class_id=id, class_name=f"person_{id}") for id in ids]
    background = VisionClass(class_id=0, class_name="background")
    return LabelInfo(header=header, class_map=[background, *classes], threshold=threshold)


def _detection(header: Header, id: int, person: Person) -> Detection2D:
    x0, y0, x1, y1 = person.box.tolist()
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = "person"
    hypothesis.hypothesis.score = person.score
    detection = Detection2D(header=header, results=[hypothesis], id=str(id))
    detection.bbox.center.position.x = (x0 + x1) / 2
    detection.bbox.center.position.y = (y0 + y1) / 2
    detection.bbox.size_x, detection.bbox.size_y = x1 - x0, y1 - y0
    return detection


class Detections:
    """Publishers of detections, for whoever listens, and of what the labels mean, when it changes.

    Args:
        node: to publish by.
    """

    def __init__(self, node: Node):
        self._node = node
        self._detections = create_output(node, Detection2DArray, "detections")
        self._label_info = create_output(node, LabelInfo, "labels/info", latched=True)
        self._told: tuple[list[int], float] | None = None  # ids and threshold of the last labels

    @property
    def subscribed(self) -> bool:
        """Whether anybody subscribes to any of the topics."""
        publishers = (self._detections, self._label_info)
        return any(publisher.get_subscription_count() for publisher in publishers)

    def publish(self, header: Header, prediction: Prediction, settings: Settings) -> None:
        """Publish the people of one image, under its header."""
        if self._detections.get_subscription_count():
            self._detections.publish(detections(header, prediction))
        ids = [id for id, _ in people_by_id(prediction)]
        if (ids, settings.confidence) != self._told:
            self._label_info.publish(label_info(header, ids, settings.confidence))
            self._told = ids, settings.confidence

    def clear(self) -> None:
        """Nothing: the last labels still mean what they meant."""

    def destroy(self) -> None:
        """Take the topics down."""
        self._node.destroy_publisher(self._detections)
        self._node.destroy_publisher(self._label_info)
