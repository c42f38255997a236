"""The parameter `pipeline`: two frames under way, each with its own header, none lost silently."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image

from kdc_ros.camera import Stamp, stamp_of

from .local import Local, StubPredictor, local_node
from .peer import BLACK, OUTPUTS, TIMEOUT_S, MakePeer, Peer, persons
from .process import NodeProcess, Start

pytestmark = pytest.mark.ros


# A real model in a process of its own


@pytest.fixture(scope="module")
def process(start: Start) -> NodeProcess:
    return start("-r", "__ns:=/pipeline", "-p", "pipeline:=true")


@pytest.mark.all
def test_each_answer_is_of_the_frame_whose_header_it_has(
    process: NodeProcess, peer: MakePeer, people: np.ndarray
) -> None:
    """Frames of two kinds come faster than they can be processed."""
    camera = peer("/pipeline")
    camera.meet()
    expected = len(persons(camera.answer(people)))
    assert expected > 0
    frames: dict[Stamp, Image] = {}

    def answered() -> list[Image]:
        return [f for s, f in frames.items() if len(camera.received.get(s, ())) == len(OUTPUTS)]

    def enough() -> bool:
        return len(answered()) >= 8 and {f.width for f in answered()} == {320, BLACK.shape[1]}

    kinds = np.random.default_rng(0)
    end = time.monotonic() + TIMEOUT_S
    while not enough():
        assert time.monotonic() < end
        frame = camera.frame(people if kinds.random() < 0.5 else BLACK)
        frame.header.frame_id = f"camera {len(frames)}"
        frames[stamp_of(frame)] = frame
        camera.publisher.publish(frame)
        camera.spin_until(enough, 0.02)
    for frame in answered():
        answers = camera.received[stamp_of(frame)]
        assert [answers[topic].header for topic in OUTPUTS] == [frame.header] * 3
        assert (answers["labels"].height, answers["labels"].width) == (frame.height, frame.width)
        assert len(persons(answers)) == (expected if frame.width == 320 else 0)
    values = camera.counters()
    assert values["faults"] == values["bad"] == "0" and values["state"] == "active"


def test_a_signal_ends_it_cleanly_with_frames_in_work(
    process: NodeProcess, peer: MakePeer, people: np.ndarray
) -> None:
    camera = peer("/pipeline")
    camera.meet()
    for _ in range(3):
        camera.publisher.publish(camera.frame(people))
    process.process.send_signal(signal.SIGINT)
    process.assert_ends_well()


# In this process, with a stub of the model that waits


@pytest.fixture
def local(domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer) -> Iterator[Local]:
    with local_node(monkeypatch, spin=True, autostart=True, pipeline=True) as (node, predictor):
        camera = peer(node.get_namespace())
        camera.meet()
        camera.answer()  # nothing of what was shown to meet it is under way
        yield Local(node, predictor, camera)


class InWork:
    """Two frames under way that end when released, and a third in the box."""

    def __init__(self, local: Local):
        self.release = threading.Event()
        self.peer, self.node = local.peer, local.node
        local.predictor.while_busy = lambda: self.release.wait(TIMEOUT_S)
        self.frames = [local.peer.frame() for _ in range(3)]
        for frame in self.frames[:2]:
            before = local.predictor.submitted
            self.peer.publisher.publish(frame)
            self.peer.wait(partial(self._begun_since, before, local.predictor), "it is begun")
        self.peer.publisher.publish(self.frames[2])
        self.peer.wait(lambda: self.node._box._item is not None, "the third waits")

    @staticmethod
    def _begun_since(before: int, predictor: StubPredictor) -> bool:
        return predictor.submitted > before

    def release_once_the_node_stops(self) -> None:
        """A moment after it takes no more frames."""
        box = self.node._box
        while not box._closed:
            time.sleep(0.01)
        time.sleep(0.2)
        self.release.set()

    def answered(self) -> list[bool]:
        """Which frames have all their answers."""
        return [
            len(self.peer.received.get(stamp_of(frame), ())) == len(OUTPUTS)
            for frame in self.frames
        ]


def assert_every_frame_counts(local: Local, peer: Peer) -> None:
    """Once the last is counted, which is after its answers are out."""

    def all_count(status: DiagnosticStatus) -> bool:
        values = peer.values(status)
        ends = [int(values[name]) for name in ("frames", "dropped", "bad", "faults")]
        return sum(ends) == local.node._monitor.received

    peer.status(all_count, "every frame counts")


def test_bad_frames_do_not_hide_one_that_does_not_end(local: Local) -> None:
    peer, release, bad = local.peer, threading.Event(), local.peer.frame()
    bad.encoding = "rgb9"
    peer.set_parameters(stall_timeout=1.0)
    local.predictor.while_busy = lambda: release.wait(TIMEOUT_S)
    begun = local.predictor.submitted
    peer.publisher.publish(peer.frame())
    peer.wait(lambda: local.predictor.submitted > begun, "it is begun")

    def told() -> bool:
        peer.publisher.publish(bad)
        return any("in work" in status.message for status in peer.statuses)

    try:
        peer.wait(told, "an error")
    finally:
        release.set()


@pytest.mark.parametrize("transition", ["deactivate", "shutdown"])
def test_frames_in_work_are_published_when_the_node_stops(local: Local, transition: str) -> None:
    """And the one that waits counts as dropped, also after the node was activated again."""
    work, peer = InWork(local), local.peer
    dropped = local.node._box.dropped
    threading.Thread(target=work.release_once_the_node_stops, daemon=True).start()
    assert peer.change_state(transition)
    assert work.release.is_set(), "it did not wait for the frames in work"
    peer.wait(lambda: work.answered() == [True, True, False], "answers to those in work")
    assert_every_frame_counts(local, peer)
    assert peer.counters()["dropped"] == str(dropped + 1)
    if transition == "deactivate":
        assert peer.change_state("activate")
        peer.meet()
        assert_every_frame_counts(local, peer)
        assert int(peer.counters()["dropped"]) >= dropped + 1


def test_a_frame_that_fails_is_counted_and_the_next_one_answered(local: Local) -> None:
    work = InWork(local)
    local.predictor.error = RuntimeError("out of luck")  # for those still to be collected
    work.release.set()
    local.peer.wait(lambda: local.node._monitor.faults == 2, "faults of the second and the third")
    local.predictor.error = None
    local.peer.wait(lambda: work.answered() == [True, False, False], "an answer to the first")
    assert set(local.peer.answer()) == set(OUTPUTS)
    assert local.peer.counters()["last_error"] == "RuntimeError: out of luck"
    assert_every_frame_counts(local, local.peer)


def test_a_bad_frame_is_counted_beside_one_in_work(local: Local) -> None:
    release = threading.Event()
    local.predictor.while_busy = lambda: release.wait(TIMEOUT_S)
    good, bad = local.peer.frame(), local.peer.frame()
    bad.encoding = "rgb9"
    begun = local.predictor.submitted
    local.peer.publisher.publish(good)
    local.peer.wait(lambda: local.predictor.submitted == begun + 1, "the good one is in work")
    local.peer.publisher.publish(bad)
    local.peer.wait(lambda: local.node._monitor.bad == 1, "the bad one is counted meanwhile")
    release.set()
    local.peer.wait(lambda: len(local.peer.received.get(stamp_of(good), ())) == 3, "an answer")
    assert_every_frame_counts(local, local.peer)
