"""The actions that are not about ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from launch import Action, LaunchContext
from launch.substitutions import check, perform


class DeclareLaunchArgument(Action):
    """A named argument; required where it has no default."""

    def __init__(
        self,
        name: str,
        *,
        default_value: Any = None,
        description: str | None = None,
        choices: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if choices is not None and default_value not in choices:
            raise RuntimeError(f"default '{default_value}' of '{name}' is not in {choices}")
        self.name = name
        self.default_value = None if default_value is None else check(default_value)
        self.description = description
        self.choices = choices

    def execute(self, context: LaunchContext) -> None:
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(f"required launch argument '{self.name}' was not provided")
            context.launch_configurations[self.name] = perform(context, self.default_value)
        if self.choices and context.launch_configurations[self.name] not in self.choices:
            raise RuntimeError(f"argument '{self.name}' is not one of {self.choices}")


class OpaqueFunction(Action):
    """A function called when the launch runs; the actions it returns are visited next."""

    def __init__(
        self,
        *,
        function: Callable[..., list[Action] | None],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"expected a callable for 'function', got {type(function)}")
        self.function = function
        self.args = tuple(args or ())
        self.kwargs = dict(kwargs or {})

    def execute(self, context: LaunchContext) -> list[Action] | None:
        return self.function(context, *self.args, **self.kwargs)


class SetEnvironmentVariable(Action):
    """Sets a variable for everything started later; here only in the context."""

    def __init__(self, name: Any, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = check(name)
        self.value = check(value)

    def execute(self, context: LaunchContext) -> None:
        context.environment[perform(context, self.name)] = perform(context, self.value)
