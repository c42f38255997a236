"""Parameter values with a type."""

from __future__ import annotations

from typing import Any

import yaml
from launch import LaunchContext
from launch.substitutions import check, perform


class ParameterValue:
    """A substitution whose text becomes a value of the given type, read as YAML."""

    def __init__(self, value: Any, *, value_type: type | None = None) -> None:
        self.value = check(value)
        self.value_type = value_type

    def evaluate(self, context: LaunchContext) -> Any:
        text = perform(context, self.value)
        if self.value_type is str:
            return text
        value = yaml.safe_load(text)
        if self.value_type is not None and not isinstance(value, self.value_type):
            raise ValueError(f"'{text}' is not of type {self.value_type.__name__}")
        return value
