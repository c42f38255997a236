"""Faults that no picture provokes: the node in this process, with a stub of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from kdc_ros import outputs

from .local import local_node
from .peer import BLACK, OUTPUTS, WITH_ANNOTATED, Peer

pytestmark = pytest.mark.ros

FAULTS_BEFORE_GIVING_UP = 10


@pytest.fixture
def faulty(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: Callable[..., Peer]
) -> Iterator[Any]:
    """A node in this process, active; its predictor, a stub; and a peer."""
    with local_node(monkeypatch, spin=True, autostart=True) as (node, predictor):
        camera = peer(node.get_namespace())
        camera.meet()
        yield SimpleNamespace(node=node, predictor=predictor, peer=camera)


def test_an_inference_fault_is_counted_and_the_next_frame_answered(faulty: Any) -> None:
    faulty.predictor.error = RuntimeError("out of luck")
    faulty.peer.publisher.publish(faulty.peer.frame())
    status = faulty.peer.status(
        lambda status: faulty.peer.values(status)["faults"] == "1", "fault counted"
    )
    assert faulty.peer.values(status)["last_error"] == "RuntimeError: out of luck"
    assert faulty.peer.values(status)["state"] == "active"
    faulty.predictor.error = None
    assert set(faulty.peer.answer()) == set(OUTPUTS)


def test_faults_with_good_frames_between_do_not_stop_the_node(faulty: Any) -> None:
    for count in range(FAULTS_BEFORE_GIVING_UP + 1):
        faulty.predictor.error = RuntimeError("now and then")
        begun = faulty.node._monitor.faults
        faulty.peer.publisher.publish(faulty.peer.frame())
        faulty.peer.wait(lambda begun=begun: faulty.node._monitor.faults > begun, f"fault {count}")
        faulty.predictor.error = None
        faulty.peer.answer()
    faulty.peer.status()  # with this one it would give up
    assert faulty.peer.counters()["state"] == "active"


def give_up(faulty: Any) -> DiagnosticStatus:
    """Let inference fail until the node deactivates itself."""
    faulty.predictor.error = RuntimeError("out of luck")
    faulty.peer.forget_statuses()

    def inactive() -> bool:
        return any(faulty.peer.values(s)["state"] == "inactive" for s in faulty.peer.statuses)

    faulty.peer.send_until(inactive, "the node deactivates itself")
    return faulty.peer.statuses[-1]


def test_ten_faults_in_a_row_deactivate_the_node(faulty: Any) -> None:
    status = give_up(faulty)
    assert status.level == DiagnosticStatus.ERROR
    assert "faults in a row, last: RuntimeError: out of luck" in status.message
    assert int(faulty.peer.values(status)["faults"]) >= FAULTS_BEFORE_GIVING_UP
    assert faulty.peer.state() == "inactive"


def test_a_node_that_gave_up_can_be_activated_again(faulty: Any) -> None:
    give_up(faulty)
    faulty.predictor.error = None
    assert faulty.peer.change_state("activate")
    faulty.peer.meet()
    status = faulty.peer.status()
    assert faulty.peer.values(status)["state"] == "active"
    assert status.level == DiagnosticStatus.OK


def test_a_configure_that_fails_late_frees_the_model(faulty: Any) -> None:
    """The model opens and fails with the first picture."""
    assert faulty.peer.change_state("deactivate")
    assert faulty.peer.change_state("cleanup")
    faulty.predictor.closed = False
    faulty.predictor.error = RuntimeError("no memory")
    assert not faulty.peer.change_state("configure")
    assert faulty.predictor.closed
    assert faulty.peer.status().message == "configure failed: no memory"


def test_cleanup_closes_the_model(faulty: Any) -> None:
    assert faulty.peer.change_state("deactivate")
    assert not faulty.predictor.closed
    assert faulty.peer.change_state("cleanup")
    assert faulty.predictor.closed


def test_annotated_is_drawn_only_for_subscribers(
    faulty: Any, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(pixels: np.ndarray, *_: Any) -> np.ndarray:
        drawn.append(pixels.shape)
        return pixels.copy()

    monkeypatch.setattr(outputs, "draw_people", draw)
    faulty.peer.answer()
    # Drawing comes after all other outputs: with the next answer the last frame is done.
    faulty.peer.answer()
    assert not drawn
    peer(faulty.peer.namespace, answers=WITH_ANNOTATED).meet()
    assert BLACK.shape in drawn
