"""The demo, as `make demo` runs it, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from kdc_ros import env


@pytest.mark.ros
@pytest.mark.slow
def test_demo_answers_every_frame_and_leaves_images(
    domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(env.profile_variable(), raising=False)  # with the profile as shipped
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    home, folder = tmp_path / "home", tmp_path / "demo"
    for made in (home, folder):
        made.mkdir()
    monkeypatch.setenv("HOME", str(home))
    done = subprocess.run(
        [sys.executable, "-m", "kdc_ros.demo"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(home.rglob("*")), "telemetry, or another file that nobody asked for"
    output = folder / "demo_output"
    summary = json.loads((output / "summary.json").read_text())
    assert set(summary) == {
        "frames_sent",
        "frames_received",
        "persons",
        "latency_ms_p50",
        "latency_ms_p95",
    }
    assert summary["frames_sent"] == summary["frames_received"] >= 30
    assert summary["persons"] > 30
    assert len(list(output.glob("*.jpg"))) == 8
    video = cv2.VideoCapture(str(output / "people.avi"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 40
