"""How a node in a process of its own ends and starts: signals, kills, and no /dev/shm."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdc_ros.main import STOP_S

from .peer import OUTPUTS, MakePeer
from .process import STOP_TIMEOUT_S, Start
from .shared_memory import SharedFile, all_files, files_in_use, files_of

pytestmark = [pytest.mark.ros, pytest.mark.all]

HERE = Path(__file__).parent
SLOW = (sys.executable, str(HERE / "slow_node.py"))


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
