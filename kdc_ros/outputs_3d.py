"""The node's output topics in metres: people lifted by the depth of their image."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_ros.depth import DepthInput, DepthMatch
from kdc_ros.images import BadFrame
from kdc_ros.lifting import depth_plane, keypoint_3d_rows, lift, pinhole_of, to_metres
from kdc_ros.markers import Markers
from kdc_ros.messages import table_cloud
from kdc_ros.parameters import Settings
from kdc_ros.publishers import create_output
from kdc_ros.worker import LatestBox, Worker

PATIENCE_S = 1.0  # without anybody lifted, until it is complained of


@dataclass(frozen=True)
class LiftJob:
    """People of an image that are still to be lifted, and the depth of that image."""

    header: Header
    prediction: Prediction
    depth: DepthMatch
    settings: Settings


class Outputs3d:
    """Publishers of keypoints in metres and markers. Lives from configure to cleanup.

    A thread of its own, alive between `open` and `close`, waits for the depth of each image, so
    that what is published in pixels never waits for it. Of images that come meanwhile the latest
    is lifted.

    Args:
        node: publishes and subscribes.
        skeleton: of the keypoints.
        enabled: whether people are published at all.
    """

    def __init__(self, node: Node, skeleton: Skeleton, enabled: Callable[[], bool]):
        self._node, self._skeleton, self._enabled = node, skeleton, enabled
        self._input = DepthInput(node)
        self._markers = Markers()
        self._keypoints = create_output(node, PointCloud2, "keypoints_3d")
        self._skeletons = create_output(node, MarkerArray, "markers")
        self._publishers = (self._keypoints, self._skeletons)
        self._box = LatestBox()
        self._worker: Worker | None = None
        self._lifted = self._missed = 0
        self._lifted_s = 0.0  # when people were lifted last, or the node began to wait for it
        self._cause = ""  # why the last were not
        self._warned: set[str] = set()

    @property
    def subscribed(self) -> bool:
        """Whether anybody subscribes to any of the topics."""
        return any(publisher.get_subscription_count() for publisher in self._publishers)

    @property
    def complaint(self) -> str:
        """Why nobody has had a place in metres for a while, "" else."""
        cause = self._cause
        if not cause or time.monotonic() - self._lifted_s <= PATIENCE_S:
            return ""
        return f"nothing in 3D: {cause}"

    def values(self) -> dict[str, str]:
        """Counters by name; an image whose people a newer one replaced is not lifted, too."""
        return {
            "lifted": str(self._lifted),
            "not_lifted": str(self._missed + self._box.dropped),
        }

    def open(self) -> None:
        """Subscribe and start the thread."""
        self._lifted_s, self._cause = time.monotonic(), ""
        self._warned.clear()
        self._markers.forget()
        self._input.open()
        self._box = LatestBox(self._box.dropped)
        self._worker = Worker(self._box, self._handle)

    def close(self) -> None:
        """Unsubscribe and end the thread."""
        self._input.close()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def destroy(self) -> None:
        """Take the topics down."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)

    def follow_publishers(self) -> None:
        """Follow who publishes depth by now; to be called about every second."""
        self._input.follow_publishers()

    def match(self, header: Header) -> DepthMatch:
        """Look for the depth of an image from now on: by the time that its people are known, it
        may be long gone."""
        return self._input.match(header)

    def publish(
        self, header: Header, prediction: Prediction, depth: DepthMatch, settings: Settings
    ) -> None:
        """Lift the people of one image and publish them under its header, in a while.

        Args:
            header: of the image.
            prediction: its people.
            depth: what `match` gave for it.
            settings: parameters in force for it.
        """
        self._box.put(LiftJob(header, prediction, depth, settings))

    def _handle(self, job: LiftJob) -> None:
        try:
            placed = self._lift(job)
        except BadFrame as error:
            self._missed += 1
            self._cause = str(error)
        except Exception as error:
            self._missed += 1
            self._cause = f"{type(error).__name__}: {error}"
            self._warn_once("fault", traceback.format_exc())
        else:
            self._lifted += placed
            self._missed += not placed
            self._lifted_s, self._cause = time.monotonic(), ""

    def _lift(self, job: LiftJob) -> bool:
        """Publish the people of an image in metres.

        Returns:
            Whether anybody has a place, or nobody was to get one.

        Raises:
            BadFrame: nobody can have one.
        """
        header, prediction, settings = job.header, job.prediction, job.settings
        info = self._input.info
        if info is None:
            raise self._input.missing("camera_info")
        camera = pinhole_of(info, prediction.size)
        if any(info.d):
            self._warn_once(
                "distortion",
                "camera_info has a distortion (D is not zero): rectified images and depth are "
                "expected, in others places are off towards the borders",
            )
        depth = self._input.depth_of(job.depth, settings.sync_slop)
        self._compare_frames(header, "depth", depth.header)
        self._compare_frames(header, "camera_info", info.header)
        plane = depth_plane(depth, prediction.size)
        threshold = settings.keypoint_threshold
        places = lift(prediction, plane, camera, threshold, settings.depth_max)
        rows = keypoint_3d_rows(prediction, self._skeleton, places)
        if not self._enabled():
            return True
        self._keypoints.publish(table_cloud(header, rows))
        if self._skeletons.get_subscription_count():
            self._skeletons.publish(self._markers(header, prediction, places, self._skeleton))
        else:
            self._markers.forget()
        asked = (rows["score"] >= threshold).any()
        placed = bool(rows["visible"].any() or not asked)
        if not placed and not np.isfinite(to_metres(plane, settings.depth_max)).any():
            raise BadFrame(
                f"depth has no value above 0 and up to depth_max ({settings.depth_max:g} m) "
                "anywhere: 16UC1 is millimetres, 32FC1 metres"
            )
        return placed

    def _compare_frames(self, header: Header, what: str, other: Header) -> None:
        if header.frame_id and other.frame_id not in ("", header.frame_id):
            self._warn_once(
                f"frame of {what}",
                f"{what} is in the frame {other.frame_id}, images in {header.frame_id}: depth "
                "registered to the image is expected, and the image's own camera_info",
            )

    def _warn_once(self, what: str, text: str) -> None:
        """Warn of something once while the node is active."""
        if what not in self._warned:
            self._warned.add(what)
            self._node.get_logger().warning(text)
