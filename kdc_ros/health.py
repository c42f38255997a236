"""What is told of the node: its health, and the DiagnosticStatus with it."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node

from kdc_ros.converter import Converter
from kdc_ros.diagnostics import Monitor, resident_mb
from kdc_ros.image_input import ImageInput
from kdc_ros.loaded import Loaded
from kdc_ros.parameters import Settings
from kdc_ros.sim_time import SimTime

Level = bytes
Health = tuple[Level, str]


@dataclass(frozen=True)
class NodeState:
    """The node at one moment.

    Attributes:
        state: of its lifecycle.
        failure: why a transition failed, or the worker gave up; "" = none has.
        enabled: whether frames are processed at all.
        settings: the parameters in force.
        monitor: counts.
        dropped: images that a newer one replaced.
        source: of the images.
        convert: reads them.
        sim_time: whether the clock runs.
        loaded: None = unconfigured.
    """

    state: str
    failure: str
    enabled: bool
    settings: Settings
    monitor: Monitor
    dropped: int
    source: ImageInput
    convert: Converter
    sim_time: SimTime
    loaded: Loaded | None


def health_of(now: NodeState) -> Health:
    """Level and cause: the worst first, and of warnings the one that explains the others."""
    if now.failure:
        return DiagnosticStatus.ERROR, now.failure
    if now.monitor.building:
        return DiagnosticStatus.WARN, now.monitor.building
    if now.state != "active" or now.loaded is None:
        return DiagnosticStatus.WARN, now.state
    if not now.enabled:
        return DiagnosticStatus.OK, "paused by ~/enable"
    return _health_at_work(now, now.loaded)


def _health_at_work(now: NodeState, loaded: Loaded) -> Health:
    monitor, topic, settings = now.monitor, now.source.topic, now.settings
    now_s, timeout_s = time.monotonic(), settings.input_timeout
    if error := monitor.stalled(now_s, settings.stall_timeout):
        return DiagnosticStatus.ERROR, error
    silence = monitor.silence(now_s, timeout_s, topic, now.source.publishers)
    warnings = [
        now.source.complaint,
        silence,
        monitor.losses(now_s, topic),
        now.sim_time.complaint,
    ]
    idle = loaded.processing.idle
    if not idle:  # else nothing is known of images, people and depth
        if not silence and (error := monitor.none_usable(now_s, timeout_s, topic)):
            return DiagnosticStatus.ERROR, error
        flat = "" if loaded.outputs_3d is None else loaded.outputs_3d.complaint
        warnings += [
            monitor.some_unusable(topic),
            monitor.behind(),
            flat,
            now.convert.darkness,
        ]
    if text := next(filter(None, warnings), ""):
        return DiagnosticStatus.WARN, text
    if idle:
        return DiagnosticStatus.OK, "idle: nobody subscribes to an output"
    return DiagnosticStatus.OK, "running"


def status_of(name: str, now: NodeState, health: Health) -> DiagnosticStatus:
    """Health and figures of the node, under its full name."""
    loaded, monitor = now.loaded, now.monitor
    received, published = monitor.rates(time.monotonic())
    about = loaded.predictor.runtime.describe() if loaded else {}
    values = {
        "state": now.state,
        "model": loaded.predictor.runtime.manifest.config.name if loaded else "",
        "runtime": about.get("runtime", ""),
        "device": about.get("device", ""),
        "precision": about.get("precision", ""),
        "engine": monitor.building or ("ready" if loaded else "none"),
        "input_topic": now.source.topic,
        "input_publishers": str(now.source.publishers),
        "input_reliability": "reliable" if now.source.reliable else "best_effort",
        "input_hz": f"{received:.1f}",
        "output_hz": f"{published:.1f}",
        "dropped": str(now.dropped),
        **monitor.values(),
        **(loaded.outputs_3d.values() if loaded and loaded.outputs_3d else {}),
        "memory_mb": f"{resident_mb(os.getpid()):.0f}",
    }
    level, text = health
    return DiagnosticStatus(
        name=f"{name}: people",
        # As ROS knows it: two robots of the same names in one network must not be mixed up.
        hardware_id=f"{name} ({about['device']})" if about else name,
        level=level,
        message=text,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


class HealthLog:
    """Logs the health when its cause changes; numbers in it alone are no change."""

    def __init__(self, node: Node) -> None:
        self._logger = node.get_logger()
        self._told = ""

    def forget(self) -> None:
        """Tell the next health whatever was told before."""
        self._told = ""

    def tell(self, level: Level, text: str) -> None:
        cause = re.sub(r"\d+(\.\d+)?", "", text)
        if cause == self._told:
            return
        self._told = cause
        if level == DiagnosticStatus.OK:
            self._logger.info(text)
        elif level == DiagnosticStatus.WARN:
            self._logger.warning(text)
        else:
            self._logger.error(text)
