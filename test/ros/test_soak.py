"""`kdc soak`: the node at full load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from kdc_ros import soak

pytestmark = pytest.mark.ros
GOOD = {"memory_growth": 0.05, "faults": 0.0, "bad": 0.0, "lost": 3.0}


@pytest.mark.parametrize(
    ("changes", "code"),
    [({}, 0), ({"memory_growth": 0.051}, 1), ({"faults": 1.0}, 1), ({"bad": 1.0}, 1)],
    ids=["good", "it grew", "a fault", "a bad frame"],
)
def test_growth_and_faults_are_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, float], code: int
) -> None:
    """And what was measured is written all the same."""
    figures, file = GOOD | changes, tmp_path / "soak.json"
    monkeypatch.setattr(soak, "run_soak", lambda minutes: figures)
    try:
        soak.soak(minutes=1.0, json_file=file)
        ended = 0
    except typer.Exit as end:
        ended = end.exit_code
    assert ended == code
    assert json.loads(file.read_text()) == figures


@pytest.mark.all
@pytest.mark.timed
def test_a_minute_at_full_load(domain: int) -> None:
    figures = soak.run_soak(minutes=1.0)
    assert figures["memory_growth"] <= soak.LARGEST_GROWTH, figures
    assert figures["faults"] == figures["bad"] == figures["lost"] == 0, figures
    assert figures["shown"] > 60 * 20, figures
    assert figures["answered"] == figures["frames"] > 60, figures
    assert figures["frames"] + figures["dropped"] == figures["shown"], figures
    assert 0 < figures["latency_ms_p50"] <= figures["latency_ms_p95"], figures
