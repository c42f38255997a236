"""The subscription to the camera; how it follows one is in test_node_lifecycle.py."""

from __future__ import annotations

import importlib
import sys

import pytest
import rclpy.event_handler

from kdc_ros import image_input


def test_events_are_found_under_their_name_in_humble(monkeypatch: pytest.MonkeyPatch) -> None:
    """There `rclpy.qos_event` is the module, and `rclpy.event_handler` does not exist."""
    monkeypatch.setitem(sys.modules, "rclpy.qos_event", rclpy.event_handler)
    monkeypatch.setitem(sys.modules, "rclpy.event_handler", None)
    found = importlib.reload(image_input)
    assert found.SubscriptionEventCallbacks is rclpy.event_handler.SubscriptionEventCallbacks
