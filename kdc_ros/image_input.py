"""The node's subscription to the camera, reliable or best effort as the camera offers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from kdc_core.errors import KdcError
from kdc_ros.sharing import other_users

try:
    from rclpy.event_handler import SubscriptionEventCallbacks as SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble has it under the older name
    from rclpy.qos_event import SubscriptionEventCallbacks as SubscriptionEventCallbacks

Message: TypeAlias = "Image | CompressedImage"
# By the parameter image_transport: type of the message, its name, and what follows the topic's.
TRANSPORTS: dict[str, tuple[type, str, str]] = {
    "raw": (Image, "sensor_msgs/msg/Image", ""),
    "compressed": (CompressedImage, "sensor_msgs/msg/CompressedImage", "/compressed"),
}
# Images that come while the executor waits for Python's lock; in a queue of one they would be
# replaced without being counted. Who takes them keeps the latest.
QUEUE = 4


class ImageInput:
    """Images from the topic `image`, or `image/compressed`, as they come.

    Args:
        node: whose executor runs the callbacks.
        got_image: called with each image.
        got_lost: called with the number of images that the middleware lost.

    Attributes:
        topic: full name, with what the transport puts behind it.
        reliable: QoS of the subscription; of the last one while there is none.
        publishers: how many of images there were at the last look.
        complaint: what was wrong with the publishers at the last look, "" = nothing.
    """

    def __init__(
        self, node: Node, got_image: Callable[[Message], None], got_lost: Callable[[int], None]
    ):
        self._node, self._got_image, self._got_lost = node, got_image, got_lost
        self._follow = False
        self._subscription: Subscription | None = None
        self._transport = "raw"
        self.topic = node.resolve_topic_name("image")
        self.reliable = True
        self.publishers = 0
        self.complaint = ""

    def open(self, reliability: str, transport: str = "raw") -> None:
        """Subscribe.

        `qos_overrides.<topic>.subscription.reliability` goes over the reliability.

        Args:
            reliability: `reliable`, `best_effort`, or `auto`: what every publisher offers, also
                one that comes later.
            transport: one of `TRANSPORTS`.

        Raises:
            KdcError: an override that is none.
        """
        self._transport = transport
        # As image_transport does it: whoever remaps `image` remaps its compressed form along.
        # Whoever remaps it to the compressed form itself means that.
        ending = TRANSPORTS[transport][2]
        base = self._node.resolve_topic_name("image").removesuffix(ending)
        self.topic = self._node.resolve_topic_name(base + ending)
        override = f"qos_overrides.{self.topic}.subscription.reliability"
        given = getattr(self._node, "_parameter_overrides", {}).get(override)
        if given is not None:
            reliability = given.value
            if reliability not in ("reliable", "best_effort"):
                raise KdcError(
                    f"parameter {override}: expected reliable or best_effort, got "
                    f"{reliability!r:.60}"
                )
        self._follow = reliability == "auto"
        # Cameras that are there would warn of a QoS that does not fit.
        offered = _all_reliable(self._cameras(self._found()))
        self._subscribe(offered if self._follow else reliability != "best_effort")
        self.follow_publishers()

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def follow_publishers(self) -> None:
        """Follow who publishes by now; to be called about every second."""
        if self._subscription is None:
            return
        found = self._found()
        cameras = self._cameras(found)
        self.publishers = len(cameras)
        offered = _all_reliable(cameras)
        if self._follow and cameras and offered != self.reliable:
            self._subscribe(offered)
        if others := sorted({p.topic_type for p in found} - {TRANSPORTS[self._transport][1]}):
            self.complaint = self._other_type(others)
        elif not cameras:
            self.complaint = self._other_transport()
        elif self.reliable and not offered:
            self.complaint = (
                "the camera's QoS does not fit, it offers best effort: set the parameter "
                "reliability to auto"
            )
        else:
            self.complaint = self._other_users(cameras)

    def _found(self) -> list[TopicEndpointInfo]:
        found: list[TopicEndpointInfo] = self._node.get_publishers_info_by_topic(self.topic)
        return found

    def _cameras(self, found: list[TopicEndpointInfo]) -> list[TopicEndpointInfo]:
        return [p for p in found if p.topic_type == TRANSPORTS[self._transport][1]]

    def _subscribe(self, reliable: bool) -> None:
        self.close()
        self.reliable = reliable
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self._subscription = self._node.create_subscription(
            TRANSPORTS[self._transport][0],
            self.topic,
            self._got_image,
            QoSProfile(depth=QUEUE, reliability=policy),
            qos_overriding_options=QoSOverridingOptions(
                (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.DURABILITY)
            ),
            event_callbacks=SubscriptionEventCallbacks(
                message_lost=lambda event: self._got_lost(event.total_count_change),
                use_default_callbacks=False,
            ),
        )

    def _other_type(self, types: list[str]) -> str:
        wanted = TRANSPORTS[self._transport][1]
        own = f"{self._node.get_fully_qualified_name()}/"
        topics = [
            name
            for name, kinds in self._node.get_topic_names_and_types()
            if wanted in kinds and name != self.topic and not name.startswith(own)
        ]
        # That of the same camera first: /camera/image_raw, of /camera/image_raw/compressed.
        topics.sort(key=lambda name: (not self.topic.startswith(f"{name}/"), name))
        advice = []
        if topics:
            there = f"there {'is' if len(topics) == 1 else 'are'} {', '.join(topics)}"
            advice.append(f"remap it to a topic of these (-r image:={topics[0]}; {there})")
        for transport, (_, name, ending) in TRANSPORTS.items():
            if name in types and self.topic.endswith(ending):
                base = self.topic.removesuffix(ending)
                remap = f", with -r image:={base}" if ending else ""
                advice.append(f"set the parameter image_transport to {transport}{remap}")
        what = "; or ".join(advice) or "remap it to a topic of images; there is none"
        return f"{self.topic} carries {', '.join(types)}, expected {wanted}: {what}"

    def _other_transport(self) -> str:
        """That images come in the other form only, "" where they do not."""
        base = self.topic.removesuffix(TRANSPORTS[self._transport][2])
        for transport, (_, name, ending) in TRANSPORTS.items():
            found = self._node.get_publishers_info_by_topic(base + ending)
            if transport != self._transport and any(p.topic_type == name for p in found):
                return (
                    f"no publisher on {self.topic}, but on {base}{ending}: set the parameter "
                    f"image_transport to {transport}"
                )
        return ""

    def _other_users(self, cameras: list[TopicEndpointInfo]) -> str:
        info = self._node.get_publishers_info_by_topic("~/info")
        users = other_users(
            [bytes(p.endpoint_gid) for p in cameras],
            bytes(info[0].endpoint_gid) if info else b"",
            self._node.context.get_domain_id(),
        )
        if not users:
            return ""
        uids = " or ".join(map(str, users))
        return (
            f"{self.topic}: a publisher runs as uid {uids}, this node as uid {os.getuid()}; they "
            "share no memory, and images may be lost. Run both as one user, or both over UDP with "
            "config/fastdds_udp.xml (docs/node.md)"
        )


def _all_reliable(cameras: list[TopicEndpointInfo]) -> bool:
    return all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in cameras)
