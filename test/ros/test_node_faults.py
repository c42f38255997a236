"""Bad frames and faults of inference: the node in this process, with a stub of the model."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image

from kdc_core.inference.engine.messages import BuildCancelled
from kdc_ros import outputs
from kdc_ros.camera import stamp_of
from kdc_ros.diagnostics import Monitor
from kdc_ros.images import ENCODINGS
from kdc_ros.loaded import STUCK

from .local import Local, local_node
from .peer import BLACK, OUTPUTS, WITH_ANNOTATED, MakePeer, Peer

pytestmark = pytest.mark.ros

FAULTS_BEFORE_GIVING_UP = 10


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
    local: Local, spoil: Callable[[Image], str]
) -> None:
    peer, frame = local.peer, local.peer.frame()
    cause = spoil(frame)
    before = int(peer.counters()["bad"])
    peer.publisher.publish(frame)
    status = peer.status(
        lambda status: int(peer.values(status)["bad"]) == before + 1, "bad frame counted"
    )
    assert cause in peer.values(status)["last_error"]
    assert peer.values(status)["state"] == "active"
    assert not peer.received.get(stamp_of(frame))
    assert set(peer.answer()) == set(OUTPUTS)


def test_an_inference_fault_is_counted_and_the_next_frame_answered(local: Local) -> None:
    local.predictor.error = RuntimeError("out of luck")
    local.peer.publisher.publish(local.peer.frame())
    status = local.peer.status(
        lambda status: local.peer.values(status)["faults"] == "1", "fault counted"
    )
    assert local.peer.values(status)["last_error"] == "RuntimeError: out of luck"
    assert local.peer.values(status)["state"] == "active"
    local.predictor.error = None
    assert set(local.peer.answer()) == set(OUTPUTS)


def test_faults_with_good_frames_between_do_not_stop_the_node(local: Local) -> None:

    def faults_exceed(count: int) -> bool:
        return local.node._monitor.faults > count

    for count in range(FAULTS_BEFORE_GIVING_UP + 1):
        local.predictor.error = RuntimeError("now and then")
        local.peer.publisher.publish(local.peer.frame())
        local.peer.wait(partial(faults_exceed, count), f"fault {count}")
        local.predictor.error = None
        local.peer.answer()
    local.peer.status()  # with this one it would give up
    assert local.peer.counters()["state"] == "active"


def give_up(local: Local) -> DiagnosticStatus:
    """Let inference fail until the node deactivates itself."""
    local.predictor.error = RuntimeError("out of luck")
    local.peer.forget_statuses()

    def inactive() -> bool:
        return any(local.peer.values(s)["state"] == "inactive" for s in local.peer.statuses)

    local.peer.send_until(inactive, "the node deactivates itself")
    return local.peer.statuses[-1]


def test_ten_faults_in_a_row_deactivate_the_node(local: Local) -> None:
    status = give_up(local)
    assert status.level == DiagnosticStatus.ERROR
    assert "faults in a row, last: RuntimeError: out of luck" in status.message
    assert int(local.peer.values(status)["faults"]) >= FAULTS_BEFORE_GIVING_UP
    assert local.peer.state() == "inactive"


def test_a_node_that_gave_up_can_be_activated_again(local: Local) -> None:
    give_up(local)
    local.predictor.error = None
    assert local.peer.change_state("activate")
    local.peer.meet()
    status = local.peer.status()
    assert local.peer.values(status)["state"] == "active"
    assert status.level == DiagnosticStatus.OK


def test_a_configure_that_fails_late_frees_the_model(local: Local) -> None:
    """The model opens and fails with the first image."""
    assert local.peer.change_state("deactivate")
    assert local.peer.change_state("cleanup")
    local.predictor.closed = False
    local.predictor.error = RuntimeError("no memory")
    assert not local.peer.change_state("configure")
    assert local.predictor.closed
    assert local.peer.status().message == "configure failed: no memory"


def test_cleanup_closes_the_model(local: Local) -> None:
    assert local.peer.change_state("deactivate")
    assert not local.predictor.closed
    assert local.peer.change_state("cleanup")
    assert local.predictor.closed


def works_again(peer: Peer) -> None:
    """Once it is configured and activated."""
    assert peer.change_state("configure") and peer.change_state("activate")
    peer.meet()
    assert peer.status().level == DiagnosticStatus.OK


def test_a_model_that_cannot_be_closed_is_told_and_the_node_goes_on(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close() -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(local.predictor, "close", close)
    assert local.peer.change_state("deactivate")
    assert local.peer.change_state("cleanup")
    assert local.peer.state() == "unconfigured"
    status = local.peer.status()
    assert status.level == DiagnosticStatus.ERROR
    assert status.message == "cleanup: RuntimeError: device lost"
    assert local.node._loaded is None
    works_again(local.peer)


def test_a_deactivation_that_fails_is_told_and_frees_everything(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close() -> None:
        raise RuntimeError("no subscription")

    with monkeypatch.context() as broken:
        broken.setattr(local.node._input, "close", close)
        assert not local.peer.change_state("deactivate")
    status = local.peer.status()
    assert status.level == DiagnosticStatus.ERROR
    assert status.message == "deactivate: RuntimeError: no subscription"
    assert local.peer.state() == "unconfigured"
    local.peer.wait(lambda: local.predictor.closed, "the model is freed")
    works_again(local.peer)


def test_what_fails_once_the_model_is_loaded_frees_it(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(_: object) -> None:
        raise RuntimeError("no memory")

    assert local.peer.change_state("deactivate") and local.peer.change_state("cleanup")
    local.predictor.closed = False
    monkeypatch.setattr(local.node, "_publish_info", publish)
    assert not local.peer.change_state("configure")
    assert local.predictor.closed and local.node._loaded is None
    assert local.peer.status().message == "configure failed: no memory"


@dataclass
class Hanging:
    """A node with a frame that hangs until the event is set, and the thread that it hangs in."""

    local: Local
    frame: Image
    go_on: threading.Event
    thread: threading.Thread


@pytest.fixture
def hanging(local: Local) -> Iterator[Hanging]:
    peer, go_on = local.peer, threading.Event()
    peer.set_parameters(stall_timeout=1.0)
    local.predictor.while_busy = lambda: go_on.wait(60)
    frame = peer.frame()
    peer.publisher.publish(frame)
    peer.wait(lambda: local.node._monitor._begun_s, "the frame is in work")
    assert local.node._loaded is not None
    worker = local.node._loaded.worker
    assert worker is not None
    try:
        yield Hanging(local, frame, go_on, worker._thread)
    finally:
        go_on.set()


def test_a_frame_that_hangs_holds_up_no_transition_for_long(
    hanging: Hanging,
) -> None:
    local, peer = hanging.local, hanging.local.peer
    assert peer.change_state("deactivate")
    stuck = peer.status()
    assert (stuck.level, stuck.message) == (DiagnosticStatus.ERROR, STUCK)
    peer.set_parameters(stall_timeout=600.0)  # it was waited for once, and is not again
    assert not peer.change_state("activate"), "the model is still in use"
    assert peer.status().message == f"activate failed: {STUCK}"
    assert peer.change_state("cleanup")
    assert not local.predictor.closed, "its model is still in use"
    hanging.go_on.set()
    peer.wait(lambda: local.predictor.closed, "the model is freed")
    works_again(peer)


def test_people_of_a_frame_that_was_given_up_are_not_published(hanging: Hanging) -> None:
    peer = hanging.local.peer
    assert peer.change_state("deactivate")
    hanging.go_on.set()
    hanging.thread.join(20)
    peer.status()  # whatever was published before it has come
    assert stamp_of(hanging.frame) not in peer.received
    assert peer.change_state("activate")
    peer.meet()
    assert peer.status().level == DiagnosticStatus.OK


def test_a_frame_that_has_a_program_built_is_waited_for(local: Local) -> None:
    """Longer than one that hangs: it ends, and nothing is wrong with the node."""
    began = threading.Event()

    def build() -> None:
        local.node._on_build(local.node._monitor, "a program for frames of 384x640", 0, 0)
        began.set()
        time.sleep(2.0)

    peer = local.peer
    peer.set_parameters(stall_timeout=1.0)
    local.predictor.while_busy = build
    peer.publisher.publish(peer.frame())
    assert began.wait(20)
    assert peer.change_state("deactivate")
    status = peer.status()
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "inactive")
    local.predictor.while_busy = lambda: None
    assert peer.change_state("activate")


def test_a_build_in_one_thread_does_not_end_with_the_work_of_another() -> None:
    monitor = Monitor()
    monitor.builds("building an engine")
    other = threading.Thread(target=monitor.ended_build)
    other.start()
    other.join()
    assert monitor.building
    monitor.ended_build()
    assert not monitor.building


def test_a_failed_build_is_over_in_the_diagnostics(local: Local) -> None:
    def build() -> None:
        local.node._on_build(local.node._monitor, "tactics", 3, 11)
        raise RuntimeError("no memory")

    local.predictor.while_busy = build
    local.peer.publisher.publish(local.peer.frame())
    status = local.peer.status(lambda s: local.peer.values(s)["faults"] == "1", "a fault")
    assert "building" not in status.message and local.peer.values(status)["engine"] == "ready"


def test_a_build_that_was_given_up_is_no_fault(local: Local) -> None:
    def give_up() -> None:
        raise BuildCancelled("engine build cancelled")

    local.predictor.while_busy = give_up
    local.peer.publisher.publish(local.peer.frame())
    status = local.peer.status(lambda s: local.peer.values(s)["skipped"] == "1", "left out")
    values = local.peer.values(status)
    assert (values["faults"], values["last_error"]) == ("0", "")


def test_a_node_that_is_destroyed_leaves_no_thread_and_closes_its_model(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_node(monkeypatch) as (node, predictor):
        for transition in (node.trigger_configure, node.trigger_activate):
            assert transition() == TransitionCallbackReturn.SUCCESS
        assert node._loaded is not None
        worker = node._loaded.worker
        assert worker is not None and worker._thread.is_alive()
        monkeypatch.setattr(node, "on_shutdown", lambda _: None)  # destroy_node alone comes
    assert not worker._thread.is_alive() and predictor.closed


def test_annotated_is_drawn_only_for_subscribers(
    local: Local, peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(pixels: np.ndarray, *_: Any) -> np.ndarray:
        drawn.append(pixels.shape)
        return pixels.copy()

    monkeypatch.setattr(outputs, "draw_people", draw)
    local.peer.answer()
    # Drawing comes after all other outputs: with the next answer the last frame is done.
    local.peer.answer()
    assert not drawn
    viewer = peer(local.peer.namespace, answers=WITH_ANNOTATED)
    viewer.meet()
    viewer.answer()
    assert BLACK.shape in drawn
