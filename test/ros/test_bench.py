"""`kdc bench node`: the node in a process of its own beside the bare predictor."""

from __future__ import annotations

import pytest

from kdc_ros.bench import bench_node

pytestmark = [pytest.mark.ros, pytest.mark.all, pytest.mark.timed]


STREAMED = {"latency_ms", "latency_ms_p95", "answered_share", "delivered_share", "cpu_share"}


def test_it_times_node_and_predictor_and_streams(domain: int) -> None:
    figures = bench_node(rounds=3)
    streams = {f"{size}_{model}" for size in ("vga", "720p") for model in ("10ms", "100ms")}
    assert set(figures) == {
        "node_overhead_over_predictor",
        "latency_p95_over_predictor_p95",
        "delivered_share",
        "cpu_share",
        "node_overhead_ms",
        "node_ms",
        "node_ms_p95",
        "predictor_ms",
        "predictor_ms_p95",
        "latency_ms",
        "rate_hz",
        "pipeline_latency_ms",
        "pipeline_rate_hz",
        "rounds",
        *(f"{stream}_{name}" for stream in streams for name in STREAMED),
    }
    overheads = {"node_overhead_ms", "node_overhead_over_predictor"}
    assert all(figures[name] > 0 for name in set(figures) - overheads)
    assert figures["rounds"] == 3
    # A frame takes at least as long as from one answer to the next, and the node falls behind
    # the camera.
    for kind in ("", "pipeline_"):
        assert figures[f"{kind}rate_hz"] < 3 * 1e3 / figures["predictor_ms"]
        assert figures[f"{kind}latency_ms"] * figures[f"{kind}rate_hz"] > 900
    for size in ("vga", "720p"):
        assert figures[f"{size}_10ms_latency_ms"] > 10
        assert figures[f"{size}_100ms_latency_ms"] > 100
        assert figures[f"{size}_100ms_answered_share"] < 0.5  # of 30 Hz, ten at most
    delivered = [figures[f"{stream}_delivered_share"] for stream in streams]
    assert figures["delivered_share"] == min(delivered) > 0.9
    assert figures["cpu_share"] == figures["vga_10ms_cpu_share"] < 1
