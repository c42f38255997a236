"""Frames that the node leaves out: the node in this process, with a stub of the model."""

from __future__ import annotations

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from kdc_ros.processing import Processing

from .local import Local
from .peer import OUTPUTS

pytestmark = pytest.mark.ros


def test_enable_pauses_and_resumes(local: Local) -> None:
    assert local.peer.enable(False).success
    status = local.peer.send_and_watch(lambda values: float(values["output_hz"]) == 0)
    assert (status.level, status.message) == (DiagnosticStatus.OK, "paused by ~/enable")
    assert local.peer.enable(True).success
    assert set(local.peer.answer()) == set(OUTPUTS)


@pytest.mark.parametrize("rate", [1.0, 10.0, 29.0])
def test_max_rate_is_kept_from_the_first_frame_on(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    processing, now = Processing.__new__(Processing), 1000.0
    processing._next_frame = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    taken = []
    for frame in range(300):
        now = 1000 + frame / 30 + (5 if frame >= 200 else 0)  # the camera pauses
        if not processing._too_soon(rate):
            taken.append(now)
    gaps = np.diff(taken)
    assert gaps.min() >= 1 / rate - 1 / 30 - 1e-6, "no two at once, as far as frames come so"
    assert abs((len(taken) - 1) - rate * 10) <= 2 + rate / 30


def test_max_rate_leaves_frames_out(local: Local) -> None:
    local.peer.set_parameters(max_rate=0.001)
    local.peer.send_and_watch(lambda values: float(values["output_hz"]) == 0)
    before = local.peer.counters()["frames"]
    for confidence in (0.4, 0.5):
        local.peer.set_parameters(confidence=confidence)
        local.peer.send_and_watch(lambda values: float(values["output_hz"]) == 0)
    assert local.peer.counters()["frames"] == before, "another parameter lets no frame through"
    local.peer.set_parameters(max_rate=0.0)
    local.peer.send_and_watch(lambda values: float(values["output_hz"]) > 0)
