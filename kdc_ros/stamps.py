"""Stamps of messages as numbers, of rclpy's headers and those of rosbags alike."""

from __future__ import annotations

from typing import Any


def stamp_ns(header: Any) -> int:
    """Nanoseconds of a std_msgs/Header's stamp; 0 where it has none."""
    nanoseconds: int = header.stamp.sec * 10**9 + header.stamp.nanosec
    return nanoseconds


def stamp_s(header: Any) -> float:
    """Seconds of a std_msgs/Header's stamp; 0 where it has none."""
    return 1e-9 * stamp_ns(header)
