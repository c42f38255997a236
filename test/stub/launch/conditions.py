"""Conditions of actions."""

from __future__ import annotations

from typing import Any

from launch import LaunchContext
from launch.substitutions import check, perform


class IfCondition:
    """True for the texts true and 1, false for false and 0, an error for any other."""

    def __init__(self, predicate_expression: Any) -> None:
        self.expression = check(predicate_expression)

    def evaluate(self, context: LaunchContext) -> bool:
        text = perform(context, self.expression).strip().lower()
        if text not in ("true", "1", "false", "0"):
            raise ValueError(f"not a condition: '{text}'")
        return text in ("true", "1")
