"""The test's own end in the ROS graph."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool

from kdc_ros.camera import ANSWERS, Camera
from kdc_ros.tables import PERSON

TIMEOUT_S = 60.0  # for hosts under load: reached only where a test fails
BLACK = np.zeros((48, 64, 3), np.uint8)
OUTPUTS = ("keypoints", "persons", "labels")
WITH_ANNOTATED = {**ANSWERS, "annotated": Image}


def persons(answers: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(answers["persons"].data, PERSON)


class Peer(Camera):
    """A camera that also manages the node and reads what it says about itself.

    Nothing here sleeps: each wait ends when what it waits for has come.

    Args:
        namespace: of the node and the camera, beginning with a slash.
        reliable: QoS of the published frames.
        answers: message type by output topic of the node.
    """

    def __init__(
        self, namespace: str, reliable: bool = True, answers: dict[str, type] | None = None
    ):
        super().__init__(answers, namespace, reliable)
        self.namespace = namespace
        self.statuses: list[DiagnosticStatus] = []
        self._statuses_from = 0
        self._stamps = 1000
        self._clients: dict[str, Client] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._keep_status, 10)

    def _keep_status(self, array: DiagnosticArray) -> None:
        stamp = Time.from_msg(array.header.stamp).nanoseconds
        for status in array.status:
            # All nodes of the run share the topic; they are told apart by their input.
            topic = self.values(status)["input_topic"].removesuffix("/compressed")
            mine = topic == f"{self.namespace}/image"
            if mine and stamp >= self._statuses_from:
                self.statuses.append(status)

    def forget_statuses(self) -> None:
        """Keep only statuses made from now on, none that is still on its way."""
        self.statuses.clear()
        self._statuses_from = self.node.get_clock().now().nanoseconds

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Handle messages until the condition holds; the test fails if that takes too long."""
        assert self.spin_until(condition, timeout_s), f"not within {timeout_s} s: {what}"

    # Frames

    def frame(self, pixels: np.ndarray = BLACK, encoding: str = "rgb8") -> Image:
        """A frame with a stamp that no other frame of this peer has."""
        message = self.image(pixels, encoding)
        self._stamps += 1
        message.header.stamp.sec, message.header.stamp.nanosec = self._stamps, 7
        return message

    def answer(self, pixels: np.ndarray = BLACK, encoding: str = "rgb8") -> dict[str, Any]:
        """The node's answers to a frame."""
        return self.ask(self.frame(pixels, encoding))[0]

    def send_until(self, condition: Callable[[], Any], what: str) -> None:
        """Publish one black frame after the other until the condition holds."""
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, f"not within {TIMEOUT_S} s: {what}"
            self.publisher.publish(self.frame())
            self.spin_until(condition, 0.05)

    def meet(self) -> None:
        """Wait until frames and answers go both ways."""
        self.wait_for_node(TIMEOUT_S)

    # What the node says about itself

    @staticmethod
    def values(status: DiagnosticStatus) -> dict[str, str]:
        return {pair.key: pair.value for pair in status.values}

    def status(
        self, condition: Callable[[DiagnosticStatus], bool] = lambda status: True, what: str = ""
    ) -> DiagnosticStatus:
        """The first status from now on for which the condition holds."""
        self.forget_statuses()

        def found() -> Any:
            return next((status for status in self.statuses if condition(status)), None)

        assert self.spin_until(found, TIMEOUT_S), (
            f"no such status within {TIMEOUT_S} s: {what}; last: {self.statuses[-1:]}"
        )
        return found()

    def send_and_watch(self, condition: Callable[[dict[str, str]], bool]) -> DiagnosticStatus:
        """Publish frames until a status that counts them as received fulfils the condition."""
        self.forget_statuses()

        def found() -> DiagnosticStatus | None:
            for status in self.statuses:
                values = self.values(status)
                # More than one that came just before the second was over and is in work.
                if float(values["input_hz"]) > 2 and condition(values):
                    return status
            return None

        self.send_until(found, "a status that fulfils the condition")
        status = found()
        assert status is not None
        return status

    def counters(self) -> dict[str, str]:
        """The values of the next status."""
        return self.values(self.status())

    def info(self) -> dict[str, Any]:
        """`~/info` as a late subscriber gets it."""
        got: list[str] = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        subscription = self.node.create_subscription(
            String, f"{self.namespace}/kdc/info", lambda message: got.append(message.data), latched
        )
        self.wait(lambda: got, "~/info for a late subscriber")
        self.node.destroy_subscription(subscription)
        return json.loads(got[-1])

    # Services

    def client(self, service: Any, name: str) -> Client:
        """A client of the node to whom its answers come.

        That this side has found a service does not say that the service has found where its
        answers go; those that it cannot send in 0.1 s are lost. A node finds in the order in
        which things were made, so who answers a client knows the one made before.
        """
        if name in self._clients:
            return self._clients[name]
        services = f"{self.namespace}/kdc"
        made: Client = self.node.create_client(service, f"{services}/{name}")
        probe: Client = self.node.create_client(GetState, f"{services}/get_state")
        self.wait(lambda: made.service_is_ready() and probe.service_is_ready(), f"service {name}")
        asked: list[Future] = []

        def answered() -> bool:
            return any(future.done() for future in asked)

        end = time.monotonic() + TIMEOUT_S
        while not answered():
            assert time.monotonic() < end, f"not within {TIMEOUT_S} s: an answer of get_state"
            asked.append(probe.call_async(GetState.Request()))
            self.spin_until(answered, 1.0)
        self.node.destroy_client(probe)
        self._clients[name] = made
        return made

    def call(self, service: Any, name: str, request: Any) -> Any:
        """Call a service of the node."""
        future = self.client(service, name).call_async(request)
        self.wait(future.done, f"answer of service {name}")
        return future.result()

    def set_parameter(self, name: str, value: Any) -> SetParametersResult:
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return self.call(SetParameters, "set_parameters", request).results[0]

    def set_parameters(self, **values: Any) -> None:
        """Change parameters; the test fails if one is refused."""
        changes = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        results = self.call(
            SetParameters, "set_parameters", SetParameters.Request(parameters=changes)
        ).results
        assert all(result.successful for result in results), results

    def enable(self, enabled: bool) -> SetBool.Response:
        return self.call(SetBool, "enable", SetBool.Request(data=enabled))

    def change_state(self, label: str) -> bool:
        """Ask for a lifecycle transition; whether it succeeded."""
        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, "change_state", request).success

    def state(self) -> str:
        return self.call(GetState, "get_state", GetState.Request()).current_state.label


MakePeer: TypeAlias = Callable[..., Peer]
