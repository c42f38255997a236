"""Frames that the node leaves out: the node in this process, with a stub of the model."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import SetBool

from kdc_ros.outputs import Outputs
from kdc_ros.processing import Processing

from .local import Local, local_node, process_frame
from .peer import OUTPUTS

pytestmark = pytest.mark.ros


def test_enable_pauses_and_resumes(local: Local) -> None:
    assert local.peer.enable(False).success
    status = local.peer.send_and_watch(lambda values: float(values["output_hz"]) == 0)
    assert (status.level, status.message) == (DiagnosticStatus.OK, "paused by ~/enable")
    assert int(local.peer.values(status)["skipped"]) > 0
    assert local.peer.enable(True).success
    assert set(local.peer.answer()) == set(OUTPUTS)


def test_a_frame_under_way_when_the_node_is_paused_is_not_published(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[int] = []
    with local_node(monkeypatch, lazy=False) as (node, predictor):

        def publish(*_: object) -> None:
            published.append(predictor.submitted)

        def pause() -> None:
            node._on_enable(SetBool.Request(data=False), SetBool.Response())

        monkeypatch.setattr(Outputs, "publish", publish)
        node.trigger_configure()
        process_frame(node)
        submitted = predictor.submitted
        predictor.while_busy = pause
        process_frame(node)
        assert published == [submitted] and predictor.submitted == submitted + 1


@pytest.mark.parametrize("rate", [1.0, 10.0, 29.0])
def test_max_rate_is_kept_from_the_first_frame_on(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    processing, now = Processing.__new__(Processing), 1000.0
    processing._last_due = -math.inf
    monkeypatch.setattr(time, "monotonic", lambda: now)
    taken = []
    for frame in range(1200):
        now = 1000 + frame / 120 + (5 if frame >= 800 else 0)  # the camera pauses
        if not processing._too_soon(rate):
            taken.append(now)
    gaps = np.diff(taken)
    assert gaps.min() >= 1 / rate - 1 / 120 - 1e-6, "no two at once, as far as frames come so"
    assert abs((len(taken) - 1) - rate * 10) <= 2 + rate / 120


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
