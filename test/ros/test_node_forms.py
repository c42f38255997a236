"""Forms of the input: compressed, a part of it, turned; and nobody who wants what comes of it."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger

from kdc_core.codec.results import Person
from kdc_ros.health import health_of
from kdc_ros.tables import IMAGES

from .local import Local, local_node
from .peer import BLACK, MakePeer, Peer, persons

pytestmark = pytest.mark.ros

PICTURE = np.random.default_rng(0).integers(0, 255, BLACK.shape, np.uint8)


def compressed(peer: Peer, data: bytes) -> CompressedImage:
    return CompressedImage(header=peer.frame().header, format="png", data=array("B", data))


def send_compressed(peer: Peer, topic: str) -> dict[str, Any]:
    """Publish png images until one is answered, and then what is no image."""
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = peer.node.create_publisher(CompressedImage, topic, qos)
    peer.wait(publisher.get_subscription_count, f"a subscriber of {topic}")
    found: list[dict[str, Any]] = []

    def answered() -> bool:
        publisher.publish(compressed(peer, cv2.imencode(".png", PICTURE[..., ::-1])[1].tobytes()))
        found[:] = [a for a in peer.received.values() if len(a) == len(peer.answers)]
        return bool(found)

    peer.wait(answered, "people of a compressed image")
    publisher.publish(compressed(peer, b"\xff\xd8 no jpeg"))
    return found[0]


@pytest.mark.parametrize("remapped", ["image", "other", "other/compressed"])
def test_compressed_images_are_answered_wherever_they_are_remapped_to(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer, remapped: str
) -> None:
    """`image` is remapped to the base topic, as for image_transport, or to the compressed one."""
    remap = ["--ros-args", "-r", f"image:={remapped}"]
    with local_node(monkeypatch, True, remap, autostart=True, image_transport="compressed") as (
        node,
        predictor,
    ):
        camera = peer(node.get_namespace())
        topic = f"{node.get_namespace()}/{remapped.removesuffix('/compressed')}/compressed"
        answer = send_compressed(camera, topic)
        assert predictor.last is not None and (predictor.last == PICTURE).all()
        labels = answer["labels"]
        assert (labels.height, labels.width) == PICTURE.shape[:2]
        camera.wait(lambda: node._monitor.bad, "the last")
        assert "ends within its header" in node._monitor.last_error
        assert node._input.topic == topic


def test_a_part_of_the_image_is_processed_and_outputs_are_of_the_whole(local: Local) -> None:
    peer, predictor = local.peer, local.predictor
    predictor.persons = (person(),)
    peer.set_parameters(roi="10,20,40,16", confidence=0.0)
    answers = peer.answer(PICTURE)
    assert predictor.last is not None and (predictor.last == PICTURE[20:36, 10:50]).all()
    assert (answers["labels"].height, answers["labels"].width) == PICTURE.shape[:2]
    row = persons(answers)[0]
    assert (row["left"], row["top"]) == (10 + 2, 20 + 3)
    labels = np.frombuffer(answers["labels"].data, "<u2").reshape(PICTURE.shape[:2])
    assert (labels[23:27, 12:17] == row["id"]).all() and (labels > 0).sum() == 20


def test_a_part_that_reaches_out_of_the_image_is_a_bad_frame_with_the_sizes(
    local: Local,
) -> None:
    local.peer.set_parameters(roi="0,0,65,48")
    local.peer.publisher.publish(local.peer.frame())
    status = local.peer.status(lambda s: local.peer.values(s)["bad"] == "1", "a bad frame")
    told = local.peer.values(status)["last_error"]
    assert "'0,0,65,48'" in told and "64 wide and 48 high" in told
    local.peer.set_parameters(roi="")
    local.peer.answer()


def test_the_model_sees_the_image_turned(local: Local) -> None:
    local.peer.set_parameters(rotate=90)
    local.peer.answer()
    assert local.predictor.rotate == 90


def test_small_people_are_left_out(local: Local) -> None:
    local.predictor.persons = (person(),)
    local.peer.set_parameters(min_area=20)
    assert len(persons(local.peer.answer())) == 1
    local.peer.set_parameters(min_area=21)
    assert len(persons(local.peer.answer())) == 0


def person() -> Person:
    keypoints = np.tile(np.array([4.0, 5.0, 0.9], np.float32), (17, 1))
    box = np.array([2, 3, 7, 7], np.float32)
    return Person(0.9, keypoints, box, np.ones((4, 5), bool), (2, 3), np.empty((0, 4), np.float32))


def test_ids_stay_with_people_until_they_are_reset(local: Local) -> None:
    peer, predictor = local.peer, local.predictor
    predictor.persons = (person(),)
    first = persons(peer.answer())[0]["id"]
    assert persons(peer.answer())[0]["id"] == first
    predictor.persons = ()
    peer.set_parameters(track_timeout=0.0)
    assert len(persons(peer.answer())) == 0
    predictor.persons = (person(),)
    assert persons(peer.answer())[0]["id"] > first, "somebody else, for all that is known"
    answer = peer.call(Trigger, "reset", Trigger.Request())
    assert answer.success
    assert persons(peer.answer())[0]["id"] == 1
    assert peer.counters()["tracks_lost"] == "1", "what was counted stays"
    peer.set_parameters(tracking=False)
    assert persons(peer.answer())[0]["id"] == 1, "by score, in each frame"


def test_nobody_listens_and_nothing_is_processed(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer
) -> None:
    with local_node(monkeypatch, spin=True, autostart=True) as (node, predictor):
        camera = peer(node.get_namespace(), answers={})
        camera.send_until(lambda: node._monitor.received > 2, "images are still subscribed to")
        idle = camera.status(lambda s: s.message.startswith("idle"), "idle")
        assert idle.level == DiagnosticStatus.OK and "nobody subscribes" in idle.message
        warm_up = predictor.submitted
        received = node._monitor.received
        camera.send_until(lambda: node._monitor.received > received + 2, "more")
        assert predictor.submitted == warm_up
        qos = QoSProfile(depth=5)
        listener = camera.node.create_subscription(
            PointCloud2, f"{node.get_namespace()}/kdc/persons", lambda _: None, qos
        )
        camera.send_until(lambda: predictor.submitted > warm_up, "somebody listens")
        camera.status(lambda s: s.message == "running", "running")
        camera.node.destroy_subscription(listener)
        camera.status(lambda s: s.message.startswith("idle"), "idle again")
        before = predictor.submitted
        camera.set_parameters(lazy=False)
        camera.send_until(lambda: predictor.submitted > before, "although nobody listens")


def test_what_processing_needs_is_there_only_while_configured(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_node(monkeypatch) as (node, _):
        answer = node._on_reset(Trigger.Request(), Trigger.Response())
        assert not answer.success and "unconfigured" in answer.message
        node.set_parameters([Parameter("roi", value="1,1,5,5")])
        node.trigger_configure()
        assert node._on_reset(Trigger.Request(), Trigger.Response()).success


def test_topics_of_images_are_those_that_kdc_bag_takes_for_no_camera(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_node(monkeypatch) as (node, _):
        node.trigger_configure()
        own = f"{node.get_fully_qualified_name()}/"
        found = {
            publisher.topic_name.removeprefix(own)
            for publisher in node.publishers
            if publisher.msg_type in (Image, CompressedImage)
        }
        assert found == set(IMAGES)


def test_threads_reach_the_model(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_node(monkeypatch, threads=3) as (node, predictor):
        node.trigger_configure()
        assert predictor.opened_with[3] == 3


@pytest.mark.parametrize("stopping", [False, True])
def test_a_model_is_warmed_up_unless_the_node_is_to_stop(
    domain: int, monkeypatch: pytest.MonkeyPatch, stopping: bool
) -> None:
    with local_node(monkeypatch) as (node, predictor):
        if stopping:
            node.stopping.set()
        node.trigger_configure()
        assert predictor.submitted == (0 if stopping else 2)


def test_an_override_of_the_input_s_reliability_goes_over_the_parameter(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    remap = ["--ros-args", "-r", "image:=/overridden"]
    override = "qos_overrides./overridden.subscription"
    values: dict[str, Any] = {f"{override}.reliability": "best_effort", f"{override}.depth": 3}
    with local_node(monkeypatch, arguments=remap, **values) as (node, _):
        node.trigger_configure()
        for _ in range(2):
            node.trigger_activate()
            assert not node._input.reliable and not node._input._follow
            subscription = node._input._subscription
            assert subscription is not None and subscription.qos_profile.depth == 3
            node.trigger_deactivate()


def test_an_override_that_is_none_is_named(
    domain: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    remap = ["--ros-args", "-r", "image:=/overridden"]
    override = "qos_overrides./overridden.subscription.reliability"
    values: dict[str, Any] = {override: "sometimes"}
    with local_node(monkeypatch, arguments=remap, **values) as (node, _):
        node.trigger_configure()
        node.trigger_activate()
        assert health_of(node._now())[1].startswith(
            f"activate failed: parameter {override}: expected"
        )
    assert "Traceback" not in capfd.readouterr().err


def test_an_override_of_an_output_leaves_the_others_as_they_are(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    remap = ["--ros-args", "-r", "__ns:=/quiet"]
    override = "qos_overrides./quiet/kdc/keypoints.publisher.reliability"
    values: dict[str, Any] = {override: "best_effort"}
    with local_node(monkeypatch, arguments=remap, **values) as (node, _):
        node.trigger_configure()
        found = {
            topic: node.get_publishers_info_by_topic(f"~/{topic}")[0].qos_profile.reliability
            for topic in ("keypoints", "persons", "labels")
        }
        assert found["keypoints"] == ReliabilityPolicy.BEST_EFFORT
        assert found["persons"] == found["labels"] == ReliabilityPolicy.RELIABLE


def test_a_configure_that_fails_leaves_no_publisher(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    override = "qos_overrides./refused/kdc/markers.publisher.reliability"
    values: dict[str, Any] = {override: "sometimes"}
    with local_node(
        monkeypatch,
        arguments=["--ros-args", "-r", "__ns:=/refused"],
        enable_3d=True,
        **values,
    ) as (node, _):
        before = len(list(node.publishers))
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "`sometimes`" in health_of(node._now())[1]
        assert len(list(node.publishers)) == before
