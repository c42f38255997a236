"""`kdc bench node`: the node in a process of its own beside the bare predictor."""

from __future__ import annotations

import pytest

from kdc_ros.bench import bench_node

pytestmark = [pytest.mark.ros, pytest.mark.all]


def test_it_times_node_and_predictor_and_a_stream_with_and_without_pipeline(domain: int) -> None:
    figures = bench_node(rounds=3)
    assert set(figures) == {
        "node_overhead_ms",
        "node_ms",
        "predictor_ms",
        "latency_ms",
        "rate_hz",
        "pipeline_latency_ms",
        "pipeline_rate_hz",
        "rounds",
    }
    assert all(figures[name] > 0 for name in set(figures) - {"node_overhead_ms"})
    assert figures["rounds"] == 3
    # A frame takes at least as long as from one answer to the next, and the node falls behind
    # the camera.
    for kind in ("", "pipeline_"):
        assert figures[f"{kind}rate_hz"] < 3 * 1e3 / figures["predictor_ms"]
        assert figures[f"{kind}latency_ms"] * figures[f"{kind}rate_hz"] > 900
