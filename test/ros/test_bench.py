"""`kdc bench node`: the node in a process of its own beside the bare predictor."""

from __future__ import annotations

import pytest

from kdc_ros.bench import bench_node

pytestmark = [pytest.mark.ros, pytest.mark.all]


def test_it_times_node_and_predictor(domain: int) -> None:
    figures = bench_node(rounds=2)
    assert set(figures) == {"node_overhead_ms", "node_ms", "predictor_ms", "rounds"}
    assert figures["node_ms"] > 0 and figures["predictor_ms"] > 0
    assert figures["rounds"] == 2
