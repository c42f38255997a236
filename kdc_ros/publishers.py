"""How the node's outputs are published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

OVERRIDDEN = (
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.DURABILITY,
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.RELIABILITY,
)


def output_qos() -> QoSProfile:
    """Reliable, so that reliable and best-effort subscribers both match; the latest alone."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def create_output(node: Node, kind: type, topic: str, latched: bool = False) -> Publisher:
    """A publisher of an output of the node.

    `qos_overrides.<topic>.publisher.<policy>` goes over its QoS.

    Args:
        node: to publish by.
        kind: type of the messages.
        topic: without the node's name.
        latched: whoever subscribes later gets the last message, too.
    """
    qos = output_qos()  # one for each: rclpy writes overrides into it
    if latched:
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return node.create_publisher(
        kind, f"~/{topic}", qos, qos_overriding_options=QoSOverridingOptions(OVERRIDDEN)
    )


@contextmanager
def all_or_none(node: Node) -> Iterator[None]:
    """Take the publishers of the block down if it fails, as by an override that is none."""
    before = set(node.publishers)
    try:
        yield
    except Exception:
        for publisher in set(node.publishers) - before:
            node.destroy_publisher(publisher)
        raise
