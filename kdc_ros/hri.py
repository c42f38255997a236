"""People as REP-155 (ROS4HRI) has them: /humans/bodies, with hri_msgs, if that is installed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
from hri_msgs.msg import (
    IdsList,
    NormalizedPointOfInterest2D,
    NormalizedRegionOfInterest2D,
    Skeleton2D,
)
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.inference.tracking import LOST_S
from kdc_ros.parameters import Settings
from kdc_ros.publishers import output_qos
from kdc_ros.stamps import stamp_s
from kdc_ros.tables import people_by_id

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ModuleNotFoundError:  # Humble has it under the older name
    from rclpy.qos_event import PublisherEventCallbacks

BODIES = "/humans/bodies"
MOST = 128  # bodies with topics: of those in an image, and of as many as the tracker waits for
LEFT, RIGHT = "LEFT_SHOULDER", "RIGHT_SHOULDER"


def body_id(id: int) -> str:
    """REP-155's name of a person's body: letters and digits, since topics have it in them."""
    return f"b{id:05d}"


def skeleton2d(
    header: Header, person: Person, skeleton: Skeleton, size: tuple[int, int], threshold: float
) -> Skeleton2D:
    """A person's 18 points from 0 to 1; those not visible are 0, with confidence 0.

    The neck is in the middle of the shoulders, of the lower confidence of the two.

    Args:
        header: of the image.
        person: who.
        skeleton: of its keypoints; points that it does not have are not visible.
        size: (height, width) of the image.
        threshold: keypoints below are not visible.
    """
    points = {
        name.upper(): row
        for name, row in zip(skeleton.keypoints, _normalized(person.keypoints, size), strict=True)
        if row[2] >= threshold
    }
    if LEFT in points and RIGHT in points:
        both = np.stack((points[LEFT], points[RIGHT]))
        points["NECK"] = np.append(both[:, :2].mean(0), both[:, 2].min())
    message = Skeleton2D(header=header)
    for name, row in points.items():
        index = getattr(Skeleton2D, name, None)  # theirs are named as ours, in capitals
        if index is not None:
            x, y, score = row.tolist()
            message.skeleton[index] = NormalizedPointOfInterest2D(x=x, y=y, c=score)
    return message


def region_of_interest(
    header: Header, person: Person, size: tuple[int, int]
) -> NormalizedRegionOfInterest2D:
    """A person's box from 0 to 1, with its score."""
    (x0, y0), (x1, y1) = _normalized(person.box.reshape(2, 2), size).tolist()
    return NormalizedRegionOfInterest2D(
        header=header, xmin=x0, ymin=y0, xmax=x1, ymax=y1, c=person.score
    )


def _normalized(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, 2 or more) with x and y from 0 to 1 in place of pixels."""
    points = points.astype(float)
    points[:, :2] = np.clip((points[:, :2] + 0.5) / size[::-1], 0, 1)  # pixel 0 begins at -.5
    return points


@dataclass
class Body:
    """Publishers of one person.

    Attributes:
        skeleton2d: its points.
        roi: its box.
        seen_s: time of the last image that it is in.
    """

    skeleton2d: Publisher
    roi: Publisher
    seen_s: float


class Bodies:
    """Publishers of the people there are; those of who has left are taken down.

    Args:
        node: to publish by.
        skeleton: of the keypoints.
    """

    def __init__(self, node: Node, skeleton: Skeleton):
        self._node, self._skeleton = node, skeleton
        self._tracked = node.create_publisher(IdsList, f"{BODIES}/tracked", output_qos())
        self._bodies: dict[int, Body] = {}
        self._told: list[str] = []  # the last list
        self._lock = threading.Lock()  # so that none is taken down while another thread asks it

    @property
    def subscribed(self) -> bool:
        """Whether anybody subscribes to any of the topics."""
        with self._lock:
            publishers = [self._tracked]
            for body in self._bodies.values():
                publishers += (body.skeleton2d, body.roi)
            return any(publisher.get_subscription_count() for publisher in publishers)

    def publish(self, header: Header, prediction: Prediction, settings: Settings) -> None:
        """Publish the people of one image, under its header.

        The topics of who is not seen stay as long as the id is kept, but those of `MOST` bodies at
        most.
        """
        people, size = people_by_id(prediction), prediction.size
        # By the images' clock, as ids are kept.
        now_s = stamp_s(header) or time.monotonic()
        threshold = settings.keypoint_threshold
        with self._lock:
            for id, person in people:
                body = self._bodies.get(id) or self._add(id)
                body.seen_s = now_s
                points = skeleton2d(header, person, self._skeleton, size, threshold)
                body.skeleton2d.publish(points)
                body.roi.publish(region_of_interest(header, person, size))
            by_age = sorted(self._bodies.items(), key=lambda item: item[1].seen_s)
            for index, (id, body) in enumerate(by_age):
                body.seen_s = min(body.seen_s, now_s)  # a clock that was set back
                late = now_s - body.seen_s > LOST_S + settings.track_timeout
                if late or index < len(by_age) - MOST:
                    self._remove(id)
        # After the topics that it names.
        self._told = [body_id(id) for id, _ in people]
        self._tracked.publish(IdsList(header=header, ids=self._told))

    def clear(self) -> None:
        """Publish that nobody is seen: whoever follows bodies drops one only by a list."""
        self._remove_all()
        if self._told:
            self._told = []
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._tracked.publish(IdsList(header=header))

    def _add(self, id: int) -> Body:
        topic = f"{BODIES}/{body_id(id)}"
        body = Body(
            self._create(Skeleton2D, f"{topic}/skeleton2d"),
            self._create(NormalizedRegionOfInterest2D, f"{topic}/roi"),
            seen_s=0.0,
        )
        self._bodies[id] = body
        return body

    def _create(self, kind: type, topic: str) -> Publisher:
        # Events would be handled by the executor, which is not to see publishers come and go.
        quiet = PublisherEventCallbacks(use_default_callbacks=False)
        return self._node.create_publisher(kind, topic, output_qos(), event_callbacks=quiet)

    def _remove(self, id: int) -> None:
        body = self._bodies.pop(id)
        self._node.destroy_publisher(body.skeleton2d)
        self._node.destroy_publisher(body.roi)

    def _remove_all(self) -> None:
        with self._lock:
            for id in list(self._bodies):
                self._remove(id)

    def destroy(self) -> None:
        """Take the topics down."""
        self._remove_all()
        self._node.destroy_publisher(self._tracked)
