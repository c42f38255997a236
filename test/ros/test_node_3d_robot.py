"""People in metres by the node in a process of its own, with its model."""

from __future__ import annotations

import signal
from array import array

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from kdc_ros.camera import Stamp, stamp_of
from kdc_ros.tables import KEYPOINT

from .depth_camera import DepthCamera, other_size, table, uncalibrated, xyz
from .peer import MakePeer
from .process import NodeProcess, Start
from .scene import CX, CY, FX, FY

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def robot(
    start: Start, module_peers: MakePeer, people: np.ndarray
) -> tuple[NodeProcess, DepthCamera]:
    """What stands in the picture is two metres away."""
    options = ("confidence:=0.0", "enable_3d:=true", "tracking:=false")
    parameters = [word for option in options for word in ("-p", option)]
    process = start("-r", "__ns:=/robot", *parameters)
    peer = module_peers("/robot")
    peer.meet()
    metres = np.full(people.shape[:2], 2.0)
    return process, DepthCamera(peer, reliable=True, pixels=people, metres=metres)


@pytest.mark.all
def test_tables_in_pixels_and_in_metres_are_of_the_same_people(
    robot: tuple[NodeProcess, DepthCamera],
) -> None:
    _, camera = robot
    flats: dict[Stamp, PointCloud2] = {}
    camera.peer.node.create_subscription(
        PointCloud2, "/robot/kdc/keypoints", lambda c: flats.setdefault(stamp_of(c), c), 50
    )
    camera.peer.wait(
        lambda: (camera.lifted(), set(flats) & set(camera.clouds))[1], "both tables of an image"
    )
    stamp = next(iter(set(flats) & set(camera.clouds)))
    rows = table(camera.clouds[stamp])
    flat = np.frombuffer(flats[stamp].data, KEYPOINT).reshape(rows.shape)
    for name in ("id", "kp", "score"):
        assert (rows[name] == flat[name]).all()
    known = rows["visible"] == 1
    assert known.sum() > 17 and (flat["visible"][known] == 1).all()
    assert np.isnan(xyz(rows)[~known]).all()
    assert np.allclose(rows["z"][known], 2.0)
    assert np.allclose(rows["x"][known], (flat["u"][known] - CX) / FX * 2, atol=1e-3)
    assert np.allclose(rows["y"][known], (flat["v"][known] - CY) / FY * 2, atol=1e-3)


@pytest.mark.all
def test_causes_are_told_by_the_node_on_a_robot(robot: tuple[NodeProcess, DepthCamera]) -> None:
    _, camera = robot
    camera.lifted()
    for spoil, cause in ((other_size, "80x60"), (uncalibrated, "not calibrated")):
        camera.assert_complained_of(cause, spoil)
        camera.content_again()


@pytest.mark.all
def test_a_distortion_is_warned_of_once(robot: tuple[NodeProcess, DepthCamera]) -> None:
    process, camera = robot

    def distorted(depth: Image, info: CameraInfo) -> None:
        info.d = array("d", [0.1, 0, 0, 0, 0])

    for _ in range(3):
        camera.lifted(distorted)
    assert process.log.count("camera_info has a distortion (D is not zero): rectified") == 1


@pytest.mark.all
def test_depth_of_another_frame_is_warned_of_once(robot: tuple[NodeProcess, DepthCamera]) -> None:
    process, camera = robot

    def unregistered(depth: Image, info: CameraInfo) -> None:
        depth.header = type(depth.header)(stamp=depth.header.stamp, frame_id="infrared")

    for _ in range(2):
        camera.lifted(unregistered)
    assert process.log.count("depth is in the frame infrared, images in camera") == 1


@pytest.mark.all
def test_depth_without_a_value_is_told(robot: tuple[NodeProcess, DepthCamera]) -> None:
    _, camera = robot

    def blind(depth: Image, info: CameraInfo) -> None:
        depth.data = array("B", bytes(len(depth.data)))

    _, cloud = camera.lifted(blind)
    assert not table(cloud)["visible"].any()
    camera.assert_complained_of("depth has no value above 0 and up to depth_max (10 m)", blind)
    camera.content_again()


@pytest.mark.all
def test_the_node_ends_cleanly_while_people_wait_for_depth(
    robot: tuple[NodeProcess, DepthCamera],
) -> None:
    process, camera = robot
    camera.lifted()
    camera.depth = None
    camera.shoot()
    process.process.send_signal(signal.SIGINT)
    process.assert_ends_well()
