"""Bad frames and faults of inference, by a node in a process of its own."""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image

from kdc_ros.camera import stamp_of
from kdc_ros.diagnostics import resident_mb
from kdc_ros.images import LARGEST_SIDE

from .faulty_node import GIVES_NAN, NO_MEMORY, RAISES, SUBMIT_RAISES, TAKES_LONG
from .peer import OUTPUTS, MakePeer, Peer, persons
from .process import NodeProcess, Start

pytestmark = [pytest.mark.ros, pytest.mark.all]

HERE = Path(__file__).parent
FAULTY = (sys.executable, str(HERE / "faulty_node.py"))
LARGEST = 2**32 - 1  # of a size in a message


@dataclass
class Running:
    """The process of a node, a camera on its topics, and what the node last counted."""

    process: NodeProcess
    peer: Peer
    counted: dict[str, str]

    def counts_one(self, name: str) -> str:
        """Wait until one more is counted; the cause that is told with it."""
        before = self.counted[name]
        status = self.peer.status(lambda s: self.peer.values(s)[name] != before, f"{name} counted")
        self.counted = self.peer.values(status)
        assert int(self.counted[name]) == int(before) + 1
        return self.counted["last_error"]


@pytest.fixture(scope="module")
def running(start: Start, module_peers: MakePeer) -> Running:
    process = start("-r", "__ns:=/faulty", "-p", "stall_timeout:=1.0", command=FAULTY)
    peer = module_peers("/faulty")
    peer.meet()
    return Running(process, peer, peer.counters())


# Bad frames


def changed(**values: Any) -> Callable[[Image], None]:
    def change(frame: Image) -> None:
        for name, value in values.items():
            setattr(frame, name, value)

    return change


def shortened(frame: Image) -> None:
    frame.data = frame.data[:-1]


BAD_FRAMES: dict[str, tuple[Callable[[Image], None], str]] = {
    "unknown encoding": (changed(encoding="rgb9"), "'rgb9' is not known; expected one of rgb8,"),
    "no encoding": (changed(encoding=""), "'' is not known"),
    "long encoding": (changed(encoding="x" * 10**6), "is not known"),
    "depth": (changed(encoding="16UC1"), "depth by convention"),
    "short data": (shortened, "data has 9215 bytes, expected at least 9216"),
    "no data": (changed(data=array("B")), "data has 0 bytes"),
    "step below the row": (changed(step=191), "step 191: a row of 64 pixels 'rgb8' has 192 bytes"),
    "no step": (changed(step=0), "step 0"),
    "no width": (changed(width=0), "size 0x48"),
    "no height": (changed(height=0), "size 64x0"),
    "too wide": (changed(width=LARGEST_SIDE + 1, step=3 * LARGEST_SIDE + 3), "size 8193x48"),
    "too high": (changed(height=LARGEST_SIDE + 1), "size 64x8193"),
    "largest width": (changed(width=LARGEST, step=LARGEST), f"size {LARGEST}x48"),
    "largest height": (changed(height=LARGEST), f"size 64x{LARGEST}"),
    "largest step": (changed(step=LARGEST), "data has 9216 bytes, expected at least"),
    "large without data": (
        changed(width=LARGEST_SIDE, height=LARGEST_SIDE, step=3 * LARGEST_SIDE),
        "data has 9216 bytes, expected at least 201326592",
    ),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_is_told_and_the_next_one_answered(running: Running, name: str) -> None:
    """Without memory taken for what a message claims."""
    spoil, cause = BAD_FRAMES[name]
    peer, pid = running.peer, running.process.pid
    memory_mb, frame = resident_mb(pid), peer.frame()
    spoil(frame)
    peer.publisher.publish(frame)
    assert cause in running.counts_one("bad")
    assert not peer.received.get(stamp_of(frame))
    assert set(peer.answer()) == set(OUTPUTS)
    assert resident_mb(pid) < memory_mb + 30


def test_many_bad_frames_are_an_error_in_log_and_diagnostics(running: Running) -> None:
    """And each of them is not a line: one in five seconds is."""
    peer = running.peer

    def send() -> bool:
        frame = peer.frame()
        frame.encoding = "rgb9"
        peer.publisher.publish(frame)
        peer.spin_until(told, 0.05)
        return told()

    def told() -> bool:
        return any(s.level == DiagnosticStatus.ERROR for s in peer.statuses)

    lines, begun = running.process.log.count("bad frame: "), time.monotonic()
    peer.forget_statuses()
    peer.wait(send, "an error")
    assert running.process.log.count("bad frame: ") - lines <= 1 + (time.monotonic() - begun) / 5
    peer.answer()
    status = peer.status()
    assert status.level != DiagnosticStatus.ERROR
    running.counted = peer.values(status)


# Faults of inference


def fails_as(peer: Peer, value: int) -> Image:
    """A frame that makes the model fail."""
    return peer.frame(np.full((48, 64, 3), value, np.uint8))


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (RAISES, "out of luck"),
        (SUBMIT_RAISES, "the frame was not taken"),
        (NO_MEMORY, "8 GiB"),
        (GIVES_NAN, ""),
    ],
    ids=["raises", "does not take it", "no memory", "NaN"],
)
def test_a_fault_of_the_model_is_counted_and_the_next_frame_answered(
    running: Running, value: int, cause: str
) -> None:
    peer = running.peer
    frame = fails_as(peer, value)
    peer.publisher.publish(frame)
    assert cause in running.counts_one("faults")
    assert not peer.received.get(stamp_of(frame))
    assert set(peer.answer()) == set(OUTPUTS)


def test_a_model_that_stalls_is_an_error_until_it_goes_on(running: Running) -> None:
    peer = running.peer
    frame = fails_as(peer, TAKES_LONG)
    peer.publisher.publish(frame)
    status = peer.status(lambda s: s.level == DiagnosticStatus.ERROR, "an error")
    assert peer.values(status)["state"] == "active"
    peer.wait(lambda: len(peer.received.get(stamp_of(frame), ())) == len(OUTPUTS), "its answer")
    peer.answer()
    assert peer.status().level != DiagnosticStatus.ERROR


def test_ten_faults_in_a_row_deactivate_the_node_which_can_be_activated(running: Running) -> None:
    peer = running.peer
    peer.forget_statuses()

    def inactive() -> bool:
        peer.publisher.publish(fails_as(peer, RAISES))
        peer.spin_until(lambda: False, 0.05)
        return any(peer.values(s)["state"] == "inactive" for s in peer.statuses)

    peer.wait(inactive, "it deactivates itself")
    assert "10 faults in a row, last: " in peer.statuses[-1].message
    assert peer.change_state("activate")
    peer.meet()


# People that are there stay there through all of it


def test_people_are_found_after_faults(running: Running, people: np.ndarray) -> None:
    peer = running.peer
    first = persons(peer.answer(people))
    peer.publisher.publish(fails_as(peer, RAISES))
    second = persons(peer.answer(people))
    assert len(first) == len(second) > 0
