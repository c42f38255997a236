"""The node comes and goes: start orders, lifecycle managed from outside, signals."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from kdc_core.stopping import SIGNALS
from kdc_ros.camera import NODE

from .peer import MakePeer, Peer, persons
from .process import NodeProcess, Start
from .shared_memory import SharedFile, all_files, files_in_use, files_of

pytestmark = pytest.mark.ros


# Both reliabilities, both start orders


def has_publishers(count: str, status: DiagnosticStatus) -> bool:
    return Peer.values(status)["input_publishers"] == count


def has_reliability(wanted: str, status: DiagnosticStatus) -> bool:
    return Peer.values(status)["input_reliability"] == wanted


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "best effort"])
def test_camera_before_node(start: Start, peer: MakePeer, reliable: bool) -> None:
    namespace = f"/camera_first_{'reliable' if reliable else 'best_effort'}"
    camera = peer(namespace, reliable)
    start("-r", f"__ns:={namespace}")
    camera.meet()
    wanted = "reliable" if reliable else "best_effort"
    camera.status(partial(has_reliability, wanted), f"{wanted} input")


@pytest.fixture(scope="module")
def waiting(start: Start, module_peers: MakePeer) -> Peer:
    """Who sees that a node subscribes and nobody publishes."""
    observer = module_peers("/node_first", answers={})
    observer.node.destroy_publisher(observer.publisher)
    start("-r", "__ns:=/node_first", "-p", "input_timeout:=0.25")
    return observer


def see_nobody_publish(observer: Peer) -> None:
    observer.status(
        lambda status: status.message == "no publisher on /node_first/image",
        "the node subscribes and nobody publishes",
    )


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "best effort"])
def test_node_before_camera(waiting: Peer, peer: MakePeer, reliable: bool) -> None:
    """Whether the node is found by the camera, or has to follow it first."""
    see_nobody_publish(waiting)
    camera = peer("/node_first", reliable)
    camera.meet()
    wanted = "reliable" if reliable else "best_effort"
    camera.status(partial(has_reliability, wanted), f"{wanted} input")
    with closing(Peer("/node_first", reliable, answers={})):
        camera.status(partial(has_publishers, "2"), "two cameras")
    camera.status(partial(has_publishers, "1"), "one of them has gone")


@pytest.mark.timed
def test_the_input_follows_cameras_both_ways_within_three_seconds(waiting: Peer) -> None:
    see_nobody_publish(waiting)
    for reliable in (False, True, False):
        wanted = "reliable" if reliable else "best_effort"
        with closing(Peer("/node_first", reliable, answers={})):
            begun = time.monotonic()
            waiting.status(partial(has_reliability, wanted), wanted)
            assert time.monotonic() - begun < 3.0


# Lifecycle, managed from outside


@dataclass
class ByHand:
    """The process of a node that somebody else manages, and who does."""

    process: NodeProcess
    peer: Peer


@pytest.fixture(scope="module")
def by_hand(start: Start, module_peers: MakePeer) -> ByHand:
    parameters = ("-p", "autostart:=false", "-p", "confidense:=0.3")
    return ByHand(start("-r", "__ns:=/by_hand", *parameters), module_peers("/by_hand"))


@pytest.fixture
def managed(by_hand: ByHand) -> Peer:
    """The peer of a node that is unconfigured."""
    if by_hand.peer.state() == "active":
        assert by_hand.peer.change_state("deactivate")
    if by_hand.peer.state() == "inactive":
        assert by_hand.peer.change_state("cleanup")
    by_hand.peer.set_parameters(model="", reliability="auto")
    return by_hand.peer


def test_lifecycle_twice_round(managed: Peer, by_hand: ByHand) -> None:
    before = len(by_hand.process.log)
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
    told = re.findall(r": (\w+: \w+ -> \w+)$", by_hand.process.log[before:], re.M)
    assert told == 2 * [
        "configure: unconfigured -> inactive",
        "activate: inactive -> active",
        "deactivate: active -> inactive",
        "cleanup: inactive -> unconfigured",
    ]


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


def test_configure_may_fail_and_succeed_later(managed: Peer, by_hand: ByHand) -> None:
    managed.set_parameters(model="/nonexistent.onnx")
    assert not managed.change_state("configure")
    assert managed.state() == "unconfigured"
    status = managed.status()
    assert status.level == DiagnosticStatus.ERROR
    assert status.message.startswith("configure failed: ")
    assert "/nonexistent.onnx" in status.message
    assert "Traceback" not in by_hand.process.log

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
    managed: Peer, by_hand: ByHand, peer: MakePeer
) -> None:
    managed.set_parameters(reliability="reliable")
    assert managed.change_state("configure")
    assert managed.change_state("activate")
    peer("/by_hand", reliable=False)
    managed.wait(
        lambda: "the camera's QoS does not fit" in by_hand.process.log,
        "a warning",
    )
    managed.meet()


def test_a_misspelt_parameter_is_warned_of(managed: Peer, by_hand: ByHand) -> None:
    log = by_hand.process.log
    assert "parameter 'confidense' does not exist" in log
    assert "confidence" in log


# The end


@pytest.fixture(scope="module")
def staying(module_peers: MakePeer) -> Peer:
    """A camera that stays while nodes come and go."""
    return module_peers("/stop")


@pytest.mark.parametrize(
    "signals",
    [*((number.name,) for number in SIGNALS), ("SIGINT", "SIGINT"), ("SIGINT", "SIGTERM")],
    ids=" ".join,
)
def test_a_signal_ends_the_node_cleanly(
    start: Start, staying: Peer, signals: tuple[str, ...]
) -> None:
    """Also with a frame in work, and a second signal: Ctrl-C and ros2 launch send one each.

    That the camera stays shows that a node can be started anew.
    """
    others = all_files()
    process = start("-r", "__ns:=/stop")
    staying.meet()
    own_memory = files_of(process.pid) - others
    staying.publisher.publish(staying.frame())
    for name in signals:
        process.process.send_signal(getattr(signal, name))
    process.assert_ends_well()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # it was started as the head of a group

    def left() -> set[SharedFile]:
        # The camera has the node's port open until it sees the node leave, and until then a node
        # of the tests beside may take it as its own.
        return (own_memory & all_files()) - files_in_use()

    staying.wait(lambda: not left(), f"shared memory is freed: {left()}")
    staying.wait(lambda: not staying.publisher.get_subscription_count(), "the node is gone")


def test_a_signal_that_another_thread_takes_ends_the_node(start: Start, peer: MakePeer) -> None:
    """The system may give a signal to any thread, and Python handles it in the main one only."""
    process = start("-r", "__ns:=/threads", "-p", "autostart:=false")
    assert peer("/threads", answers={}).state() == "unconfigured"
    threads = sorted(int(entry.name) for entry in Path(f"/proc/{process.pid}/task").iterdir())
    os.kill(threads[-1], signal.SIGINT)
    process.assert_ends_well()


def test_a_node_started_by_nohup_outlives_its_terminal(start: Start, peer: MakePeer) -> None:
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *NODE)
    process = start("-r", "__ns:=/nohup", "-p", "autostart:=false", command=ignoring)
    assert peer("/nohup", answers={}).state() == "unconfigured"
    process.process.send_signal(signal.SIGHUP)
    assert peer("/nohup", answers={}).state() == "unconfigured" and process.runs
    process.process.send_signal(signal.SIGTERM)
    process.assert_ends_well()


def test_a_signal_ends_a_finalized_node(start: Start, peer: MakePeer) -> None:
    process = start("-r", "__ns:=/finalized", "-p", "autostart:=false")
    manager = peer("/finalized", answers={})
    assert manager.change_state("shutdown")
    assert manager.state() == "finalized"
    assert "shutdown: unconfigured -> finalized" in process.log
    manager.status(lambda status: status.message == "finalized", "the diagnostics say so")
    process.process.send_signal(signal.SIGINT)
    process.assert_ends_well()


def test_a_node_that_cannot_configure_stays_until_a_signal(start: Start, peer: MakePeer) -> None:
    process = start("-r", "__ns:=/useless", "-p", "model:=/nonexistent.onnx")
    manager = peer("/useless", answers={})
    manager.status(lambda status: status.level == DiagnosticStatus.ERROR, "the failure")
    assert process.runs
    process.process.send_signal(signal.SIGINT)
    process.assert_ends_well()
