"""The people that a running node publishes, as a table and as lines."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from rclpy.node import Node
from rich.table import Table
from sensor_msgs.msg import PointCloud2

from kdc_core.errors import KdcError
from kdc_ros.stamps import stamp_s
from kdc_ros.tables import PERSON

TYPE = "sensor_msgs/msg/PointCloud2"
PERSONS = "/persons"  # of the node's topics
RATE_OVER_S = 3.0
MOST_ARRIVED = 1000  # images that the rate is of
CLOCKS_DIFFER_S = 3600.0  # no node is that late
# Columns, and decimals of their values.
COLUMNS = {
    "id": 0,
    "score": 2,
    "left": 0,
    "top": 0,
    "width": 0,
    "height": 0,
    "visible": 0,
    "area": 0,
}


class PeopleTable:
    """The people of the image for which a node has published them last.

    Args:
        node: whose executor runs the callbacks.
        name: of the node that finds the people, or of its topic of persons.

    Attributes:
        count: images whose people came so far.

    Raises:
        KdcError: from the callback, of a topic that is no table of people.
    """

    def __init__(self, node: Node, name: str):
        self._node = node
        self._name = f"/{name.strip('/').removesuffix(PERSONS)}"
        self._topic = f"{self._name}{PERSONS}"
        self._arrived: deque[float] = deque(maxlen=MOST_ARRIVED)
        self._last = PointCloud2()
        self.count = 0
        node.create_subscription(PointCloud2, self._topic, self._keep, 10)

    def _keep(self, cloud: PointCloud2) -> None:
        if cloud.point_step != PERSON.itemsize or len(cloud.data) % PERSON.itemsize:
            raise KdcError(f"'{self._topic}' is no table of people: expected one of kdc's node")
        self._arrived.append(time.monotonic())
        self._last = cloud
        self.count += 1

    @property
    def published(self) -> bool:
        """Whether there is a node that publishes them."""
        return self._node.count_publishers(self._topic) > 0

    @property
    def silence(self) -> str:
        """Why nothing comes, and what to do."""
        if self.published:
            return f"'{self._name}' publishes no people: /diagnostics has the cause"
        others = [
            name.removesuffix(PERSONS)
            for name, kinds in self._node.get_topic_names_and_types()
            if name.endswith(PERSONS) and TYPE in kinds and self._node.count_publishers(name)
        ]
        advice = (
            f"choose one of {', '.join(sorted(others))} with --topic"
            if others
            else "there is no other node of this kind; start one, or look at ROS_DOMAIN_ID"
        )
        return f"no node publishes '{self._topic}': {advice}"

    def lines(self) -> list[str]:
        """A line for each person, or for nobody: the stamp in seconds, then names and values."""
        stamp = f"{stamp_s(self._last.header):.3f}"
        rows = [" ".join(map(" ".join, zip(COLUMNS, row, strict=True))) for row in self._rows()]
        return [f"{stamp} {row}" for row in rows] or [f"{stamp} nobody"]

    def table(self) -> Table:
        """A row for each person; the title has their number, the rate, and how old they are."""
        rows = self._rows()
        rate = f"{self._rate_hz():.1f} Hz, " if self.count > 1 else ""
        state = f"{len(rows)} people, {rate}{self._age()}" if self.count else "nothing yet"
        table = Table(title=f"{self._topic}: {state}")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row)
        return table

    def _rows(self) -> list[list[str]]:
        people = np.frombuffer(self._last.data, PERSON)
        return [[_text(row[name], digits) for name, digits in COLUMNS.items()] for row in people]

    def _age(self) -> str:
        age_s = 1e-9 * self._node.get_clock().now().nanoseconds - stamp_s(self._last.header)
        return f"age {age_s:.2f} s" if abs(age_s) < CLOCKS_DIFFER_S else "stamps of another clock"

    def _rate_hz(self) -> float:
        while self._arrived and self._arrived[0] < time.monotonic() - RATE_OVER_S:
            self._arrived.popleft()
        if len(self._arrived) < 2:
            return 0.0
        return (len(self._arrived) - 1) / (self._arrived[-1] - self._arrived[0])


def _text(value: float, digits: int) -> str:
    return f"{round(float(value), digits) + 0.0:.{digits}f}"  # a zero has no sign
