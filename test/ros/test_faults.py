"""What a robot does to the node: cameras, users, files and signals. It has its own process."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image

from kdc_core.inference.model_files import MODELS
from kdc_ros.camera import stamp_of
from kdc_ros.diagnostics import resident_mb
from kdc_ros.images import LARGEST_SIDE
from kdc_ros.main import STOP_S
from kdc_ros.stand_in import sample
from kdc_ros.stream import Streamer

from .faulty_node import GIVES_NAN, NO_MEMORY, RAISES, SUBMIT_RAISES, TAKES_LONG
from .peer import OUTPUTS, MakePeer, Peer, persons
from .process import STOP_TIMEOUT_S, NodeProcess, Start
from .shared_memory import SharedFile, all_files, files_in_use, files_of

pytestmark = [pytest.mark.ros, pytest.mark.all]

HERE = Path(__file__).parent
FAULTY = (sys.executable, str(HERE / "faulty_node.py"))
SLOW = (sys.executable, str(HERE / "slow_node.py"))
STRICT = (sys.executable, str(HERE / "strict_node.py"))
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


# Ends and starts


def catches_signals(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM, as Python by itself has not."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5, 1.0, 2.0])
def test_two_signals_soon_after_the_start_end_it_cleanly(
    start_once: Start, after_s: float
) -> None:
    """20 ms apart, as from a terminal and `ros2 launch`, from the node's first line on."""
    process = start_once("-r", "__ns:=/early")
    end = time.monotonic() + 30
    while not catches_signals(process.pid):
        assert process.runs and time.monotonic() < end, process.log
        time.sleep(0.005)
    time.sleep(after_s)
    for _ in range(2):
        process.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    process.assert_ends_well()


@pytest.mark.parametrize("what", ["load", "frame"])
@pytest.mark.parametrize("seconds", [6, 60])
def test_what_is_under_way_is_waited_for_and_not_for_ever(
    start_once: Start, peer: MakePeer, what: str, seconds: int
) -> None:
    process = start_once("-r", "__ns:=/slow", command=(*SLOW, what, str(seconds)))
    camera = peer("/slow")
    if what == "frame":
        camera.send_until(lambda: "it begins" in process.log, "a frame is in work")
    camera.wait(lambda: "it begins" in process.log, "a model is being loaded")
    process.process.send_signal(signal.SIGINT)
    if seconds < STOP_S:
        assert process.process.wait(STOP_TIMEOUT_S) == 0, process.log
        assert "it was slow" in process.log
    else:
        assert process.process.wait(STOP_TIMEOUT_S) == 1
        told = "still busy 9 s after the signal"
        assert told in process.log and "in slowly" in process.log, "and where"


def test_a_killed_node_is_replaced_by_the_next(start_once: Start, peer: MakePeer) -> None:
    """Also in the middle of a frame; what it leaves in /dev/shm is in nobody's way."""
    camera = peer("/killed")
    left: set[SharedFile] = set()
    for _ in range(3):
        others = all_files()
        process = start_once("-r", "__ns:=/killed")
        camera.meet()
        camera.publisher.publish(camera.frame())
        left |= files_of(process.pid) - others - files_of(os.getpid())
        process.process.kill()
        assert process.process.wait(10) == -signal.SIGKILL
    process = start_once("-r", "__ns:=/killed")
    camera.meet()
    for _ in range(5):
        assert set(camera.answer()) == set(OUTPUTS)
    process.process.send_signal(signal.SIGINT)
    process.assert_ends_well()
    for path, _ in left & all_files() - files_in_use():
        path.unlink(missing_ok=True)


SHARED_MEMORY = {
    "full": "mount -t tmpfs -o size=64k tmpfs /dev/shm",
    "read-only": "mount -t tmpfs -o ro tmpfs /dev/shm",
    "absent": "mount -t tmpfs tmpfs /dev",
}


def can_mount() -> bool:
    """Whether this process may have a mount namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    return subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.parametrize("state", SHARED_MEMORY)
@pytest.mark.skipif(not can_mount(), reason="no mount namespaces for this user")
def test_without_room_in_dev_shm_images_come_over_the_network(domain: int, state: str) -> None:
    """The node and its camera, both where /dev/shm cannot be used."""
    words = ["unshare", "-m", "sh", "-c", f'{SHARED_MEMORY[state]} && exec "$@"', "sh"]
    words += [sys.executable, str(HERE / "shm_trial.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["answered", "5"], done.stdout + done.stderr


# Models


def make_models(folder: Path) -> dict[str, Path]:
    """Files that are no model of ours, by what is wrong with them."""
    from onnx import helper

    whole = (MODELS / "kdc_light.onnx").read_bytes()
    contents = {
        "empty.onnx": b"",
        "truncated.onnx": whole[: len(whole) // 2],
        "noise.onnx": np.random.default_rng(0).bytes(10**5),
        "another.onnx": helper.make_model(
            helper.make_graph([], "none", [], [])
        ).SerializeToString(),
        "pickle.onnx": pickle.dumps({"os": "system"}),
        "pickle.safetensors": pickle.dumps({"os": "system"}),
        # The first eight bytes are the length of what follows.
        "long.safetensors": b"\xff" * 8 + b"{}",
        "pickle.pt": pickle.dumps({"os": "system"}),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.onnx").mkdir()
    os.mkfifo(folder / "pipe.onnx")
    (folder / "device.onnx").symlink_to("/dev/zero")
    (folder / "circle.onnx").symlink_to("circle.onnx")
    names = [*contents, "folder.onnx", "pipe.onnx", "device.onnx", "circle.onnx", "missing.onnx"]
    return {name: folder / name for name in names}


def test_what_is_no_model_is_named_and_the_next_configure_succeeds(
    start_once: Start, peer: MakePeer, tmp_path: Path
) -> None:
    process = start_once("-r", "__ns:=/models", "-p", "autostart:=false")
    manager = peer("/models")
    pid = process.pid
    for name, path in make_models(tmp_path).items():
        memory_mb, lines = resident_mb(pid), len(process.log)
        manager.set_parameters(model=str(path))
        assert not manager.change_state("configure"), name
        status = manager.status(lambda s: s.level == DiagnosticStatus.ERROR, name)
        assert status.message.startswith("configure failed: "), name
        assert name in status.message, status.message
        assert "Traceback" not in process.log[lines:], process.log[lines:]
        assert manager.state() == "unconfigured"
        assert resident_mb(pid) < memory_mb + 300, name
    for name in ("x" * 5000, "../../etc/passwd", "~"):
        manager.set_parameters(model=name)
        assert not manager.change_state("configure"), name
    manager.set_parameters(model="")
    for size in ("64000x64000", "0x0", "x" * 5000):
        manager.set_parameters(input_size=size)
        assert not manager.change_state("configure"), size
    manager.set_parameters(input_size="")
    assert "Traceback" not in process.log
    assert manager.change_state("configure")
    assert manager.change_state("activate")
    manager.meet()


# Engines


def test_two_nodes_that_want_one_engine_build_it_once(
    start_once: Start, peer: MakePeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for NVIDIA's builder and GPU."""
    folder = tmp_path / "engines"
    folder.mkdir(mode=0o700)
    command = (sys.executable, str(HERE / "building_node.py"))
    processes, cameras = [], []
    for name in ("left", "right"):
        arguments = ("-r", f"__ns:=/{name}", "-p", f"engine_cache:={folder}")
        processes.append(start_once(*arguments, command=command))
        cameras.append(peer(f"/{name}"))
    for camera in cameras:
        camera.meet()
    assert len(list(folder.glob("*.engine"))) == 1
    told = [process.log for process in processes]
    assert sorted("the engine was built" in log for log in told) == [False, True], told
    assert all("building an engine: " in log for log in told), told


# People that are there stay there through all of it


def test_people_are_found_after_faults(running: Running, people: np.ndarray) -> None:
    peer = running.peer
    first = persons(peer.answer(people))
    peer.publisher.publish(fails_as(peer, RAISES))
    second = persons(peer.answer(people))
    assert len(first) == len(second) > 0
