"""People in metres by the node in this process, with a stub: its depth, and why there are none."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import Marker

from kdc_ros import depth as depth_module
from kdc_ros import outputs_3d
from kdc_ros.lifting import KEYPOINT_3D

from .depth_camera import (
    BODY,
    SCENE,
    DepthCamera,
    Spoil,
    meet,
    other_size,
    outputs_of,
    table,
    uncalibrated,
    xyz,
)
from .local import Local, local_node
from .peer import MakePeer
from .scene import CX, CY, FX, FY, camera_info, depth_image, project

pytestmark = pytest.mark.ros


@pytest.fixture
def here(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer
) -> Iterator[tuple[Local, DepthCamera]]:
    monkeypatch.setattr(outputs_3d, "PATIENCE_S", 0.2)
    monkeypatch.setattr(depth_module, "WAIT_S", 0.2)
    with local_node(monkeypatch, spin=True, autostart=True, enable_3d=True) as (node, predictor):
        local = Local(node, predictor, peer(node.get_namespace()))
        meet(local, local.peer)
        yield local, DepthCamera(local.peer)


def test_people_are_published_in_metres_under_the_header_of_the_image(
    here: tuple[Local, DepthCamera],
) -> None:
    _, camera = here
    frame, cloud = camera.lifted()
    assert cloud.header == frame.header
    rows = table(cloud)
    assert rows.shape == (1, 17) and (rows["visible"] == 1).all()
    assert np.abs(rows["z"] - 2.0).max() < 0.3
    assert np.allclose(
        xyz(rows)[0, :, :2] / rows["z"][0, :, None] * (FX, FY) + (CX, CY), project(BODY), atol=1e-3
    )


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("reliable", [False, True], ids=["best effort", "reliable"])
def test_depth_of_either_reliability_is_met_before_and_after_its_people(
    here: tuple[Local, DepthCamera], peer: MakePeer, reliable: bool, late: bool
) -> None:
    local, _ = here
    other = peer(local.node.get_namespace())
    meet(local, other)
    _, cloud = DepthCamera(other, reliable).lifted(late=late)
    assert (table(cloud)["visible"] == 1).all()


def test_markers_come_while_subscribed_and_are_taken_down_when_people_leave(
    here: tuple[Local, DepthCamera],
) -> None:
    local, camera = here
    _, cloud = camera.lifted()
    camera.watch_markers()
    camera.peer.wait(lambda: (camera.lifted(), camera.arrays)[1], "markers")
    markers = camera.arrays[-1].markers
    assert {marker.ns for marker in markers} == {"keypoints", "bones", "ids"}
    assert {marker.id for marker in markers} == set(table(cloud)["id"][0].tolist())
    assert all(marker.header.frame_id == "camera" for marker in markers)
    local.predictor.persons = ()
    camera.arrays.clear()

    def deleted() -> bool:
        camera.lifted()
        actions = [marker.action for array in camera.arrays for marker in array.markers]
        return actions.count(Marker.DELETE) == 3

    camera.peer.wait(deleted, "markers taken down")


def test_nobody_gives_an_empty_table(here: tuple[Local, DepthCamera]) -> None:
    local, camera = here
    local.predictor.persons = ()
    _, cloud = camera.lifted()
    assert (cloud.height, cloud.width, len(cloud.data)) == (0, 17, 0)
    assert [field.name for field in cloud.fields] == list(KEYPOINT_3D.names or ())


@pytest.mark.parametrize(
    ("stamps_ms", "nearest_ms"),
    [
        ((80, 95, 120), 95),
        ((80, 99, 100, 101), 100),
        ((60, 80, 110, 115), 110),
        ((103,), 103),
        ((70, 90), 90),
    ],
)
def test_of_depth_that_is_still_to_come_the_nearest_is_taken(
    stamps_ms: tuple[int, ...], nearest_ms: int
) -> None:
    """For an image of 100 ms."""
    wanted = depth_module.DepthMatch(100_000_000)
    for stamp_ms in stamps_ms:
        depth = Image()
        depth.header.stamp.nanosec = stamp_ms * 1_000_000
        wanted.offer(depth)
    assert wanted.nearest is not None
    assert wanted.nearest.header.stamp.nanosec == nearest_ms * 1_000_000
    assert wanted.final == (stamps_ms[-1] >= 100)


def test_the_nearest_depth_within_the_slop_is_taken(here: tuple[Local, DepthCamera]) -> None:
    _, camera = here
    camera.lifted()
    camera.peer.set_parameters(sync_slop=0.02)

    def others(depth: Image, info: CameraInfo) -> None:
        """Before the depth of the image, one 15 ms older and a metre nearer."""
        wrong = depth_image(SCENE - 1.0)
        stamp = depth.header.stamp
        wrong.header.stamp = Time(sec=stamp.sec - 1, nanosec=985_000_000 + stamp.nanosec)
        camera.depth.publish(wrong)

    _, cloud = camera.lifted(others)
    assert table(cloud)["z"].min() > 1.5


def test_depth_is_held_while_its_people_are_looked_for(here: tuple[Local, DepthCamera]) -> None:
    """With a slow model more depth comes meanwhile than is kept."""
    local, camera = here
    outputs = outputs_of(local.node)
    kept = outputs._input._kept
    busy = list[float]()

    def later_depth_comes() -> None:
        first, end_s = kept[-1], time.monotonic() + 10
        while kept and kept[0].header.stamp.sec <= first.header.stamp.sec:
            assert time.monotonic() < end_s
            depth = depth_image(SCENE - 1.0)
            depth.header.stamp.sec = kept[-1].header.stamp.sec + 1
            camera.depth.publish(depth)
            time.sleep(0.01)
        busy.append(time.monotonic())

    camera.lifted()
    local.predictor.while_busy = later_depth_comes
    _, cloud = camera.lifted()
    assert busy and np.abs(table(cloud)["z"] - 2.0).max() < 0.3


def test_of_large_depth_images_few_are_kept(
    here: tuple[Local, DepthCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, camera = here
    outputs = outputs_of(local.node)
    camera.lifted()
    camera.lifted()
    assert len(outputs._input._kept) > 1
    monkeypatch.setattr(depth_module, "KEPT_BYTES", 200_000)
    camera.lifted()
    assert len(outputs._input._kept) == 1


def test_an_image_that_a_newer_one_replaced_is_counted(here: tuple[Local, DepthCamera]) -> None:
    local, camera = here
    camera.depth = None  # so that each is waited for, for longer than the next takes to come
    for _ in range(10):
        camera.shoot()

    def all_counted(status: DiagnosticStatus) -> bool:
        values = local.peer.values(status)
        return int(values["lifted"]) + int(values["not_lifted"]) == int(values["frames"]) >= 10

    local.peer.status(all_counted, "every image is counted")


def other_encoding(depth: Image, info: CameraInfo) -> None:
    depth.encoding = "mono16"


def cut(depth: Image, info: CameraInfo) -> None:
    depth.data = depth.data[:100]


def camera_of_another(depth: Image, info: CameraInfo) -> None:
    info.width = 640


def too_late(depth: Image, info: CameraInfo) -> None:
    stamp = depth.header.stamp
    depth.header = type(depth.header)(
        stamp=Time(sec=stamp.sec, nanosec=stamp.nanosec + 30_000_000)
    )


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (other_size, "depth has 80x60 pixels, the image 320x240: expected depth registered"),
        (other_encoding, "depth has the encoding 'mono16', expected 16UC1 (millimetres) or 32FC1"),
        (cut, "depth has 100 bytes, expected at least 153600"),
        (uncalibrated, "camera_info is not calibrated, its K is zero"),
        (camera_of_another, "camera_info is of 640x240 pixels"),
        (too_late, "is 0.030 s from its image, sync_slop allows 0.02 s"),
    ],
)
def test_what_keeps_people_flat_is_a_warning_with_the_cause_until_it_ends(
    here: tuple[Local, DepthCamera], spoil: Spoil, cause: str
) -> None:
    _, camera = here
    camera.lifted()
    camera.assert_complained_of(cause, spoil)
    camera.content_again()


@pytest.mark.parametrize("name", ["depth", "camera_info"])
def test_what_nobody_publishes_is_told(here: tuple[Local, DepthCamera], name: str) -> None:
    """Also where it was published before; an old camera_info goes on."""
    _, camera = here
    if name == "depth":
        camera.lifted()
    attribute = {"depth": "depth", "camera_info": "info"}[name]
    camera.peer.node.destroy_publisher(getattr(camera, attribute))
    setattr(camera, attribute, None)
    topic = f"{camera.peer.namespace}/{name}"
    camera.assert_complained_of(f"no {name} on {topic}: no publisher")


def test_depth_that_does_not_arrive_is_told(here: tuple[Local, DepthCamera]) -> None:
    _, camera = here
    publisher, camera.depth = camera.depth, None  # it is there and silent
    topic = f"{camera.peer.namespace}/depth"
    camera.assert_complained_of(f"no depth on {topic}: what is published does not arrive")
    camera.depth = publisher
    camera.content_again()


def test_a_publisher_of_another_type_is_told(here: tuple[Local, DepthCamera]) -> None:
    _, camera = here
    camera.peer.node.destroy_publisher(camera.depth)
    camera.depth = None
    camera.peer.node.create_publisher(PointCloud2, "depth", 1)
    camera.assert_complained_of(
        "it carries sensor_msgs/msg/PointCloud2, expected sensor_msgs/msg/Image"
    )


def test_depth_goes_on_after_activation_and_a_jump_back(here: tuple[Local, DepthCamera]) -> None:
    local, camera = here
    camera.lifted()
    assert camera.peer.change_state("deactivate") and camera.peer.change_state("activate")
    meet(local, camera.peer)
    camera.lifted()
    camera.lifted()
    camera.peer._stamps -= 500  # a bag begins again
    jumped_s = camera.peer._stamps
    frame, _ = camera.lifted(late=True)
    assert frame.header.stamp.sec <= jumped_s + 5, "not only when what was kept is gone"


def test_a_camera_info_that_was_sent_once_is_met(here: tuple[Local, DepthCamera]) -> None:
    local, camera = here
    camera.peer.node.destroy_publisher(camera.info)
    camera.info = None
    assert camera.peer.change_state("deactivate")
    once = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = camera.peer.node.create_publisher(CameraInfo, "camera_info", once)
    publisher.publish(camera_info(SCENE.shape))
    assert camera.peer.change_state("activate")
    meet(local, camera.peer)
    camera.lifted()


def test_the_depth_of_an_image_that_is_taken_up_late_is_still_there(
    here: tuple[Local, DepthCamera],
) -> None:
    """Depth at 60 Hz; the image needed a quarter of a second to get to the node."""
    kept, images = depth_module.DepthInput(here[0].node), []
    for number in range(60):
        depth = depth_image(np.full((4, 4), 2.0))
        depth.header.stamp.sec, depth.header.stamp.nanosec = 7, number * 16_600_000
        kept._on_depth(depth)
        images.append(depth)
    wanted = kept.match(images[45].header)
    assert wanted.nearest is images[45] and wanted.final
    assert kept.match(images[0].header).nearest is images[29], "for half a second alone"


def test_depth_that_comes_late_costs_none_that_came(here: tuple[Local, DepthCamera]) -> None:
    """Two in the wrong order; a second and more back, another recording has begun."""
    kept = depth_module.DepthInput(here[0].node)
    images: dict[tuple[int, int], Image] = {}
    for sec, nanosec in ((7, 0), (7, 40_000_000), (7, 20_000_000), (5, 0)):
        depth = depth_image(np.full((4, 4), 2.0))
        depth.header.stamp.sec, depth.header.stamp.nanosec = sec, nanosec
        if sec == 5:
            assert kept.match(images[7, 0].header).nearest is images[7, 0]
            assert kept.match(images[7, 20_000_000].header).nearest is not None
        kept._on_depth(depth)
        images[sec, nanosec] = depth
    assert kept.match(images[7, 0].header).nearest is images[5, 0]


def test_of_depth_without_stamps_the_latest_alone_is_kept_and_none_while_inactive(
    here: tuple[Local, DepthCamera],
) -> None:
    kept, images = depth_module.DepthInput(here[0].node), []
    for _ in range(20):
        images.append(depth_image(np.full((4, 4), 2.0)))
        kept._on_depth(images[-1])
    assert list(kept._kept) == images[-1:]
    kept.close()
    assert not kept._kept


def test_no_thread_is_left(here: tuple[Local, DepthCamera]) -> None:
    """Frames wait for a depth that does not come while the node is taken down."""
    local, camera = here
    camera.lifted()
    camera.peer.node.destroy_publisher(camera.depth)
    camera.depth = None
    camera.shoot()
    assert camera.peer.change_state("deactivate")
    outputs = outputs_of(local.node)
    assert outputs._worker is None
    assert camera.peer.change_state("cleanup")
    assert local.node._loaded is None
