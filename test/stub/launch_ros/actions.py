"""The one action about ROS: a lifecycle node in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import yaml
from launch import Action, LaunchContext
from launch.substitutions import check, perform
from launch_ros.parameter_descriptions import ParameterValue


class LifecycleNode(Action):
    """Records in ``context.nodes`` what the real one would start."""

    def __init__(
        self,
        *,
        name: Any,
        namespace: Any,
        executable: Any,
        package: Any = None,
        parameters: list[Any] | None = None,
        remappings: Iterable[tuple[Any, Any]] | None = None,
        ros_arguments: Iterable[Any] | None = None,
        arguments: Iterable[Any] | None = None,
        additional_env: dict[Any, Any] | None = None,
        output: Any = "log",
        respawn: Any = False,
        respawn_delay: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if parameters is not None and not isinstance(parameters, list):
            raise TypeError(f"parameters has to be a list, not {type(parameters).__name__}")
        self.texts = {
            "name": check(name),
            "namespace": check(namespace),
            "package": check(package),
            "executable": check(executable),
            "output": check(output),
        }
        self.parameters = [
            item if isinstance(item, (dict, os.PathLike)) else check(item)
            for item in parameters or []
        ]
        self.remappings = [(check(a), check(b)) for a, b in remappings or []]
        self.ros_arguments = [check(item) for item in ros_arguments or []]
        self.arguments = [check(item) for item in arguments or []]
        self.additional_env = {check(k): check(v) for k, v in (additional_env or {}).items()}
        self.respawn = respawn if isinstance(respawn, bool) else check(respawn)
        self.respawn_delay = respawn_delay

    def execute(self, context: LaunchContext) -> None:
        def text(value: Any) -> str:
            return perform(context, value)

        def parameter(value: Any) -> Any:
            if isinstance(value, ParameterValue):
                return value.evaluate(context)
            # The real one reads untyped substitutions as YAML, and nothing as an empty text.
            if isinstance(value, (bool, int, float, str)):
                return value
            read = yaml.safe_load(text(check(value)))
            return "" if read is None else read

        respawn = self.respawn
        if not isinstance(respawn, bool):
            respawn = ParameterValue(respawn, value_type=bool).evaluate(context)
        node = {key: text(value) for key, value in self.texts.items()}
        # A namespace is made absolute; an empty one stays empty.
        if node["namespace"] and not node["namespace"].startswith("/"):
            node["namespace"] = "/" + node["namespace"]
        context.nodes.append(
            {
                **node,
                "parameters": [
                    {key: parameter(value) for key, value in item.items()}
                    if isinstance(item, dict)
                    else os.fspath(item)
                    if isinstance(item, os.PathLike)
                    else text(item)
                    for item in self.parameters
                ],
                "remappings": [(text(a), text(b)) for a, b in self.remappings],
                "ros_arguments": [text(item) for item in self.ros_arguments],
                "arguments": [text(item) for item in self.arguments],
                "additional_env": {text(k): text(v) for k, v in self.additional_env.items()},
                "respawn": respawn,
                "respawn_delay": self.respawn_delay,
            }
        )
