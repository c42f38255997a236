"""Publishers with whom the node shares no memory, as they are users apart."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kdc_ros.sharing import other_users

from .peer import MakePeer
from .process import Start

ME, OTHER = os.getuid(), 65534
DOMAIN = 3
PORT = 7400 + 250 * DOMAIN + 11
needs_root = pytest.mark.skipif(ME != 0, reason="needs root, to have files of two users")


def gid(pid: int, host: bytes = b"\x78\xfd") -> bytes:
    """The identity of an endpoint: vendor, host, process, chance, and the endpoint in it."""
    return b"\x01\x0f" + host + pid.to_bytes(4, "little")[:2] + bytes(10)


OWN = gid(70_000)


class Machine:
    """Folders like /dev/shm and /proc."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.shm, self.proc = folder / "shm", folder / "proc"
        self._stack = stack
        for path in (self.shm, self.proc):
            path.mkdir()

    def port(self, number: int, uid: int, prefix: str = "fastdds", alive: bool = True) -> None:
        path = self.shm / f"{prefix}_port{number}"
        path.touch()
        os.chown(path, uid, -1)
        file = self._stack.enter_context(open(f"{path}_el", "w"))
        if alive:
            fcntl.flock(file, fcntl.LOCK_EX)

    def process(self, pid: int, uid: int) -> None:
        path = self.proc / str(pid)
        path.mkdir()
        os.chown(path, uid, -1)

    def others(self, *publishers: bytes) -> list[int]:
        return other_users(list(publishers), OWN, DOMAIN, self.shm, self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """One on which this process listens, and has a number over 16 bits."""
    with ExitStack() as stack:
        machine = Machine(tmp_path, stack)
        machine.port(PORT, ME)
        machine.process(70_000, ME)
        yield machine


@needs_root
@pytest.mark.parametrize("prefix", ["fastdds", "fastrtps"])
def test_a_publisher_of_another_user_is_found(machine: Machine, prefix: str) -> None:
    machine.port(PORT + 2, OTHER, prefix)
    machine.process(70_001, OTHER)
    assert machine.others(gid(70_001)) == [OTHER]
    assert machine.others(gid(70_000), gid(70_001)) == [OTHER], "one of several is enough"


@needs_root
def test_a_publisher_of_another_container_is_found(machine: Machine) -> None:
    """Its process is not seen from here, its files are."""
    machine.port(PORT + 2, OTHER)
    assert machine.others(gid(30)) == [OTHER]


@needs_root
def test_a_publisher_of_another_container_may_be_of_this_user(machine: Machine) -> None:
    """Where another of this user's processes listens, it cannot be told who publishes."""
    machine.port(PORT + 2, OTHER)
    port = machine.shm / f"fastdds_port{PORT + 4}"
    port.touch()
    code = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
    code += "print(1, flush=True); sys.stdin.read()"
    holder = [sys.executable, "-c", code, f"{port}_el"]
    with subprocess.Popen(
        holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as beside:
        assert beside.stdout is not None and beside.stdout.readline() == "1\n"
        assert machine.others(gid(30)) == []
        machine.process(70_001, OTHER)
        assert machine.others(gid(70_001)) == [OTHER], "here it is seen whose it is"
        beside.communicate("")
    assert machine.others(gid(30)) == [OTHER]


@needs_root
def test_who_else_is_in_the_domain_does_not_count(machine: Machine) -> None:
    machine.port(PORT + 2, OTHER)
    assert machine.others(gid(70_000)) == []
    assert machine.others() == []


@needs_root
def test_without_shared_memory_there_is_none_to_share(machine: Machine) -> None:
    assert machine.others(gid(30)) == [], "it has no port there"
    machine.port(PORT + 2, OTHER, alive=False)
    assert machine.others(gid(30)) == [], "it left a port when it was killed"
    machine.port(PORT + 250, OTHER)
    assert machine.others(gid(30)) == [], "it has one in another domain"
    machine.port(PORT + 4, OTHER)
    assert machine.others(gid(30, host=b"\x01\x02")) == [], "it is on another machine"
    (machine.shm / f"fastdds_port{PORT}_el").unlink()
    assert machine.others(gid(30)) == [], "this process has no port there"


# It ends in order: killed, it would leave files that another user's nodes cannot use.
CAMERA = """
import signal
from contextlib import closing
from kdc_ros import env
env.prepare()
import numpy as np
from kdc_ros.camera import Camera
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(True))
with closing(Camera({}, "/apart")) as camera:
    while not ends:
        camera.publisher.publish(camera.image(np.zeros((48, 64, 3), np.uint8)))
        camera.spin_until(lambda: ends, 0.1)
"""


@contextmanager
def camera_of_another_user() -> Iterator[None]:
    """Where this user may become another, who still may read what root's Python is made of."""
    if ME != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to be another user")
    read = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    become = ["setpriv", f"--reuid={OTHER}", "--clear-groups", *read]
    if subprocess.run([*become, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip("another user cannot run this Python here")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        process = subprocess.Popen(
            [*become, sys.executable, "-c", CAMERA], env=os.environ | {"ROS_LOG_DIR": folder}
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()


@pytest.mark.ros
@pytest.mark.all
def test_the_node_warns_of_a_camera_of_another_user(start: Start, peer: MakePeer) -> None:
    process = start("-r", "__ns:=/apart")
    observer = peer("/apart", answers={})
    observer.node.destroy_publisher(observer.publisher)
    with camera_of_another_user():
        wanted = f"a publisher runs as uid {OTHER}, this node as uid {ME}; they share no memory"
        status = observer.status(lambda status: wanted in status.message, wanted)
        assert status.level == b"\x01"
        assert "one user, or both over UDP" in status.message
        observer.wait(lambda: wanted in process.log, "the warning in the log")
    lines = [line for line in process.log.splitlines() if wanted in line]
    assert len(lines) == 1 and "[WARN]" in lines[0]
