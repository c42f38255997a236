"""Texts that are known only when the launch runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from launch import LaunchContext


class Substitution:
    """A text to be found out later."""

    def perform(self, context: LaunchContext) -> str:
        raise NotImplementedError


class SubstitutionFailure(RuntimeError):
    """A substitution that has no value."""


class LaunchConfiguration(Substitution):
    """The value of a launch argument."""

    def __init__(self, variable_name: str) -> None:
        self.variable_name = variable_name

    def perform(self, context: LaunchContext) -> str:
        try:
            return context.launch_configurations[self.variable_name]
        except KeyError:
            raise SubstitutionFailure(
                f"launch configuration '{self.variable_name}' does not exist"
            ) from None


def check(value: Any) -> Any:
    """Refuse what the real package refuses: anything but texts, substitutions, lists of them."""
    if isinstance(value, (str, Substitution)):
        return value
    if isinstance(value, Iterable):
        return [check(part) for part in value]
    raise TypeError(f"neither text nor substitution: {value!r}")


def perform(context: LaunchContext, value: Any) -> str:
    """The text of a checked value."""
    if isinstance(value, str):
        return value
    if isinstance(value, Substitution):
        return value.perform(context)
    return "".join(perform(context, part) for part in value)
