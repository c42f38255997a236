"""`kdc echo`: what it prints of a node's people, and how it ends."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rich.table import Table
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from kdc_core import cli
from kdc_ros import echo
from kdc_ros.images import byte_array
from kdc_ros.people_table import PeopleTable
from kdc_ros.tables import PERSON, fill_cloud

from .peer import MakePeer, persons
from .process import Start

pytestmark = pytest.mark.ros

NAMESPACES = itertools.count(1)
PERIOD_S = 0.05
TWO = np.zeros((1, 2), PERSON)
TWO["id"], TWO["score"], TWO["area"], TWO["visible"] = [3, 40], [0.913, 1], [1200, 65_000], [9, 17]
TWO["left"], TWO["top"], TWO["width"], TWO["height"] = [-0.5, 300], [20, 10.4], 99.6, 220
FIRST = "id 3 score 0.91 left 0 top 20 width 100 height 220 visible 9 area 1200"
SECOND = "id 40 score 1.00 left 300 top 10 width 100 height 220 visible 17 area 65000"


class Publisher:
    """A node that publishes a table of people again and again.

    Attributes:
        name: with its namespace.
        cloud: the table; its stamp is replaced.
    """

    def __init__(self, cloud: PointCloud2):
        namespace = f"/echo_{next(NAMESPACES)}"
        self.name, self.cloud = f"{namespace}/kdc", cloud
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("kdc", namespace=namespace, context=self._context)
        self._publisher = self._node.create_publisher(PointCloud2, "~/persons", 1)
        self._node.create_timer(PERIOD_S, self._publish)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def _publish(self) -> None:
        self.cloud.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(self.cloud)

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(20)
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


def table(rows: np.ndarray) -> PointCloud2:
    return fill_cloud(PointCloud2, PointField, Header(), rows, byte_array(rows))


@pytest.fixture
def publish(domain: int) -> Iterator[Callable[[PointCloud2], str]]:
    """publish(cloud): the name of a node that publishes it from now on."""
    made: list[Publisher] = []

    def publish(cloud: PointCloud2) -> str:
        made.append(Publisher(cloud))
        return made[-1].name

    yield publish
    for publisher in made:
        publisher.close()


@pytest.fixture
def kdc_echo(domain: int, capsys: pytest.CaptureFixture[str]) -> Any:
    """kdc_echo(*arguments): exit status, output and errors of `kdc echo` in this process."""

    def kdc_echo(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["echo", *arguments])
        return code, *capsys.readouterr()

    return kdc_echo


def test_a_line_for_each_person(publish: Any, kdc_echo: Any) -> None:
    name = publish(table(TWO))
    for topic in (name, name.removeprefix("/"), f"{name}/persons"):
        code, out, err = kdc_echo("--topic", topic, "--once")
        assert code == 0, err
        stamps, rows = zip(*(line.split(" ", 1) for line in out.splitlines()), strict=True)
        assert list(rows) == [FIRST, SECOND]
        assert stamps[0] == stamps[1] and float(stamps[0]) > 1e9


def test_a_line_for_nobody(publish: Any, kdc_echo: Any) -> None:
    code, out, _ = kdc_echo("--topic", publish(table(TWO[:, :0])), "--once")
    assert code == 0 and out.split()[1:] == ["nobody"]


def test_a_table_in_a_terminal(
    publish: Any, kdc_echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what it writes to for a terminal
    monkeypatch.setenv("COLUMNS", "100")
    name = publish(table(TWO))
    code, out, err = kdc_echo("--topic", name, "--once")
    assert code == 0, err
    assert f"{name}/persons: 2 people, age 0." in out
    rows = [line.split() for line in out.replace("│", " ").splitlines()]
    assert ["3", "0.91", "0", "20", "100", "220", "9", "1200"] in rows
    assert ["40", "1.00", "300", "10", "100", "220", "17", "65000"] in rows


def test_the_table_lives_until_the_signal(
    publish: Any, kdc_echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    drawn, whole = itertools.count(1), PeopleTable.table

    def draw(people: PeopleTable) -> Table:
        if people.count > 1 and next(drawn) == 15:  # in 1.5 s
            os.kill(os.getpid(), signal.SIGINT)
        return whole(people)

    monkeypatch.setattr(PeopleTable, "table", draw)
    code, out, _ = kdc_echo("--topic", publish(table(TWO)))
    assert code == 130
    titles = [line for line in out.splitlines() if "2 people" in line]
    assert len(titles) > 10
    rate = float(titles[-1].split("people, ")[1].split(" Hz")[0])
    assert 0 < rate < 1.5 / PERIOD_S


def test_no_node_of_the_name(publish: Any, kdc_echo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "TIMEOUT_S", 1.0)
    code, out, err = kdc_echo("--topic", "/nobody/kdc")
    assert (code, out) == (1, "")
    assert err.startswith("error: no node publishes '/nobody/kdc/persons'")
    name = publish(table(TWO))
    monkeypatch.setattr(echo, "TIMEOUT_S", 4.0)  # in which it finds the other
    code, _, err = kdc_echo("--topic", "/nobody/kdc")
    assert code == 1 and name in err and "--topic" in err
    for name in ("no name", "{robot}"):
        code, _, err = kdc_echo("--topic", name)
        assert code == 2 and f"'{name}' is no name" in err and len(err.splitlines()) == 1


def test_a_topic_of_something_else(publish: Any, kdc_echo: Any) -> None:
    cloud = table(np.zeros((1, 2), np.dtype([("x", "<f4"), ("y", "<f4")])))
    code, _, err = kdc_echo("--topic", publish(cloud), "--once")
    assert code == 1 and "is no table of people" in err


@pytest.mark.all
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(number: signal.Signals, publish: Any) -> None:
    command = [sys.executable, "-m", "kdc_core", "echo", "--topic", publish(table(TWO))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(6)]
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert err == f"stopped by {number.name}\n"
    assert all(line.split(" ", 1)[1].strip() in (FIRST, SECOND) for line in lines)
    assert len({line.split()[0] for line in lines}) == 3, "each image once"


@pytest.mark.all
def test_people_of_a_real_node(
    start: Start, peer: MakePeer, people: np.ndarray, kdc_echo: Any
) -> None:
    start("-r", "__ns:=/echoed")
    camera = peer("/echoed")
    camera.meet()
    camera.answer(people)  # none is on its way of a frame that it was met with
    stop = threading.Event()

    def show() -> None:
        while not stop.is_set():
            camera.publisher.publish(camera.frame(people))
            camera.spin_until(lambda: None, 0.2)

    thread = threading.Thread(target=show)
    thread.start()
    try:
        code, out, err = kdc_echo("--topic", "/echoed/kdc", "--once")
    finally:
        stop.set()
        thread.join()
    assert code == 0, err
    stamp = int(out.split(".")[0])
    found = next(a for (sec, _), a in camera.received.items() if sec == stamp and len(a) == 3)
    assert len(persons(found)) == len(out.splitlines()) > 1
    ids = [int(line.split()[2]) for line in out.splitlines()]
    assert ids == persons(found)["id"].tolist()
