"""Fixtures with real rclpy: a DDS domain of this test run's own, nodes and cameras in it."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kdc_ros import env

NEED_RCLPY = (
    "test_messages.py",
    "test_parameters.py",
    "test_node.py",
    "test_node_faults.py",
    "test_node_lifecycle.py",
)
HAS_RCLPY = importlib.util.find_spec("rclpy") is not None


class WithoutRclpy(pytest.Module):
    """A module that cannot be imported here: skipped, but an error where CI would not notice."""

    def collect(self) -> list[Any]:
        reason = "rclpy is not installed; `make dev` installs it"
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the ROS tests: {reason}", pytrace=False)
        pytest.skip(reason, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    if HAS_RCLPY or module_path.name not in NEED_RCLPY:
        return None
    return WithoutRclpy.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test run on this machine has, for as long as this one lasts.

    Domains over 101 would collide with the ports of ordinary connections.
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
        yield number
    lock.close()


@pytest.fixture(scope="module")
def start(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """start(*ros_args): a node process, stopped at the end of the module if not before.

    Its output goes to the file `process.log_file`.
    """
    from kdc_ros.camera import node_process

    with ExitStack() as stack:

        def start(*ros_args: str) -> Any:
            log = tmp_path_factory.mktemp("node") / "log.txt"
            process = stack.enter_context(node_process(*ros_args, log=log))
            process.log_file = log
            return process

        yield start


@pytest.fixture(scope="module")
def module_peers(domain: int) -> Iterator[Callable[..., Any]]:
    """peer(...): a Peer that lasts as long as the module."""
    from .peer import Peer

    with ExitStack() as stack:

        def peer(*args: Any, **options: Any) -> Peer:
            made = Peer(*args, **options)
            stack.callback(made.close)
            return made

        yield peer


@pytest.fixture
def peer(domain: int) -> Iterator[Callable[..., Any]]:
    """peer(...): a Peer that lasts as long as the test."""
    from .peer import Peer

    with ExitStack() as stack:

        def peer(*args: Any, **options: Any) -> Peer:
            made = Peer(*args, **options)
            stack.callback(made.close)
            return made

        yield peer


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    """A real picture with several people, 320 wide."""
    folder = Path(str(files("kdc_core") / "samples"))
    picture = cv2.imread(str(sorted(folder.glob("*.jpg"))[0]))[..., ::-1]
    height = round(picture.shape[0] * 320 / picture.shape[1])
    return cv2.resize(picture, (320, height), interpolation=cv2.INTER_AREA)
