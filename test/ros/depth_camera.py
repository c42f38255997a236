"""A camera of images, depth and camera_info before the node, and a person in its scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from kdc_ros import outputs_3d
from kdc_ros.camera import Stamp, stamp_of
from kdc_ros.lifting import KEYPOINT_3D
from kdc_ros.node import KdcNode

from .local import Local
from .peer import Peer
from .scene import SIZE, STANDING, camera_info, depth_image, person_of, project, surface

BODY = STANDING + (0.1, 0.05, 2.0)
FRONT = surface(BODY)
MASK = np.isfinite(FRONT)
SCENE = np.where(MASK, FRONT, 4.0)
PICTURE = np.zeros((*SIZE, 3), np.uint8)
LATE_S = 0.05
Spoil = Callable[[Image, CameraInfo], object]


def fine(depth: Image, info: CameraInfo) -> None:
    """Leave both as they are."""


class DepthCamera:
    """A camera of images, depth and camera_info, and what the node makes of them.

    Args:
        peer: publishes the images.
        reliable: QoS of the depth.
        pixels: what it sees, (H, W, 3) uint8 RGB.
        metres: how far that is, (H, W).
    """

    def __init__(
        self,
        peer: Peer,
        reliable: bool = False,
        pixels: np.ndarray = PICTURE,
        metres: np.ndarray = SCENE,
    ):
        self.peer, self._pixels, self._metres = peer, pixels, metres
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=1, reliability=policy)
        self.depth: Any = peer.node.create_publisher(Image, "depth", qos)
        self.info: Any = peer.node.create_publisher(CameraInfo, "camera_info", qos)
        self.clouds: dict[Stamp, PointCloud2] = {}
        self.arrays: list[MarkerArray] = []
        peer.node.create_subscription(
            PointCloud2,
            f"{peer.namespace}/kdc/keypoints_3d",
            lambda cloud: self.clouds.setdefault(stamp_of(cloud), cloud),
            5,
        )

    def watch_markers(self) -> None:
        topic = f"{self.peer.namespace}/kdc/markers"
        self.peer.node.create_subscription(MarkerArray, topic, self.arrays.append, 5)

    def shoot(self, spoil: Spoil = fine, late: bool = False) -> Image:
        """Publish an image, and depth and camera_info unless they are taken down.

        Args:
            spoil: changes depth and camera_info.
            late: depth comes when the people are known already.
        """
        frame = self.peer.frame(self._pixels)
        depth, info = depth_image(self._metres), camera_info(self._metres.shape)
        depth.header, info.header = frame.header, frame.header
        spoil(depth, info)
        if self.info is not None:
            self.info.publish(info)
        if late:
            self.peer.ask(frame)
            self.peer.spin_until(lambda: False, LATE_S)
        if self.depth is not None:
            self.depth.publish(depth)
        if not late:
            self.peer.ask(frame)
        return frame

    def lifted(self, spoil: Spoil = fine, late: bool = False) -> tuple[Image, PointCloud2]:
        """The first image whose people are lifted, and they."""
        frames: list[Image] = []

        def found() -> Image | None:
            return next((f for f in frames if stamp_of(f) in self.clouds), None)

        def shot() -> bool:
            frames.append(self.shoot(spoil, late))
            return self.peer.spin_until(found, 0.3)

        self.peer.wait(shot, "people in metres")
        frame = found()
        assert frame is not None
        return frame, self.clouds[stamp_of(frame)]

    def assert_complained_of(self, cause: str, spoil: Spoil = fine) -> None:
        """Wait until a status warns of it; such frames are published meanwhile."""
        peer, found = self.peer, list[DiagnosticStatus]()
        peer.forget_statuses()

        def warned() -> bool:
            self.shoot(spoil)
            found[:] = [s for s in peer.statuses if cause in s.message]
            return bool(found)

        peer.wait(warned, f"a warning of {cause}")
        assert found[0].message.startswith("nothing in 3D: ")
        assert found[0].level == DiagnosticStatus.WARN
        assert int(peer.values(found[0])["not_lifted"]) > 0

    def content_again(self) -> None:
        """Wait until the node is, with frames as they should be."""
        self.peer.forget_statuses()

        def content() -> bool:
            self.shoot()
            return any(status.message == "running" for status in self.peer.statuses)

        self.peer.wait(content, "a status without a warning")


def table(cloud: PointCloud2) -> np.ndarray:
    assert cloud.point_step == KEYPOINT_3D.itemsize and not cloud.is_bigendian
    return np.frombuffer(cloud.data, KEYPOINT_3D).reshape(cloud.height, cloud.width)


def xyz(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows[axis] for axis in "xyz"], -1)


def outputs_of(node: KdcNode) -> outputs_3d.Outputs3d:
    assert node._loaded is not None and node._loaded.outputs_3d is not None
    return node._loaded.outputs_3d


def meet(local: Local, peer: Peer) -> None:
    """The person is too large for the frames that are answered meanwhile."""
    local.predictor.persons = ()
    peer.meet()
    local.predictor.persons = (person_of(MASK, project(BODY)),)


def other_size(depth: Image, info: CameraInfo) -> None:
    small = depth_image(np.full((60, 80), 2.0))
    depth.height, depth.width, depth.step = small.height, small.width, small.step
    depth.data = small.data


def uncalibrated(depth: Image, info: CameraInfo) -> None:
    info.k = np.zeros(9)
