"""The node's live view: in this process, with a stub in place of the model."""

from __future__ import annotations

import sys
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from rclpy.lifecycle import State, TransitionCallbackReturn

pytest.importorskip("rerun", reason="rerun is not installed (extra `view`)")

from kdc_core.show import view as view_module
from kdc_ros import live_view

from .local import local_node
from .peer import MakePeer

pytestmark = pytest.mark.ros


def test_a_view_shows_frames_though_nobody_subscribes(
    monkeypatch: pytest.MonkeyPatch, peer: MakePeer
) -> None:
    shown: list[tuple[Any, ...]] = []

    class Kept(view_module.View):
        def show(self, *frame: Any) -> None:
            shown.append(frame)
            super().show(*frame)

    monkeypatch.setattr(view_module, "View", Kept)
    with local_node(monkeypatch, spin=True, autostart=True, view=True) as (node, _):
        camera = peer(node.get_namespace(), answers={})
        camera.send_until(lambda: len(shown) >= 3, "frames in the view")
        assert node._loaded is not None and node._loaded.view is not None
        url = node._loaded.view.url
        with urlopen(url.split("?")[0], timeout=20) as page:
            assert page.status == 200 and b"<html" in page.read()
        image, prediction, threshold, milliseconds, time_s = shown[-1]
        assert image.shape[:2] == prediction.size and threshold == 0.3
        assert {"model", "ros"} <= set(milliseconds) and time_s > 0
        node.on_cleanup(State("inactive", 0))
        with pytest.raises(URLError):
            urlopen(url.split("?")[0], timeout=5)


def test_without_rerun_the_node_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    for name in ("view", "rerun_stream"):
        monkeypatch.delitem(sys.modules, f"kdc_core.show.{name}", raising=False)
    with local_node(monkeypatch, view=True) as (node, _):
        assert node.on_configure(State("unconfigured", 0)) == TransitionCallbackReturn.SUCCESS
    log = capfd.readouterr().err
    assert "goes on without a live view" in log and "pip install 'kdc_ros[view]'" in log


def test_whom_the_view_would_break_is_not_told_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """rerun's numpy 2 would take an apt ROS its messages."""
    missing = ImportError("No module named 'rerun'")
    monkeypatch.setattr(live_view, "wheels_in_use", lambda: False)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert "docs/view.md" in live_view._advice(missing)
    assert "pip" not in live_view._advice(missing)
    monkeypatch.setattr(live_view, "wheels_in_use", lambda: True)
    assert "pip install" in live_view._advice(missing)
    assert live_view._advice(OSError("the port is taken")) == ""
