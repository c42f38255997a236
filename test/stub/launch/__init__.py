"""A stand-in for the few names of ROS 2's ``launch`` that kdc.launch.py uses.

The real package exists only as part of a ROS installation. The stub takes the same arguments in
the same way (positional or keyword-only, refusing unknown ones), checks what the real one checks
when the launch file is loaded and visited, and records instead of starting a process. It does not
prove that the real one accepts the file; test_launch.py has a test for that, which needs ROS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class Condition(Protocol):
    """Whether an action is to be carried out."""

    def evaluate(self, context: LaunchContext) -> bool: ...


class LaunchContext:
    """What a visit of the description reads and changes."""

    def __init__(self, arguments: Mapping[str, str]) -> None:
        self.launch_configurations = dict(arguments)
        self.environment: dict[str, str] = {}
        self.nodes: list[dict[str, Any]] = []

    def visit(self, entities: Iterable[Action]) -> None:
        """Visit actions, and what they put in their place."""
        for entity in entities:
            self.visit(entity.visit(self) or [])


class Action:
    """Something a description holds; skipped where its condition is false."""

    def __init__(self, *, condition: Condition | None = None) -> None:
        self.condition = condition

    def visit(self, context: LaunchContext) -> list[Action] | None:
        if self.condition is None or self.condition.evaluate(context):
            return self.execute(context)
        return None

    def execute(self, context: LaunchContext) -> list[Action] | None:
        raise NotImplementedError


class LaunchDescription:
    """An ordered list of actions."""

    def __init__(self, initial_entities: Iterable[Action] | None = None) -> None:
        self.entities = list(initial_entities or [])
        for entity in self.entities:
            if not isinstance(entity, Action):
                raise TypeError(f"not an action: {entity!r}")

    def run(self, **arguments: str) -> LaunchContext:
        """Visit all actions as ``ros2 launch ... name:=value`` would (not in the real class)."""
        context = LaunchContext(arguments)
        context.visit(self.entities)
        return context
