"""What the node asks of the runtimes, and what it says while an engine is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn

from kdc_ros.health import health_of

from .local import local_node

pytestmark = pytest.mark.ros


def test_parameters_reach_the_choice_of_the_runtime(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values: dict[str, Any] = {
        "precision": "fp16",
        "input_size": "448x576",
        "engine_cache": str(tmp_path),
        "engine_policy": "prebuilt",
    }
    asked: dict[str, Any] = {}
    with local_node(monkeypatch, **values) as (node, predictor):
        predictor.while_opening = asked.update
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert asked["precision"] == "fp16" and asked["size"] == (448, 576)
        assert asked["one_size"] is True, "a camera's frames are"
        engines = asked["engines"]
        assert engines.folder == tmp_path and engines.policy == "prebuilt"
        assert not engines.cancelled()
        for transition, cancelled in (
            (node.trigger_activate, False),
            (node.trigger_deactivate, True),
            (node.trigger_activate, False),
            (node.trigger_deactivate, True),
            (node.trigger_cleanup, True),
            (node.trigger_configure, False),
        ):
            transition()
            assert asked["engines"].cancelled() is cancelled, transition
        node.stopping.set()
        assert engines.cancelled(), "whoever ends the process does not wait for a build"


def test_a_size_that_is_none_is_refused_by_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    with local_node(monkeypatch, input_size="wide") as (node, _):
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        _, text = health_of(node._now())
        assert "expected a size as HEIGHTxWIDTH" in text


def test_a_build_is_told_in_diagnostics_and_then_over(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[bytes, str]] = []

    def publish(array: DiagnosticArray) -> None:
        told.append((array.status[0].level, array.status[0].message))

    with local_node(monkeypatch) as (node, predictor):
        monkeypatch.setattr(node._diagnostics, "publish", publish)
        predictor.while_opening = lambda given: given["engines"].progress("tactics", 3, 11)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert told[0] == (DiagnosticStatus.WARN, "building an engine: tactics 3 of 11")
        assert told[-1][1] == "inactive"
    assert told[-1][1] == "finalized"


@pytest.mark.parametrize(("name", "frames"), [("onnxruntime", 2), ("tensorrt", 0)])
def test_only_what_needs_no_engine_is_warmed_up_without_a_size(
    monkeypatch: pytest.MonkeyPatch, name: str, frames: int
) -> None:
    """An engine for the wrong size would take minutes to build."""
    seen: list[np.ndarray] = []
    with local_node(monkeypatch) as (node, predictor):
        predictor.runtime.name = name
        predictor.while_busy = lambda: seen.append(np.zeros(1))
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert len(seen) == frames
