"""`kdc bench runtimes`: what it measures. How fast it is here, no test asks."""

from __future__ import annotations

import pytest

from kdc_core.bench import runtimes
from kdc_core.bench.runtimes import SETTLED, bench_runtimes, memory_growth
from kdc_core.inference.runtimes.choice import RUNTIMES

CPU_FIGURES = {
    "end_to_end_over_network",
    "openvino_over_onnxruntime",
    "openvino_int8_over_onnxruntime",
    "over_movenet",
    "first_frame_s",
    "configure_cached_s",
    "memory_growth",
}
CUDA_FIGURES = {"end_to_end_over_network_cuda", "frames_per_second_cuda"}


def test_memory_is_watched_from_the_settled_frame_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(runtimes, "_memory", lambda: 1000 + len(made))
    assert memory_growth(lambda: made.append(0), SETTLED + 55) == pytest.approx(55 / 1100)
    assert len(made) == SETTLED + 55


@pytest.mark.all
@pytest.mark.timed
def test_every_runtime_is_measured_or_refused_with_a_reason() -> None:
    pytest.importorskip("openvino")
    done = bench_runtimes("kdc_light", 3, SETTLED + 1)
    assert CPU_FIGURES <= set(done.figures) <= CPU_FIGURES | CUDA_FIGURES
    assert min(v for name, v in done.figures.items() if name != "memory_growth") > 0
    assert {name.split()[0] for name in done.stages} | set(done.refused) == set(RUNTIMES)
    assert {"onnxruntime fp32", "torch fp32"} <= set(done.stages)
    assert all(set(s) == {"letterbox", "model", "assembly"} for s in done.stages.values())
