"""Frames that the node leaves out: the node in this process, with a stub of the model."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from .local import Local
from .peer import OUTPUTS

pytestmark = pytest.mark.ros


def test_enable_pauses_and_resumes(local: Local) -> None:
    assert local.peer.enable(False).success
    status = local.peer.send_and_watch(lambda values: float(values["output_hz"]) == 0)
    assert (status.level, status.message) == (DiagnosticStatus.OK, "paused by ~/enable")
    assert local.peer.enable(True).success
    assert set(local.peer.answer()) == set(OUTPUTS)


def test_max_rate_leaves_frames_out(local: Local) -> None:
    local.peer.set_parameters(max_rate=0.001)
    local.peer.send_and_watch(lambda values: float(values["output_hz"]) == 0)
    local.peer.set_parameters(max_rate=0.0)
    local.peer.send_and_watch(lambda values: float(values["output_hz"]) > 0)
