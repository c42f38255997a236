"""A camera that waits for the answer to each frame: for the demo, the benchmark and tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, PointCloud2

from kdc_core.errors import KdcError
from kdc_ros.images import fill_image

ANSWERS = {"keypoints": PointCloud2, "persons": PointCloud2, "labels": Image}
NODE = (sys.executable, "-m", "kdc_ros.main")
RESEND_S = 0.3  # between frames that nobody may hear yet
Message: TypeAlias = Any  # any message type with a header
Stamp: TypeAlias = tuple[int, int]  # seconds, nanoseconds


def stamp_of(message: Message) -> Stamp:
    return message.header.stamp.sec, message.header.stamp.nanosec


class NoAnswer(KdcError):
    """The node did not answer in time."""


class Camera:
    """Publishes frames on `image` and collects what the node publishes for each.

    Args:
        answers: message type by output topic of the node.
        namespace: of the node, beginning with a slash; "" = none.
        reliable: QoS of the published frames.
    """

    def __init__(
        self, answers: dict[str, type] | None = None, namespace: str = "", reliable: bool = True
    ):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("kdc_camera", namespace=namespace, context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self.publisher = self.node.create_publisher(
            Image, "image", QoSProfile(depth=1, reliability=policy)
        )
        self.answers = dict(ANSWERS if answers is None else answers)
        self.received: dict[Stamp, dict[str, Message]] = {}
        self._subscriptions = [
            self.node.create_subscription(
                message_type,
                f"{namespace}/kdc/{topic}",
                self._keep(topic),
                QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE),
            )
            for topic, message_type in self.answers.items()
        ]

    def _keep(self, topic: str) -> Callable[[Message], None]:
        def keep(message: Message) -> None:
            self.received.setdefault(stamp_of(message), {})[topic] = message

        return keep

    def spin_until(self, condition: Callable[[], object], timeout_s: float) -> bool:
        """Handle messages until the condition holds; False when the time is over first."""
        end = time.monotonic() + timeout_s
        while not condition():
            left_s = end - time.monotonic()
            if left_s < 0:
                return False
            self._executor.spin_once(timeout_sec=min(left_s, 0.02))
        return True

    def wait_for_node(self, timeout_s: float = 60.0) -> None:
        """Wait until the node listens and answers; black frames are shown to it meanwhile.

        That this side has found the other does not say that the other has found this side.

        Raises:
            NoAnswer: it is not there in time.
        """
        shown: list[Stamp] = []  # answers to earlier frames may still come: they do not count

        def answered() -> bool:
            return any(len(self.received.get(s, ())) == len(self.answers) for s in shown)

        end = time.monotonic() + timeout_s
        while not answered():
            if time.monotonic() > end:
                heard = "" if self.publisher.get_subscription_count() else "; nobody listens"
                raise NoAnswer(
                    f"no kdc node answers frames on '{self.publisher.topic_name}' within "
                    f"{timeout_s} s{heard}"
                )
            frame = self.image(np.zeros((64, 64, 3), np.uint8))
            shown.append(stamp_of(frame))
            self.publisher.publish(frame)
            self.spin_until(answered, RESEND_S)
        self.received.clear()

    def image(self, pixels: np.ndarray, encoding: str = "rgb8") -> Image:
        """A frame stamped now."""
        message = Image()
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.header.frame_id = "camera"
        return fill_image(message, pixels, encoding)

    def ask(self, message: Image, timeout_s: float = 30.0) -> tuple[dict[str, Message], float]:
        """Publish a frame and wait for all answers to it.

        Returns:
            The messages by topic, and the seconds from publishing to the last of them.

        Raises:
            NoAnswer: they did not all come in time.
        """
        stamp = stamp_of(message)
        begun = time.perf_counter()
        self.publisher.publish(message)
        mine = self.received.setdefault(stamp, {})
        end = time.monotonic() + timeout_s
        while len(mine) < len(self.answers):
            if time.monotonic() > end:
                raise NoAnswer(
                    f"frame {stamp}: answers on {sorted(mine)} within {timeout_s} s, expected "
                    f"{sorted(self.answers)}"
                )
            self._executor.spin_once(timeout_sec=0.1)
        seconds = time.perf_counter() - begun
        del self.received[stamp]
        return mine, seconds

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@contextmanager
def node_process(
    *ros_args: str,
    log: Path | None = None,
    stop_timeout_s: float = 10.0,
    command: Sequence[str] = NODE,
) -> Iterator[subprocess.Popen[str]]:
    """Run the node in a process of its own; stopped by SIGINT when the block ends.

    Args:
        ros_args: what follows `--ros-args`.
        log: file for its output; None = this process's stderr.
        stop_timeout_s: then it is killed.
        command: starts the node.
    """
    words = ("--ros-args", *ros_args) if ros_args else ()
    out = open(log, "w") if log else None
    try:
        process = subprocess.Popen(
            [*command, *words],
            stdout=out or sys.stderr,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(os.environ),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(stop_timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        if out:
            out.close()
