"""People in metres by the running node: with depth and camera_info, and why without."""

from __future__ import annotations

import signal
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import Marker, MarkerArray

from kdc_ros import depth as depth_module
from kdc_ros import outputs_3d
from kdc_ros.camera import Stamp, stamp_of
from kdc_ros.lifting import KEYPOINT_3D
from kdc_ros.node import KdcNode
from kdc_ros.tables import KEYPOINT

from .local import Local, local_node
from .peer import MakePeer, Peer
from .process import NodeProcess, Start
from .scene import (
    CX,
    CY,
    FX,
    FY,
    SIZE,
    STANDING,
    camera_info,
    depth_image,
    person_of,
    project,
    surface,
)

pytestmark = pytest.mark.ros

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


# The node in this process, with a stub that finds the body of the scene


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


def outputs_of(node: KdcNode) -> outputs_3d.Outputs3d:
    assert node._loaded is not None and node._loaded.outputs_3d is not None
    return node._loaded.outputs_3d


def meet(local: Local, peer: Peer) -> None:
    """The person is too large for the frames that are answered meanwhile."""
    local.predictor.persons = ()
    peer.meet()
    local.predictor.persons = (person_of(MASK, project(BODY)),)


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


def test_a_subscriber_in_metres_alone_keeps_the_node_from_idling(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer
) -> None:
    with local_node(monkeypatch, spin=True, autostart=True, enable_3d=True) as (node, predictor):
        predictor.persons = (person_of(MASK, project(BODY)),)
        camera = DepthCamera(peer(node.get_namespace(), answers={}))
        _, cloud = camera.lifted()
        assert table(cloud).shape == (1, 17)


def other_size(depth: Image, info: CameraInfo) -> None:
    small = depth_image(np.full((60, 80), 2.0))
    depth.height, depth.width, depth.step = small.height, small.width, small.step
    depth.data = small.data


def other_encoding(depth: Image, info: CameraInfo) -> None:
    depth.encoding = "mono16"


def cut(depth: Image, info: CameraInfo) -> None:
    depth.data = depth.data[:100]


def uncalibrated(depth: Image, info: CameraInfo) -> None:
    info.k = np.zeros(9)


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


@pytest.mark.parametrize("overridden", ["depth", "camera_info"])
def test_an_overridden_subscription_is_made_once(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer, overridden: str
) -> None:
    override = f"qos_overrides./elsewhere/{overridden}.subscription.depth"
    arguments = ["--ros-args", "-p", f"{override}:=9"]
    for topic in ("depth", "camera_info"):
        arguments += ["-r", f"{topic}:=/elsewhere/{topic}"]
    with local_node(monkeypatch, True, arguments, autostart=True, enable_3d=True) as (node, found):
        local = Local(node, found, peer(node.get_namespace()))
        camera = DepthCamera(local.peer)
        meet(local, local.peer)
        publishers = [
            camera.peer.node.create_publisher(kind, f"/elsewhere/{topic}", 1)
            for topic, kind in (("depth", Image), ("camera_info", CameraInfo))
        ]
        outputs = outputs_of(node)
        depth = outputs._input
        local.peer.wait(lambda: all(not why for why in depth._absent.values()), "publishers")
        before = dict(depth._subscriptions)
        looks: list[float] = []
        look = depth.follow_publishers

        def counted() -> None:
            look()
            looks.append(time.monotonic())

        monkeypatch.setattr(depth, "follow_publishers", counted)
        local.peer.wait(lambda: len(looks) >= 3, "three looks")
        assert depth._subscriptions == before
        for publisher in publishers:
            camera.peer.node.destroy_publisher(publisher)


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


def test_without_enable_3d_there_are_no_topics(local: Local) -> None:
    names = [name for name, _ in local.node.get_topic_names_and_types()]
    mine = [name for name in names if name.startswith(local.node.get_namespace())]
    assert mine and not [n for n in mine if n.endswith(("_3d", "markers", "depth", "camera_info"))]
    assert "lifted" not in local.peer.counters()


# The node in a process of its own, with its model


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
