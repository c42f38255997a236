"""The node, from outside: real rclpy, the node in a process of its own, as on a robot.

Only the last group runs the node in this process, with a stub of the model, for faults that no
picture provokes.
"""

from __future__ import annotations

import os
import signal
import subprocess
from array import array
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image

import kdc_core
from kdc_core.skeleton import COCO17
from kdc_ros import outputs
from kdc_ros.camera import ANSWERS
from kdc_ros.images import ENCODINGS, to_rgb
from kdc_ros.messages import KEYPOINT, PERSON
from kdc_ros.parameters import TABLE

from .local import local_node
from .peer import BLACK, Peer

pytestmark = pytest.mark.ros

OUTPUTS = ("keypoints", "persons", "labels")
WITH_ANNOTATED = {**ANSWERS, "annotated": Image}
STOP_TIMEOUT_S = 20
FAULTS_BEFORE_GIVING_UP = 10
# With confidence 0 every candidate counts, so that people are found by any model.
EVERYBODY = {
    "confidence": 0.0, "keypoint_threshold": 0.3, "mask_threshold": 0.5, "max_persons": 32,
    "max_rate": 0.0, "input_timeout": 2.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    """A real picture with several people, 320 wide."""
    folder = Path(str(files("kdc_core") / "samples"))
    picture = cv2.imread(str(sorted(folder.glob("*.jpg"))[0]))[..., ::-1]
    height = round(picture.shape[0] * 320 / picture.shape[1])
    return cv2.resize(picture, (320, height), interpolation=cv2.INTER_AREA)


def keypoints(answers: dict[str, Any]) -> np.ndarray:
    cloud = answers["keypoints"]
    return np.frombuffer(cloud.data, KEYPOINT).reshape(cloud.height, cloud.width)


def persons(answers: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(answers["persons"].data, PERSON)


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
    assert found["id"].tolist() == list(range(1, len(found) + 1))
    pixels = np.bincount(labels(answers).ravel(), minlength=len(found) + 1)[1:]
    assert pixels.tolist() == found["area"].tolist()


# One node for all tests that leave it running


@pytest.fixture(scope="module")
def running(start: Callable[..., Any], module_peers: Callable[..., Peer]) -> SimpleNamespace:
    process = start("-r", "__ns:=/shared", "-p", "confidence:=0.0")
    peer = module_peers("/shared")
    peer.meet()
    return SimpleNamespace(process=process, peer=peer)


@pytest.fixture
def shared(running: SimpleNamespace) -> Peer:
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


def test_a_black_picture_has_nobody_in_it(shared: Peer) -> None:
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
    """The same picture in two layouts gives the same people."""
    as_rgb = shared.answer(people)
    as_bgr = shared.answer(people[..., ::-1], "bgr8")
    assert as_rgb["keypoints"].data == as_bgr["keypoints"].data
    assert as_rgb["labels"].data == as_bgr["labels"].data


def unknown_encoding(frame: Image) -> str:
    frame.encoding = "rgb9"
    return "encoding 'rgb9' is not known; expected one of " + ", ".join(ENCODINGS)


def zero_size(frame: Image) -> str:
    frame.height = frame.width = frame.step = 0
    frame.data = array("B")
    return "size 0x0"


def short_data(frame: Image) -> str:
    frame.data = frame.data[:-1]
    return "data has 9215 bytes, expected at least 9216"


@pytest.mark.parametrize("spoil", [unknown_encoding, zero_size, short_data])
def test_a_bad_frame_is_counted_and_the_next_one_answered(
    running: SimpleNamespace, shared: Peer, spoil: Callable[[Image], str]
) -> None:
    frame = shared.frame()
    cause = spoil(frame)
    before = int(shared.counters()["bad"])
    shared.publisher.publish(frame)
    status = shared.status(
        lambda status: int(shared.values(status)["bad"]) == before + 1, "bad frame counted"
    )
    assert cause in shared.values(status)["last_error"]
    assert running.process.poll() is None
    assert not shared.received.get((frame.header.stamp.sec, frame.header.stamp.nanosec))
    assert set(shared.answer()) == set(OUTPUTS)


def test_bad_frames_are_told_in_the_log(running: SimpleNamespace, shared: Peer) -> None:
    """Not each of them: the warnings are five seconds apart."""
    frame = shared.frame()
    frame.encoding = "rgb9"
    shared.publisher.publish(frame)
    shared.wait(lambda: "bad frame: " in running.process.log_file.read_text(), "a warning")


def test_enable_pauses_and_resumes(shared: Peer) -> None:
    assert shared.enable(False).success
    status = shared.send_and_watch(lambda values: float(values["output_hz"]) == 0)
    assert (status.level, status.message) == (DiagnosticStatus.OK, "paused by ~/enable")
    assert shared.enable(True).success
    assert set(shared.answer()) == set(OUTPUTS)


def test_max_rate_leaves_frames_out(shared: Peer) -> None:
    shared.set_parameters(max_rate=0.001)
    shared.send_and_watch(lambda values: float(values["output_hz"]) == 0)
    shared.set_parameters(max_rate=0.0)
    shared.send_and_watch(lambda values: float(values["output_hz"]) > 0)


def test_confidence_takes_effect_with_the_next_frame(shared: Peer, people: np.ndarray) -> None:
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
    assert "clean the node up first" in result.reason


def test_info_is_there_for_a_late_subscriber(shared: Peer) -> None:
    info = shared.info()
    assert info["version"] == kdc_core.__version__
    assert info["model"] == "kdc_light"
    assert info["runtime"] == "onnxruntime"
    assert info["keypoints"] == list(COCO17.keypoints)
    assert info["bones"] == [list(bone) for bone in COCO17.bones]
    assert info["parameters"] == {
        **{name: row.default for name, row in TABLE.items()}, **EVERYBODY
    }  # fmt: skip


def test_info_follows_the_parameters(shared: Peer) -> None:
    shared.set_parameters(max_persons=5)
    assert shared.info()["parameters"]["max_persons"] == 5


def test_diagnostics_of_a_running_node(shared: Peer) -> None:
    shared.answer()
    status = shared.status(lambda status: status.message == "running", "running")
    values = shared.values(status)
    assert status.level == DiagnosticStatus.OK
    assert status.name == "kdc: people"
    assert status.hardware_id == values["device"] == "cpu"
    assert (values["state"], values["model"]) == ("active", "kdc_light")
    assert int(values["frames"]) > 0
    assert float(values["model_ms_p50"]) > 0
    assert float(values["latency_ms_p50"]) > 0


def test_a_silent_camera_is_warned_of(shared: Peer) -> None:
    shared.set_parameters(input_timeout=0.25)
    status = shared.status(lambda status: status.level == DiagnosticStatus.WARN, "a warning")
    assert status.message.startswith("no images on /shared/image for ")


def test_annotated_is_the_picture_with_people_drawn(
    shared: Peer, peer: Callable[..., Peer], people: np.ndarray
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
    assert np.abs(drawn.astype(int) - people).mean() < 100, "this is another picture"


# Both reliabilities, both start orders


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "best effort"])
def test_camera_before_node(
    start: Callable[..., Any], peer: Callable[..., Peer], reliable: bool
) -> None:
    namespace = f"/camera_first_{'reliable' if reliable else 'best_effort'}"
    camera = peer(namespace, reliable)
    start("-r", f"__ns:={namespace}")
    camera.meet()
    wanted = "reliable" if reliable else "best_effort"
    camera.status(
        lambda status: camera.values(status)["input_reliability"] == wanted, f"{wanted} input"
    )


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "best effort"])
def test_node_before_camera(
    start: Callable[..., Any], peer: Callable[..., Peer], reliable: bool
) -> None:
    namespace = f"/node_first_{'reliable' if reliable else 'best_effort'}"
    observer = peer(namespace, answers={})
    observer.node.destroy_publisher(observer.publisher)
    start("-r", f"__ns:={namespace}", "-p", "input_timeout:=0.25")
    observer.status(
        lambda status: status.message == f"no publisher on {namespace}/image",
        "the node subscribes and nobody publishes",
    )
    peer(namespace, reliable).meet()


# Lifecycle, managed from outside


@pytest.fixture(scope="module")
def by_hand(start: Callable[..., Any], module_peers: Callable[..., Peer]) -> SimpleNamespace:
    process = start(
        "-r", "__ns:=/by_hand", "-p", "autostart:=false", "-p", "confidense:=0.3",
    )  # fmt: skip
    return SimpleNamespace(process=process, peer=module_peers("/by_hand"))


@pytest.fixture
def managed(by_hand: SimpleNamespace) -> Peer:
    """The peer of a node that is unconfigured."""
    if by_hand.peer.state() == "active":
        assert by_hand.peer.change_state("deactivate")
    if by_hand.peer.state() == "inactive":
        assert by_hand.peer.change_state("cleanup")
    by_hand.peer.set_parameters(model="", reliability="auto")
    return by_hand.peer


def test_lifecycle_twice_round(managed: Peer) -> None:
    for _ in range(2):
        assert managed.state() == "unconfigured"
        assert managed.change_state("configure")
        assert managed.state() == "inactive"
        assert managed.change_state("activate")
        assert managed.state() == "active"
        managed.meet()
        assert managed.change_state("deactivate")
        assert managed.state() == "inactive"
        managed.wait(lambda: not managed.publisher.get_subscription_count(), "unsubscribed")
        assert managed.change_state("cleanup")
        managed.wait(
            lambda: not managed.node.count_publishers("/by_hand/kdc/labels"), "outputs gone"
        )


def test_without_autostart_the_node_waits(managed: Peer) -> None:
    status = managed.status()
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "unconfigured")
    assert managed.state() == "unconfigured"


def test_activating_again_keeps_the_outputs(managed: Peer) -> None:
    assert managed.change_state("configure")
    for _ in range(2):
        assert managed.change_state("activate")
        managed.meet()
        assert managed.change_state("deactivate")


def test_a_transition_that_is_not_possible_now_is_refused(managed: Peer) -> None:
    assert not managed.change_state("activate")
    assert managed.state() == "unconfigured"
    assert managed.change_state("configure")


def test_configure_may_fail_and_succeed_later(managed: Peer, by_hand: SimpleNamespace) -> None:
    managed.set_parameters(model="/nonexistent.onnx")
    assert not managed.change_state("configure")
    assert managed.state() == "unconfigured"
    status = managed.status()
    assert status.level == DiagnosticStatus.ERROR
    assert status.message.startswith("configure failed: ")
    assert "/nonexistent.onnx" in status.message
    assert "Traceback" not in by_hand.process.log_file.read_text()

    managed.set_parameters(model="")
    assert managed.change_state("configure")
    assert managed.change_state("activate")
    managed.meet()
    assert managed.status().level != DiagnosticStatus.ERROR


def test_parameters_set_before_configure_are_used(managed: Peer, people: np.ndarray) -> None:
    managed.set_parameters(confidence=0.0, max_persons=1)
    assert managed.change_state("configure")
    assert managed.change_state("activate")
    managed.meet()
    assert len(persons(managed.answer(people))) == 1
    managed.set_parameters(confidence=0.5, max_persons=32)


def test_a_camera_that_does_not_fit_the_wanted_reliability_is_warned_of(
    managed: Peer, by_hand: SimpleNamespace, peer: Callable[..., Peer]
) -> None:
    managed.set_parameters(reliability="reliable")
    assert managed.change_state("configure")
    assert managed.change_state("activate")
    peer("/by_hand", reliable=False)
    managed.wait(
        lambda: "the camera's QoS does not fit" in by_hand.process.log_file.read_text(),
        "a warning",
    )
    managed.meet()


def test_a_misspelt_parameter_is_warned_of(managed: Peer, by_hand: SimpleNamespace) -> None:
    log = by_hand.process.log_file.read_text()
    assert "parameter 'confidense' does not exist" in log
    assert "confidence" in log


# The end


def shared_memory(pid: int) -> set[Path]:
    """Files in /dev/shm that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    fields = [line.split(maxsplit=5) for line in lines]
    return {
        Path(parts[5]) for parts in fields if len(parts) == 6 and parts[5].startswith("/dev/shm/")
    }


def assert_ends_well(process: Any) -> None:
    """Within a time in which nothing can hang, with exit code 0 and nothing to complain of."""
    try:
        code = process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"still there {STOP_TIMEOUT_S} s after the signal")
    log = process.log_file.read_text()
    assert code == 0, log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def staying(module_peers: Callable[..., Peer]) -> Peer:
    """A camera that stays while nodes come and go."""
    return module_peers("/stop")


@pytest.mark.parametrize(
    "signals",
    [("SIGINT",), ("SIGTERM",), ("SIGINT", "SIGINT"), ("SIGINT", "SIGTERM")],
    ids=" ".join,
)
def test_a_signal_ends_the_node_cleanly(
    start: Callable[..., Any], staying: Peer, signals: tuple[str, ...]
) -> None:
    """Also with a frame in work, and a second signal: Ctrl-C and ros2 launch send one each.

    That the camera stays shows that a node can be started anew.
    """
    others = set(Path("/dev/shm").iterdir())
    process = start("-r", "__ns:=/stop")
    staying.meet()
    own_memory = shared_memory(process.pid) - others
    staying.publisher.publish(staying.frame())
    for name in signals:
        process.send_signal(getattr(signal, name))
    assert_ends_well(process)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # it was started as the head of a group

    def left() -> set[Path]:
        # What this side still has open, to send to the node, is not the node's.
        return {path for path in own_memory if path.exists()} - shared_memory(os.getpid())

    staying.wait(lambda: not left(), f"shared memory is freed: {left()}")
    staying.wait(lambda: not staying.publisher.get_subscription_count(), "the node is gone")


def test_a_signal_that_another_thread_takes_ends_the_node(
    start: Callable[..., Any], peer: Callable[..., Peer]
) -> None:
    """The system may give a signal to any thread, and Python handles it in the main one only."""
    process = start("-r", "__ns:=/threads", "-p", "autostart:=false")
    assert peer("/threads", answers={}).state() == "unconfigured"
    threads = sorted(int(entry.name) for entry in Path(f"/proc/{process.pid}/task").iterdir())
    os.kill(threads[-1], signal.SIGINT)
    assert_ends_well(process)


def test_a_signal_ends_a_finalized_node(
    start: Callable[..., Any], peer: Callable[..., Peer]
) -> None:
    process = start("-r", "__ns:=/finalized", "-p", "autostart:=false")
    manager = peer("/finalized", answers={})
    assert manager.change_state("shutdown")
    assert manager.state() == "finalized"
    process.send_signal(signal.SIGINT)
    assert_ends_well(process)


def test_a_node_that_cannot_configure_stays_until_a_signal(
    start: Callable[..., Any], peer: Callable[..., Peer]
) -> None:
    process = start("-r", "__ns:=/useless", "-p", "model:=/nonexistent.onnx")
    manager = peer("/useless", answers={})
    manager.status(lambda status: status.level == DiagnosticStatus.ERROR, "the failure")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert_ends_well(process)


# Faults: the node in this process, with a stub of the model


@pytest.fixture
def faulty(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: Callable[..., Peer]
) -> Iterator[Any]:
    """A node in this process, active; its predictor, a stub; and a peer."""
    with local_node(monkeypatch, spin=True, autostart=True) as (node, predictor):
        camera = peer(node.get_namespace())
        camera.meet()
        yield SimpleNamespace(node=node, predictor=predictor, peer=camera)


def test_an_inference_fault_is_counted_and_the_next_frame_answered(faulty: Any) -> None:
    faulty.predictor.error = RuntimeError("out of luck")
    faulty.peer.publisher.publish(faulty.peer.frame())
    status = faulty.peer.status(
        lambda status: faulty.peer.values(status)["faults"] == "1", "fault counted"
    )
    assert faulty.peer.values(status)["last_error"] == "RuntimeError: out of luck"
    assert faulty.peer.values(status)["state"] == "active"
    faulty.predictor.error = None
    assert set(faulty.peer.answer()) == set(OUTPUTS)


def test_faults_with_good_frames_between_do_not_stop_the_node(faulty: Any) -> None:
    for count in range(FAULTS_BEFORE_GIVING_UP + 1):
        faulty.predictor.error = RuntimeError("now and then")
        begun = faulty.node._monitor.faults
        faulty.peer.publisher.publish(faulty.peer.frame())
        faulty.peer.wait(lambda begun=begun: faulty.node._monitor.faults > begun, f"fault {count}")
        faulty.predictor.error = None
        faulty.peer.answer()
    faulty.peer.status()  # with this one it would give up
    assert faulty.peer.counters()["state"] == "active"


def give_up(faulty: Any) -> DiagnosticStatus:
    """Let inference fail until the node deactivates itself."""
    faulty.predictor.error = RuntimeError("out of luck")
    faulty.peer.forget_statuses()

    def inactive() -> bool:
        return any(faulty.peer.values(s)["state"] == "inactive" for s in faulty.peer.statuses)

    faulty.peer.send_until(inactive, "the node deactivates itself")
    return faulty.peer.statuses[-1]


def test_ten_faults_in_a_row_deactivate_the_node(faulty: Any) -> None:
    status = give_up(faulty)
    assert status.level == DiagnosticStatus.ERROR
    assert "faults in a row, last: RuntimeError: out of luck" in status.message
    assert int(faulty.peer.values(status)["faults"]) >= FAULTS_BEFORE_GIVING_UP
    assert faulty.peer.state() == "inactive"


def test_a_node_that_gave_up_can_be_activated_again(faulty: Any) -> None:
    give_up(faulty)
    faulty.predictor.error = None
    assert faulty.peer.change_state("activate")
    faulty.peer.meet()
    status = faulty.peer.status()
    assert faulty.peer.values(status)["state"] == "active"
    assert status.level == DiagnosticStatus.OK


def test_a_configure_that_fails_late_frees_the_model(faulty: Any) -> None:
    """The model opens and fails with the first picture."""
    assert faulty.peer.change_state("deactivate")
    assert faulty.peer.change_state("cleanup")
    faulty.predictor.closed = False
    faulty.predictor.error = RuntimeError("no memory")
    assert not faulty.peer.change_state("configure")
    assert faulty.predictor.closed
    assert faulty.peer.status().message == "configure failed: no memory"


def test_cleanup_closes_the_model(faulty: Any) -> None:
    assert faulty.peer.change_state("deactivate")
    assert not faulty.predictor.closed
    assert faulty.peer.change_state("cleanup")
    assert faulty.predictor.closed


def test_annotated_is_drawn_only_for_subscribers(
    faulty: Any, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(pixels: np.ndarray, *_: Any) -> np.ndarray:
        drawn.append(pixels.shape)
        return pixels.copy()

    monkeypatch.setattr(outputs, "draw_people", draw)
    faulty.peer.answer()
    # Drawing comes after all other outputs: with the next answer the last frame is done.
    faulty.peer.answer()
    assert not drawn
    peer(faulty.peer.namespace, answers=WITH_ANNOTATED).meet()
    assert BLACK.shape in drawn
