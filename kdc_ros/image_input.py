"""The node's subscription to the camera, reliable or best effort as the camera offers."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image

from kdc_ros.timers import call_soon

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble has it under the older name
    from rclpy.qos_event import SubscriptionEventCallbacks


class ImageInput:
    """Images from the topic `image`, the latest first.

    Args:
        node: whose executor runs the callbacks.
        got_image: called with each image.
        got_lost: called with the number of images that the middleware lost.

    Attributes:
        topic: full name.
        reliable: QoS of the subscription; of the last one while there is none.
    """

    def __init__(
        self, node: Node, got_image: Callable[[Image], None], got_lost: Callable[[int], None]
    ):
        self._node, self._got_image, self._got_lost = node, got_image, got_lost
        self._follow = False
        self._subscription: Subscription | None = None
        self.topic = node.resolve_topic_name("image")
        self.reliable = True

    def open(self, reliability: str) -> None:
        """Subscribe.

        Args:
            reliability: `reliable`, `best_effort`, or `auto`: what every publisher offers, also
                one that comes later.
        """
        self._follow = reliability == "auto"
        if self._follow:
            publishers = self._node.get_publishers_info_by_topic(self.topic)
            offers = [p.qos_profile.reliability for p in publishers]
            self._subscribe(all(offer == ReliabilityPolicy.RELIABLE for offer in offers))
        else:
            self._subscribe(reliability == "reliable")

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _subscribe(self, reliable: bool) -> None:
        self.close()
        self.reliable = reliable
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self._subscription = self._node.create_subscription(
            Image,
            "image",
            self._got_image,
            QoSProfile(depth=1, reliability=policy),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_incompatible_qos,
                message_lost=lambda event: self._got_lost(event.total_count_change),
                use_default_callbacks=False,
            ),
        )

    def _on_incompatible_qos(self, event: object) -> None:
        if self._follow and self.reliable:
            # Not from inside the subscription's own callback.
            call_soon(self._node, self._fall_back)
        else:
            self._node.get_logger().warning(
                "the camera's QoS does not fit: set the parameter reliability to auto"
            )

    def _fall_back(self) -> None:
        if self._subscription is not None:  # unless closed meanwhile
            self._subscribe(False)
