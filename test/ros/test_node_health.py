"""What the node says of itself: in diagnostics while it lasts, in the log at both its ends."""

from __future__ import annotations

import itertools
import re
import string
import threading
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage

from kdc_ros import node as node_module

from .local import Local, local_node
from .peer import MakePeer

pytestmark = pytest.mark.ros


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Of the log since the last call, without level, time and node."""
    return [line.split(": ", 1)[-1] for line in capfd.readouterr().err.splitlines()]


def test_a_warning_is_logged_once_when_it_begins_and_once_when_it_ends(
    local: Local, capfd: pytest.CaptureFixture[str]
) -> None:
    peer = local.peer
    peer.set_parameters(input_timeout=0.2)
    lines(capfd)
    silent = peer.status(lambda s: s.message.startswith("no images on"), "silence")
    assert silent.level == DiagnosticStatus.WARN
    for _ in range(5):  # the seconds it tells are no news
        peer.status()
    peer.set_parameters(input_timeout=60.0)
    peer.status(lambda s: s.message == "running", "running")
    peer.status()
    assert lines(capfd) == [f"no images on {peer.namespace}/image for 0 s", "running"]


def test_log_and_diagnostics_tell_the_same_at_each_look(
    local: Local, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where something crosses a bound just between the two, too."""
    healths = (f"health {letter}" for letter in itertools.cycle(string.ascii_lowercase))
    lines(capfd)
    monkeypatch.setattr(node_module, "health_of", lambda _: (DiagnosticStatus.WARN, next(healths)))
    local.peer.forget_statuses()
    local.peer.wait(lambda: len(local.peer.statuses) >= 4, "four looks")
    told = [s.message for s in local.peer.statuses if s.message.startswith("health")]
    monkeypatch.undo()
    assert [line for line in lines(capfd) if line in told] == told


def test_pausing_is_logged_and_no_warning(local: Local, capfd: pytest.CaptureFixture[str]) -> None:
    peer = local.peer
    peer.set_parameters(input_timeout=60.0)
    peer.status(lambda s: s.message == "running", "running")
    lines(capfd)
    peer.enable(False)
    paused = peer.status(lambda s: s.message.startswith("paused"), "paused")
    assert paused.level == DiagnosticStatus.OK
    peer.status()
    peer.enable(True)
    peer.status(lambda s: s.message == "running", "running")
    peer.status()
    assert lines(capfd) == ["paused by ~/enable", "running"]


def test_losses_are_a_warning_although_images_still_come(local: Local) -> None:
    peer = local.peer
    for _ in range(4):
        peer.answer()
    local.node._on_lost(1)
    peer.answer()
    assert peer.status().message == "running", "less than a fifth"
    local.node._on_lost(8)
    lost = peer.status(lambda s: "lost by the middleware" in s.message, "a fifth is lost")
    assert lost.level == DiagnosticStatus.WARN and "within 10 s" in lost.message


def test_a_frame_that_never_ends_is_an_error_until_it_does(local: Local) -> None:
    peer, go_on = local.peer, threading.Event()
    peer.set_parameters(stall_timeout=1.0)
    local.predictor.while_busy = lambda: go_on.wait(60)
    try:
        peer.publisher.publish(peer.frame())
        stalled = peer.status(lambda s: "in work" in s.message, "it does not end")
        assert stalled.level == DiagnosticStatus.ERROR
        peer.enable(False)
        peer.enable(True)
        peer.status(lambda s: "in work" in s.message, "a pause has not ended it")
    finally:
        go_on.set()
    peer.answer()
    assert peer.status().level != DiagnosticStatus.ERROR


def test_two_nodes_can_be_told_apart(
    local: Local, domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer
) -> None:
    first = local.peer.status()
    name = f"{local.peer.namespace}/kdc"
    assert (first.name, first.hardware_id) == (f"{name}: people", f"{name} (cpu)")
    with local_node(monkeypatch, spin=True) as (node, _):
        other = peer(node.get_namespace(), answers={}).status()
        assert other.name != first.name and other.hardware_id == f"{node.get_namespace()}/kdc"


def test_diagnostics_have_percentiles_and_memory(local: Local) -> None:
    for _ in range(3):
        local.peer.answer()
    values = local.peer.values(local.peer.status())
    assert float(values["memory_mb"]) > 20
    assert values["engine"] == "ready"
    assert float(values["model_ms_p95"]) >= float(values["model_ms_p50"]) > 0


def test_while_nobody_listens_nothing_is_told_of_frames_before(local: Local) -> None:
    """Of a part that reached out of them, or of people who came late."""
    peer, node = local.peer, local.node
    peer.set_parameters(roi="0,0,65,48", input_timeout=0.2)
    peer.send_until(
        lambda: any(s.level == DiagnosticStatus.ERROR for s in peer.statuses), "no usable image"
    )
    for subscription in peer._subscriptions:
        peer.node.destroy_subscription(subscription)
    peer.forget_statuses()
    peer.send_until(
        lambda: any(s.message.startswith("idle") for s in peer.statuses), "nobody listens"
    )
    for _ in range(5):
        node._monitor.got_result(1, 2.0, 5.0, 1.0)
    assert "people come 2.0 s" in node._monitor.behind()
    peer.forget_statuses()
    peer.send_until(
        lambda: any(s.message.startswith("idle") for s in peer.statuses), "still nobody"
    )
    assert node._monitor.behind() == "", "whoever listens next is told of new frames"


def test_a_changed_part_of_the_image_begins_anew(local: Local) -> None:
    peer = local.peer
    peer.set_parameters(roi="0,0,65,48")
    peer.send_until(
        lambda: any("could not be used" in s.message for s in peer.statuses), "unusable images"
    )
    peer.set_parameters(roi="")
    peer.answer()
    assert peer.status().message == "running"


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_images_in_the_other_form_are_told_with_what_to_set(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer, transport: str
) -> None:
    values: dict[str, Any] = {"autostart": True, "image_transport": transport}
    with local_node(monkeypatch, spin=True, **values) as (node, _):
        camera = peer(node.get_namespace(), answers={})
        topic = f"{node.get_namespace()}/image"
        if transport == "raw":
            camera.node.destroy_publisher(camera.publisher)
            kept = camera.node.create_publisher(CompressedImage, f"{topic}/compressed", 1)
            there, other = f"{topic}/compressed", "compressed"
        else:
            kept, there, other = camera.publisher, topic, "raw"
        status = camera.status(lambda s: "but on" in s.message, "the other form")
        assert status.level == DiagnosticStatus.WARN
        assert f"but on {there}: set the parameter image_transport to {other}" in status.message
        assert kept is not None


def test_each_value_of_the_diagnostics_is_described(local: Local) -> None:
    text = (Path(__file__).parents[2] / "docs" / "node.md").read_text(encoding="utf-8")
    section = text.split("## Diagnostics\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    told = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert told - {"lifted", "not_lifted"} == {value.key for value in local.peer.status().values}
