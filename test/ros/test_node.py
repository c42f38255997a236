"""The node, from outside: real rclpy, the node in a process of its own, as on a robot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

import kdc_core
from kdc_core.codec.skeleton import COCO17
from kdc_core.inference.runtimes.choice import CPU, order
from kdc_ros.images import to_rgb
from kdc_ros.parameters import TABLE
from kdc_ros.tables import KEYPOINT, PERSON

from .peer import BLACK, OUTPUTS, WITH_ANNOTATED, MakePeer, Peer, persons
from .process import NodeProcess, Start
from .test_images import IMAGES
from .test_images import frame as encoded

pytestmark = pytest.mark.ros

# With confidence 0 every candidate counts, so that people are found by any model.
EVERYBODY = {
    "confidence": 0.0,
    "keypoint_threshold": 0.3,
    "mask_threshold": 0.5,
    "max_persons": 32,
    "tracking": True,
    "max_rate": 0.0,
    "input_timeout": 2.0,
}


def keypoints(answers: dict[str, Any]) -> np.ndarray:
    cloud = answers["keypoints"]
    return np.frombuffer(cloud.data, KEYPOINT).reshape(cloud.height, cloud.width)


def labels(answers: dict[str, Any]) -> np.ndarray:
    image = answers["labels"]
    return np.frombuffer(image.data, "<u2").reshape(image.height, image.width)


def assert_agree(answers: dict[str, Any]) -> None:
    """The same people in all outputs."""
    found, table = persons(answers), keypoints(answers)
    assert len(table) == len(found)
    assert (table["id"] == found["id"][:, None]).all()
    assert (table["score"] == table["score"]).all(), "a score is NaN"
    assert ((table["visible"] == 1) == ~np.isnan(table["u"])).all()
    assert (found["visible"] == table["visible"].sum(1)).all()
    assert (np.diff(found["id"].astype(int), prepend=0) > 0).all(), "rows are not by id"
    pixels = np.bincount(labels(answers).ravel(), minlength=1 << 16)
    assert pixels[found["id"]].tolist() == found["area"].tolist()
    assert pixels[1:].sum() == found["area"].sum()


# One node for all tests that leave it running


@dataclass
class Running:
    """The process of the node, and a camera on its topics."""

    process: NodeProcess
    peer: Peer


@pytest.fixture(scope="module")
def running(start: Start, module_peers: MakePeer) -> Running:
    process = start("-r", "__ns:=/shared", "-p", "confidence:=0.0")
    peer = module_peers("/shared")
    peer.meet()
    return Running(process, peer)


@pytest.fixture
def shared(running: Running) -> Peer:
    """The peer of a node that processes frames and publishes every candidate."""
    running.peer.set_parameters(**EVERYBODY)
    running.peer.enable(True)
    running.peer.received.clear()
    return running.peer


def test_all_answers_carry_the_header_of_the_frame(shared: Peer, people: np.ndarray) -> None:
    frame = shared.frame(people)
    frame.header.frame_id = "left_eye"
    answers = shared.ask(frame)[0]
    assert [answers[topic].header for topic in OUTPUTS] == [frame.header] * 3


def test_people_agree_in_all_answers(shared: Peer, people: np.ndarray) -> None:
    answers = shared.answer(people)
    assert len(persons(answers)) > 1
    assert_agree(answers)


def test_labels_have_the_size_of_the_frame(shared: Peer) -> None:
    for height, width in ((48, 64), (91, 37), (240, 320)):
        image = shared.answer(np.zeros((height, width, 3), np.uint8))["labels"]
        assert (image.height, image.width, image.step) == (height, width, 2 * width)
        assert image.encoding == "mono16"


def test_an_empty_scene_is_answered_explicitly(shared: Peer) -> None:
    shared.set_parameters(confidence=1.0)
    frame = shared.frame(BLACK)
    answers = shared.ask(frame)[0]
    assert [answers[topic].header for topic in OUTPUTS] == [frame.header] * 3
    assert (answers["keypoints"].height, len(answers["keypoints"].data)) == (0, 0)
    assert (answers["persons"].width, len(answers["persons"].data)) == (0, 0)
    assert [field.name for field in answers["keypoints"].fields] == list(KEYPOINT.names or ())
    assert [field.name for field in answers["persons"].fields] == list(PERSON.names or ())
    assert labels(answers).shape == BLACK.shape[:2]
    assert not labels(answers).any()


def test_a_black_image_has_nobody_in_it(shared: Peer) -> None:
    """With the confidence that the node has by default."""
    shared.set_parameters(confidence=TABLE["confidence"].default)
    assert len(persons(shared.answer(np.zeros((240, 320, 3), np.uint8)))) == 0


def test_a_zero_stamp_is_copied(shared: Peer) -> None:
    frame = shared.frame()
    frame.header.stamp.sec = frame.header.stamp.nanosec = 0
    frame.header.frame_id = ""
    answers = shared.ask(frame)[0]
    assert [answers[topic].header for topic in OUTPUTS] == [frame.header] * 3


def test_a_stamp_that_was_there_before_is_answered_again(shared: Peer) -> None:
    frame = shared.frame()
    shared.ask(frame)
    assert set(shared.ask(frame)[0]) == set(OUTPUTS)


def test_the_encoding_may_change_in_mid_stream(shared: Peer, people: np.ndarray) -> None:
    """The same image in two layouts gives the same people."""
    as_rgb = shared.answer(people)
    as_bgr = shared.answer(people[..., ::-1], "bgr8")
    assert as_rgb["keypoints"].data == as_bgr["keypoints"].data
    assert as_rgb["labels"].data == as_bgr["labels"].data


@pytest.mark.all
@pytest.mark.parametrize("padding", [0, 5])
def test_every_encoding_is_answered(shared: Peer, padding: int) -> None:
    bad = shared.counters()["bad"]
    for encoding in IMAGES:
        frame = shared.frame()
        for name, value in vars(encoded(encoding, padding)).items():
            setattr(frame, name, value)
        labels = shared.ask(frame)[0]["labels"]
        assert (labels.height, labels.width) == (frame.height, frame.width), encoding
    assert shared.counters()["bad"] == bad


def test_depth_is_refused_with_what_to_publish(running: Running, shared: Peer) -> None:
    shared.publisher.publish(shared.frame(np.zeros((48, 64), np.uint16), "16UC1"))
    status = shared.status(lambda s: "'16UC1'" in shared.values(s)["last_error"], "refused")
    assert "depth by convention: publish mono16" in shared.values(status)["last_error"]


def test_bad_frames_are_told_in_the_log(running: Running, shared: Peer) -> None:
    """Not each of them: the warnings are five seconds apart."""
    frame = shared.frame()
    frame.encoding = "rgb9"
    shared.publisher.publish(frame)
    shared.wait(lambda: "bad frame: " in running.process.log, "a warning")
    assert running.process.runs
    assert set(shared.answer()) == set(OUTPUTS)


def test_confidence_takes_effect_with_the_next_frame(shared: Peer, people: np.ndarray) -> None:
    """Who is followed would stay with a little less."""
    shared.set_parameters(tracking=False)
    scores = persons(shared.answer(people))["score"].tolist()
    shared.set_parameters(confidence=(scores[0] + scores[1]) / 2)
    some = shared.answer(people)
    assert_agree(some)
    assert persons(some)["score"].tolist() == scores[:1]
    shared.set_parameters(confidence=1.0)
    assert len(persons(shared.answer(people))) == 0


def test_max_persons_takes_the_best(shared: Peer, people: np.ndarray) -> None:
    everybody = persons(shared.answer(people))
    shared.set_parameters(max_persons=1)
    one = shared.answer(people)
    assert_agree(one)
    assert persons(one)["score"].tolist() == [everybody["score"].max()]


def test_keypoint_threshold_hides_keypoints(shared: Peer, people: np.ndarray) -> None:
    """All hidden at 1; people without pixels and without keypoints are then left out."""
    shared.set_parameters(keypoint_threshold=0.0)
    assert keypoints(shared.answer(people))["visible"].all()
    shared.set_parameters(keypoint_threshold=1.0)
    hidden = shared.answer(people)
    assert_agree(hidden)
    assert not keypoints(hidden)["visible"].any()


def test_a_refused_change_changes_nothing(shared: Peer, people: np.ndarray) -> None:
    before = shared.answer(people)
    result = shared.set_parameter("confidence", 2.0)
    assert not result.successful
    assert "confidence" in result.reason
    assert shared.answer(people)["persons"].data == before["persons"].data


def test_the_model_cannot_change_while_the_node_runs(shared: Peer) -> None:
    result = shared.set_parameter("model", "other.onnx")
    assert not result.successful
    assert "run cleanup first" in result.reason


def test_info_is_there_for_a_late_subscriber(shared: Peer) -> None:
    info = shared.info()
    assert info["version"] == kdc_core.__version__
    assert info["model"] == "kdc_light"
    assert info["runtime"] == next(name for name in order(one_size=True) if name in CPU)
    assert info["keypoints"] == list(COCO17.keypoints)
    assert info["bones"] == [list(bone) for bone in COCO17.bones]
    assert info["parameters"] == {
        **{name: row.default for name, row in TABLE.items()},
        **EVERYBODY,
    }


def test_info_follows_the_parameters(shared: Peer) -> None:
    shared.set_parameters(max_persons=5)
    assert shared.info()["parameters"]["max_persons"] == 5


def test_diagnostics_of_a_running_node(shared: Peer) -> None:
    frame = shared.frame()
    frame.header.stamp = shared.node.get_clock().now().to_msg()  # else no latency is known
    shared.ask(frame)
    status = shared.status(lambda status: status.message == "running", "running")
    values = shared.values(status)
    assert status.level == DiagnosticStatus.OK
    assert status.name == "/shared/kdc: people"
    assert (status.hardware_id, values["device"]) == ("/shared/kdc (cpu)", "cpu")
    assert (values["state"], values["model"]) == ("active", "kdc_light")
    assert int(values["frames"]) > 0
    assert float(values["model_ms_p50"]) > 0
    assert float(values["latency_ms_p50"]) > 0


def test_a_silent_camera_is_warned_of(shared: Peer) -> None:
    shared.set_parameters(input_timeout=0.25)
    status = shared.status(lambda status: status.level == DiagnosticStatus.WARN, "a warning")
    assert status.message.startswith("no images on /shared/image for ")


def test_annotated_is_the_image_with_people_drawn(
    shared: Peer, peer: MakePeer, people: np.ndarray
) -> None:
    viewer = peer("/shared", answers=WITH_ANNOTATED)
    viewer.meet()
    frame = viewer.frame(people)
    annotated = viewer.ask(frame)[0]["annotated"]
    assert annotated.header == frame.header
    assert annotated.encoding == "bgr8"
    assert (annotated.height, annotated.width) == people.shape[:2]
    drawn = to_rgb(annotated)
    changed = (drawn != people).any(-1)
    assert changed.any(), "nothing is drawn"
    assert np.abs(drawn.astype(int) - people).mean() < 100, "this is another image"
