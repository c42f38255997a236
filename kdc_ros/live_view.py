"""The node's live view, which may be missing but not hold the node up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rclpy.node import Node

from kdc_core.codec.skeleton import Skeleton
from kdc_core.errors import KdcError
from kdc_ros.env import wheels_in_use

if TYPE_CHECKING:
    from kdc_core.show.view import View


def open_view(node: Node, skeleton: Skeleton) -> View | None:
    """A view, whose address the log says; None where there can be none, and the log says why."""
    logger = node.get_logger()
    try:
        from kdc_core.show.view import View

        view = View(skeleton, logger.error)
    except (ImportError, KdcError, OSError) as error:
        logger.error(f"the node goes on without a live view: {error}{_advice(error)}")
        return None
    logger.info(f"live view: {view.url}")
    return view


def _advice(error: Exception) -> str:
    """What mends it: rerun asks for numpy 2, for which an apt ROS is not built."""
    if not isinstance(error, ImportError):
        return ""
    if wheels_in_use() or int(np.__version__.partition(".")[0]) >= 2:
        return " (pip install 'kdc_ros[view]')"
    return " (rerun needs numpy 2, and this ROS numpy 1: docs/view.md)"
