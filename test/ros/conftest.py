"""Fixtures with real rclpy: a DDS domain of this process's own, nodes and cameras in it."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from kdc_core import cli
from kdc_core.inference.predictor import Predictor
from kdc_ros import env

from .built_messages import built_messages

if TYPE_CHECKING:  # these need rclpy or rosbags
    from .bags import Stub
    from .local import Local
    from .peer import MakePeer
    from .process import Start

NEED_NO_RCLPY = (
    "test_bag.py",
    "test_bag_damage.py",
    "test_bridge.py",
    "test_compressed.py",
    "test_diagnostics.py",
    "test_docs.py",
    "test_env.py",
    "test_images.py",
    "test_region.py",
    "test_worker.py",
)
LOGS: list[Path] = []  # of the nodes that run
HAS_RCLPY = importlib.util.find_spec("rclpy") is not None


class WithoutRclpy(pytest.Module):
    """A module that cannot be imported here: skipped, but an error where CI would not notice."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        reason = "rclpy is not installed; `make dev` installs it"
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the ROS tests: {reason}", pytrace=False)
        pytest.skip(reason, allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    if HAS_RCLPY or module_path.name in NEED_NO_RCLPY:
        return None
    return WithoutRclpy.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test process on this machine has while this one lasts.

    So workers of one run do not meet, nor do two runs. Domains over 101 would collide with the
    ports of ordinary connections.
    """
    lock = None
    for number in range(1, 101):
        try:
            lock = open(Path(tempfile.gettempdir()) / f"kdc_ros_domain_{number}.lock", "a")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another run's, or another user's file
            if lock is not None:
                lock.close()
            continue
        break
    else:
        pytest.fail("all 100 ROS domains are taken by other test runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(number))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("ROS_LOG_DIR", str(tmp_path_factory.mktemp("ros_log")))
        for name in ("AMENT_PREFIX_PATH", env.FASTDDS_2, env.FASTDDS_3):
            # So that what prepare() sets is undone with the rest.
            patch.setenv(name, os.environ.get(name, ""))
            if not os.environ[name]:
                patch.delenv(name)
        env.prepare()
        if env.profile_variable() in os.environ:
            quick = quick_profile(Path(os.environ[env.profile_variable()]))
            path = tmp_path_factory.mktemp("fastdds") / env.PROFILE
            path.write_text(quick)
            patch.setenv(env.profile_variable(), str(path))
        yield number
    lock.close()


def quick_profile(profile: Path) -> str:
    """The profile, with announcements every second, not every three, after the first five.

    A process that misses the first ones of another waits for the next. Not oftener: Fast DDS 3.2
    may hang for good if one falls due just when somebody else leaves (eProsima/Fast-DDS#6502), as
    the nodes of other tests do all the time.
    """
    period = "<leaseAnnouncement><sec>1</sec><nanosec>0</nanosec></leaseAnnouncement>"
    builtin = f"<builtin><discovery_config>{period}</discovery_config></builtin>"
    text = profile.read_text(encoding="utf-8")
    return text if "<builtin>" in text else text.replace("<rtps>", f"<rtps>{builtin}", 1)


@pytest.fixture(scope="module")
def start(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """start(*ros_args, command=NODE): a NodeProcess, stopped with the module if not before."""
    with ExitStack() as stack:
        yield starts(stack, tmp_path_factory)


@pytest.fixture
def start_once(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """As `start`, stopped with the test."""
    with ExitStack() as stack:
        yield starts(stack, tmp_path_factory)


def starts(stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Start:
    from kdc_ros.camera import NODE, node_process

    from .process import NodeProcess

    def start(*ros_args: str, command: Sequence[str] = NODE) -> NodeProcess:
        log = tmp_path_factory.mktemp("node") / "log.txt"
        process = stack.enter_context(node_process(*ros_args, log=log, command=command))
        LOGS.append(log)
        stack.callback(LOGS.remove, log)
        return NodeProcess(process, log)

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the nodes that run then have written."""
    report = yield
    if report.failed:
        report.sections += [(f"log of a node, {log}", log.read_text()[-4000:]) for log in LOGS]
    return report


@pytest.fixture(scope="module")
def optional_messages(domain: int) -> Iterator[None]:
    """vision_msgs and hri_msgs can be imported, by the nodes that this module starts too."""
    with pytest.MonkeyPatch.context() as patch:
        if not all(map(importlib.util.find_spec, ("vision_msgs", "hri_msgs"))):
            folder = str(built_messages())
            patch.syspath_prepend(folder)
            patch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def module_peers(domain: int) -> Iterator[MakePeer]:
    """peer(...): a Peer that lasts as long as the module."""
    with ExitStack() as stack:
        yield peers(stack)


@pytest.fixture
def peer(domain: int) -> Iterator[MakePeer]:
    """peer(...): a Peer that lasts as long as the test."""
    with ExitStack() as stack:
        yield peers(stack)


def peers(stack: ExitStack) -> MakePeer:
    from .peer import Peer

    def peer(
        namespace: str, reliable: bool = True, answers: dict[str, type] | None = None
    ) -> Peer:
        made = Peer(namespace, reliable, answers)
        stack.callback(made.close)
        return made

    return peer


@pytest.fixture
def local(domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer) -> Iterator[Local]:
    """A node in this process, active; its predictor, a stub; and a peer."""
    from .local import Local, local_node

    with local_node(monkeypatch, spin=True, autostart=True) as (node, predictor):
        camera = peer(node.get_namespace())
        camera.meet()
        yield Local(node, predictor, camera)


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    """A real image with several people, 320 wide."""
    folder = Path(str(files("kdc_core") / "samples"))
    image = cv2.imread(str(sorted(folder.glob("*.jpg"))[0]))
    assert image is not None
    height = round(image.shape[0] * 320 / image.shape[1])
    return cv2.resize(image[..., ::-1], (320, height), interpolation=cv2.INTER_AREA)


@pytest.fixture
def bag(capsys: pytest.CaptureFixture[str]) -> Any:
    """bag(*arguments): `kdc bag` in this process."""
    from .bags import Done

    def bag(*arguments: object) -> Done:
        code = cli.run(["bag", *map(str, arguments)])
        return Done(code, *capsys.readouterr())

    return bag


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """In the place of the model, which takes its time."""
    from .bags import Stub

    stub = Stub()
    monkeypatch.setattr(Predictor, "from_pretrained", lambda *_, **given: stub)
    return stub
