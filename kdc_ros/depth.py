"""The node's subscriptions to depth and camera_info, and which depth belongs to which image."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from copy import copy
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from kdc_ros.diagnostics import LOSS_ADVICE
from kdc_ros.image_input import QUEUE, SubscriptionEventCallbacks
from kdc_ros.images import BadFrame
from kdc_ros.stamps import stamp_ns

# Depth images that are kept: all of so long, by their stamps, for images get to the node late; a
# few if they are fewer; and never more than so many, nor of more bytes.
KEPT_NS, FEW, KEPT = 500_000_000, 8, 60
LATEST_NS = 1_000_000_000  # a depth image that is later than so much is of another recording
KEPT_BYTES = 256 << 20
WAIT_S = 0.5  # for depth that is later than the people of its image
# By qos_overrides; in the others the node follows the publishers.
OVERRIDDEN = {
    "depth": (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.DURABILITY),
    "camera_info": (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH),
}
TYPES = {"depth": "sensor_msgs/msg/Image", "camera_info": "sensor_msgs/msg/CameraInfo"}


@dataclass(eq=False)
class DepthMatch:
    """The depth of one image.

    Attributes:
        stamp_ns: of the image.
        nearest: the depth image whose stamp is nearest so far.
        final: whether none that comes later can be nearer.
    """

    stamp_ns: int
    nearest: Image | None = None
    final: bool = False

    def offer(self, depth: Image) -> None:
        """Take a depth image if it is nearer. They come in the order of their stamps."""
        if self.final:
            return
        if self.nearest is None or self.gap_ns(depth) < self.gap_ns(self.nearest):
            self.nearest = depth
        self.final = stamp_ns(depth.header) >= self.stamp_ns

    def gap_ns(self, depth: Image) -> int:
        return abs(stamp_ns(depth.header) - self.stamp_ns)


def profile_for(name: str, publishers: list[TopicEndpointInfo]) -> QoSProfile:
    """What to subscribe with so that all that these publishers offer comes.

    Depth is as reliable as its publishers. Small messages get through as best effort, which suits
    every publisher; a camera_info that is sent once, and kept for those who come later, does not.
    """
    offered = [publisher.qos_profile for publisher in publishers]
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    latched = False
    if name == "camera_info":
        kept = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
        reliable = latched = reliable and kept and bool(publishers)
    return QoSProfile(
        depth=QUEUE,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


class DepthInput:
    """Depth registered to the images, and the camera_info of both.

    Args:
        node: whose executor runs the callbacks.

    Attributes:
        info: the last camera_info, None = none came.
    """

    def __init__(self, node: Node):
        self._node = node
        self._topics = {name: node.resolve_topic_name(name) for name in TYPES}
        self._absent = dict.fromkeys(TYPES, "")  # why nothing comes, as of the last look
        self._subscriptions: dict[str, Subscription] = {}
        self._profiles: dict[str, QoSProfile] = {}  # they were made with
        self._changed = threading.Condition()
        self._open = False
        self._kept: deque[Image] = deque(maxlen=KEPT)
        self._matches: weakref.WeakSet[DepthMatch] = weakref.WeakSet()
        self.info: CameraInfo | None = None

    def open(self) -> None:
        """Subscribe."""
        self.info, self._open = None, True
        self.follow_publishers()

    def close(self) -> None:
        """Unsubscribe, forget what came, and let nobody wait."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        with self._changed:
            self._open = False
            self._kept.clear()
            self._changed.notify_all()

    def follow_publishers(self) -> None:
        """Follow who publishes by now; to be called about every second."""
        if not self._open:
            return
        for name in TYPES:
            publishers = self._publishers(name)
            profile = profile_for(name, publishers)
            known = name in self._subscriptions
            if not known or (publishers and profile != self._profiles[name]):
                self._subscribe(name, profile)

    def _publishers(self, name: str) -> list[TopicEndpointInfo]:
        """Those of the right type; why nothing comes is set by what is found."""
        wanted = TYPES[name]
        found = self._node.get_publishers_info_by_topic(self._topics[name])
        fitting = [p for p in found if p.topic_type == wanted]
        others = sorted({p.topic_type for p in found} - {wanted})
        why = "" if fitting else "no publisher"
        if others:
            why = f"it carries {', '.join(others)}, expected {wanted}"
        self._absent[name] = why
        return fitting

    def match(self, header: Header) -> DepthMatch:
        """Begin to look for the depth of an image, among what came and what will come."""
        match = DepthMatch(stamp_ns(header))
        with self._changed:
            match.nearest = min(self._kept, key=match.gap_ns, default=None)
            match.final = any(stamp_ns(d.header) >= match.stamp_ns for d in self._kept)
            self._matches.add(match)
        return match

    def depth_of(self, match: DepthMatch, slop_s: float) -> Image:
        """The depth of an image; waits for a while if it is still to come.

        Raises:
            BadFrame: none is near enough; the text says why.
        """
        with self._changed:
            self._changed.wait_for(lambda: match.final or not self._open, WAIT_S)
            depth = match.nearest
        gap_s = math.inf if depth is None else 1e-9 * match.gap_ns(depth)
        if depth is None or (gap_s > slop_s and self._absent["depth"]):
            raise self.missing("depth")
        if gap_s > slop_s:
            raise BadFrame(
                f"the nearest depth on {self._topics['depth']} is {gap_s:.3f} s from its image, "
                f"sync_slop allows {slop_s:g} s"
            )
        return depth

    def missing(self, name: str) -> BadFrame:
        """That nothing comes, and why.

        Args:
            name: `depth` or `camera_info`.
        """
        why = self._absent[name]
        if name == "depth" and not why:
            why = f"what is published does not arrive, or is not published yet; {LOSS_ADVICE}"
        return BadFrame(f"no {name} on {self._topics[name]}{why and f': {why}'}")

    def _subscribe(self, name: str, profile: QoSProfile) -> None:
        if name in self._subscriptions:
            self._node.destroy_subscription(self._subscriptions[name])
        kind, callback = {
            "depth": (Image, self._on_depth),
            "camera_info": (CameraInfo, self._on_info),
        }[name]
        self._profiles[name] = profile
        self._subscriptions[name] = self._node.create_subscription(
            kind,
            name,
            callback,
            copy(profile),  # rclpy writes overrides into it
            qos_overriding_options=QoSOverridingOptions(OVERRIDDEN[name]),
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )

    def _on_info(self, info: CameraInfo) -> None:
        self.info = info

    def _on_depth(self, depth: Image) -> None:
        with self._changed:
            now_ns = stamp_ns(depth.header)
            late_ns = stamp_ns(self._kept[-1].header) - now_ns if self._kept else 0
            if late_ns > LATEST_NS:
                self._kept.clear()  # a bag begins again
            elif late_ns > 0:  # two came in the wrong order
                return
            if self._kept and now_ns == stamp_ns(self._kept[-1].header):
                self._kept.pop()  # of stamps that are alike, as without a clock, the latest counts
            self._kept.append(depth)
            while len(self._kept) > FEW and stamp_ns(self._kept[0].header) < now_ns - KEPT_NS:
                self._kept.popleft()
            while len(self._kept) > 1 and sum(len(d.data) for d in self._kept) > KEPT_BYTES:
                self._kept.popleft()
            for match in self._matches:
                match.offer(depth)
            self._changed.notify_all()
