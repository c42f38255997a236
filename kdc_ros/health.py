"""The health of the running node: what keeps it from working, or makes it do nothing."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from kdc_ros.converter import Converter
from kdc_ros.diagnostics import Monitor
from kdc_ros.image_input import ImageInput
from kdc_ros.outputs_3d import Outputs3d
from kdc_ros.parameters import Settings
from kdc_ros.processing import Processing
from kdc_ros.sim_time import SimTime

Level = bytes
Health = tuple[Level, str]


@dataclass
class Parts:
    """What the health of an active node is read from."""

    monitor: Monitor
    source: ImageInput
    processing: Processing
    outputs_3d: Outputs3d | None
    convert: Converter
    sim_time: SimTime


def health_of(parts: Parts, settings: Settings) -> Health:
    """Level and cause: the worst first, and of warnings the one that explains the others."""
    monitor, topic = parts.monitor, parts.source.topic
    now_s, timeout_s = time.monotonic(), settings.input_timeout
    if error := monitor.stalled(now_s, settings.stall_timeout):
        return DiagnosticStatus.ERROR, error
    silence = monitor.silence(now_s, timeout_s, topic, parts.source.publishers)
    warnings = [
        parts.source.complaint,
        silence,
        monitor.losses(now_s, topic),
        parts.sim_time.complaint(),
    ]
    idle = parts.processing.idle
    if not idle:  # else nothing is known of images, people and depth
        if not silence and (error := monitor.none_usable(now_s, timeout_s, topic)):
            return DiagnosticStatus.ERROR, error
        flat = "" if parts.outputs_3d is None else parts.outputs_3d.complaint
        warnings += [
            monitor.some_unusable(topic),
            monitor.behind(),
            flat,
            parts.convert.darkness,
        ]
    if text := next(filter(None, warnings), ""):
        return DiagnosticStatus.WARN, text
    if idle:
        return DiagnosticStatus.OK, "idle: nobody subscribes to an output"
    return DiagnosticStatus.OK, "running"


class Teller:
    """Tells the log of health once where it is news; a growing number in it is none."""

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
