"""What cameras and users do to a node in a process of its own."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future

from kdc_ros.diagnostics import resident_mb
from kdc_ros.stand_in import sample
from kdc_ros.stream import Streamer

from .peer import OUTPUTS, MakePeer, Peer
from .process import Start

pytestmark = [pytest.mark.ros, pytest.mark.all]

HERE = Path(__file__).parent
STRICT = (sys.executable, str(HERE / "strict_node.py"))


# Cameras


def test_a_camera_stops_and_another_of_other_reliability_comes(
    start_once: Start, peer: MakePeer
) -> None:
    process = start_once("-r", "__ns:=/comes_and_goes", "-p", "input_timeout:=0.5")
    observer = peer("/comes_and_goes", answers={})
    observer.node.destroy_publisher(observer.publisher)

    def followed(wanted: str, camera: Peer) -> bool:
        return any(
            s.message == "running" and Peer.values(s)["input_reliability"] == wanted
            for s in camera.statuses
        )

    for reliable in (True, False, True):
        with closing(Peer("/comes_and_goes", reliable)) as camera:
            # It looks once a second: a camera that is gone before was never there, and what
            # comes just when it changes its subscription is not heard.
            wanted = "reliable" if reliable else "best_effort"
            camera.send_until(partial(followed, wanted, camera), "the node follows it")
            camera.meet()
        gone = observer.status(lambda s: s.message.startswith("no publisher on "), "it is gone")
        assert gone.level == DiagnosticStatus.WARN
    assert process.log.count("no publisher on /comes_and_goes/image") >= 3
    assert process.runs


@pytest.mark.timed
def test_60_hz_into_a_model_of_5_hz(start_once: Start, peer: MakePeer) -> None:
    """Memory stays, no frame grows old, and the newest is taken."""
    model_ms, seconds = 200.0, 10.0
    command = (sys.executable, "-m", "kdc_ros.stand_in", str(model_ms))
    process = start_once("-r", "__ns:=/too_fast", command=command)
    camera = peer("/too_fast", reliable=False)
    camera.meet()
    streamer = Streamer(camera, process.pid)
    streamer.run(sample("vga"), 60.0, 2.0)
    memory_mb = resident_mb(process.pid)
    streamed = streamer.run(sample("vga"), 60.0, seconds)
    assert resident_mb(process.pid) < 1.05 * memory_mb
    ends = streamed.counts
    assert ends["bad"] == ends["faults"] == ends["lost"] == 0
    assert streamed.shown > 40 * seconds
    assert ends["frames"] + ends["dropped"] == streamed.shown
    assert 3.5 * seconds < ends["frames"] < 5.5 * seconds
    # A queue of one that keeps the oldest would have each wait for the model twice.
    assert streamed.latency_ms(50) < 1.6 * model_ms
    assert streamed.latency_ms(100) < 3 * model_ms


# Users


def test_activated_and_deactivated_fifty_times(start_once: Start, peer: MakePeer) -> None:
    process = start_once("-r", "__ns:=/switched")
    camera = peer("/switched")
    for _ in range(3):  # ONNX Runtime lays out the memory of a size with its second frame
        camera.meet()
    tasks, files = (Path(f"/proc/{process.pid}/{name}") for name in ("task", "fd"))

    def held() -> tuple[int, int, float]:
        return len(list(tasks.iterdir())), len(list(files.iterdir())), resident_mb(process.pid)

    before: tuple[int, int, float] | None = None
    for turn in range(50):
        camera.publisher.publish(camera.frame())  # some are in work at the transition
        assert camera.change_state("deactivate")
        assert camera.change_state("activate")
        if turn == 5:
            before = held()
    camera.meet()
    assert set(camera.answer()) == set(OUTPUTS)
    assert before is not None
    after = held()
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 4, (before, after)
    assert after[2] < 1.05 * before[2] + 5
    assert process.log.count("activate: inactive -> active") == 51
    process.process.send_signal(signal.SIGINT)
    process.assert_ends_well()


# Name, value, whether it is taken: as many as the queue of a service holds.
STORM: tuple[tuple[str, Any, bool], ...] = (
    ("confidence", 0.25, True),
    ("confidence", 2.0, False),
    ("confidence", "high", False),
    ("max_persons", 10**12, False),
    ("keypoint_threshold", float("nan"), False),
    ("confidense", 0.5, False),
    ("model", "x" * 10**5, False),
    ("max_rate", 1000.0, True),
)


def all_done(futures: list[Future]) -> bool:
    return all(future.done() for future in futures)


def test_a_storm_of_parameters_while_frames_come(start_once: Start, peer: MakePeer) -> None:
    """Good values, bad ones, and names that do not exist."""
    process = start_once("-r", "__ns:=/storm")
    camera = peer("/storm")
    camera.meet()
    client = camera.client(SetParameters, "set_parameters")
    changes = [Parameter(name, value=value).to_parameter_msg() for name, value, _ in STORM]
    for _ in range(50):
        camera.publisher.publish(camera.frame())
        asked = [client.call_async(SetParameters.Request(parameters=[c])) for c in changes]
        camera.wait(partial(all_done, asked), "an answer to each")
        for future, (name, _, good) in zip(asked, STORM, strict=True):
            answer = future.result()
            assert answer is not None
            [result] = answer.results
            assert result.successful == good, (name, result.reason)
            assert len(result.reason) < 1000
    parameters = camera.info()["parameters"]
    assert (parameters["confidence"], parameters["max_rate"]) == (0.25, 1000.0)
    assert set(camera.answer()) == set(OUTPUTS)
    assert process.runs and "Traceback" not in process.log


def test_older_versions_of_rclpy_do_not_end_the_node(start_once: Start, peer: MakePeer) -> None:
    """They raise where an answer cannot be sent; the QoS of who asks takes none. And where a
    transition is not possible."""
    process = start_once("-r", "__ns:=/lost", command=STRICT)
    camera = peer("/lost")
    camera.meet()
    deaf = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    client: Client = camera.node.create_client(GetState, "/lost/kdc/get_state", qos_profile=deaf)
    end = time.monotonic() + 30
    while "failed to send response" not in process.log:
        assert time.monotonic() < end, process.log
        client.call_async(GetState.Request())
        camera.spin_until(lambda: not process.runs, 0.5)
    for impossible in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=impossible))
        assert not camera.call(ChangeState, "change_state", request).success
    assert "refused: Failed to trigger lifecycle state machine transition" in process.log
    assert camera.state() == "active"
    assert set(camera.answer()) == set(OUTPUTS)
    process.process.send_signal(signal.SIGINT)
    process.assert_ends_well()
