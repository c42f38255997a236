"""The lifecycle node `kdc`: images in, people out.

Three threads: main waits for the signal to stop; the executor runs callbacks, which do no work on
images; the worker, alive only while the node is active, converts, predicts and publishes. With the
parameter `pipeline` the worker has two: one begins a frame while the other ends the last one.
With `enable_3d` one more waits for depth.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

import kdc_core
from kdc_core.data.bits16 import To8Bits
from kdc_core.errors import KdcError
from kdc_ros import messages, parameters
from kdc_ros.converter import Converter
from kdc_ros.diagnostics import Monitor
from kdc_ros.health import Health, HealthLog, NodeState, health_of, status_of
from kdc_ros.image_input import ImageInput, Message
from kdc_ros.loaded import STUCK, Loaded
from kdc_ros.processing import THROTTLED
from kdc_ros.sim_time import SimTime
from kdc_ros.timers import STEADY, call_soon
from kdc_ros.worker import LatestBox

FAULTS_IN_A_ROW = 10  # then the node deactivates itself
# An image's callback lets go of Python's lock for so long at least, or the worker would take the
# image only once the executor has built what it waits for next.
HANDOVER_S = 5e-5
OK = TransitionCallbackReturn.SUCCESS
FAILED = TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


class KdcNode(LifecycleNode):
    """See docs/node.md for topics, parameters and states.

    Args:
        name: of the node.
        status_period_s: from one diagnostics message to the next.
        options: of rclpy's LifecycleNode.

    Attributes:
        stopping: set by whoever ends the process, so that a build does not hold it up.

    Raises:
        BadParameter: a parameter given at start cannot be used.
    """

    _loaded: Loaded | None = None

    def __init__(self, name: str = "kdc", status_period_s: float = 1.0, **options: Any):
        super().__init__(name, **options)
        self._settings = parameters.declare(self)
        self.stopping = threading.Event()
        self._told_at = 0.0
        self._state = "unconfigured"
        self._enabled = True
        self._failure = ""  # why a transition failed, or the worker gave up
        self._convert = Converter()
        if self._convert.complaint:
            self.get_logger().warning(self._convert.complaint)
        self._box = LatestBox()
        self._freeing: list[threading.Thread] = []  # of models that a frame hung in
        self._input = ImageInput(self, self._on_image, self._on_lost)
        self._sim_time = SimTime(self)
        self._health_log = HealthLog(self)
        self._monitor = Monitor()
        self.add_on_set_parameters_callback(self._on_parameters)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._info = self.create_publisher(String, "~/info", latched)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(status_period_s, self._on_status_timer, clock=STEADY)
        if self._settings.autostart:
            call_soon(self, self._start_up)

    # Transitions

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Load the model, warm it up, create the publishers."""
        return self._guarded("configure", self._configure, state, "inactive")

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        return self._guarded("activate", self._activate, state, "active")

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Unsubscribe and wait for the frames in work."""
        if not self._tried("deactivate", self._deactivate):
            return ERROR
        return self._done("deactivate", state.label, "inactive")

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Free the model and the publishers."""
        self._failure = ""
        self._clean_up()
        return self._done("cleanup", state.label, "unconfigured")

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """As cleanup, from any state."""
        before = self._state  # also at the end of the process, which is no transition
        self._failure = ""
        self._clean_up()
        return self._done("shutdown", before, "finalized")

    def _LifecycleNodeMixin__change_state(  # noqa: N802 -- rclpy's name
        self, transition_id: int
    ) -> TransitionCallbackReturn:
        """Refuse a transition that is not possible now; before Kilted rclpy raises (#1209)."""
        try:
            change: Callable[[int], TransitionCallbackReturn]
            change = super()._LifecycleNodeMixin__change_state  # type: ignore[misc]
            return change(transition_id)
        except RuntimeError as error:
            self.get_logger().error(f"transition {transition_id} refused: {error}")
            return ERROR

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """As cleanup, after an error."""
        self._clean_up()
        return self._done("error", state.label, "unconfigured")

    def _guarded(
        self, name: str, work: Callable[[], None], state: State, to: str
    ) -> TransitionCallbackReturn:
        # An exception in a transition would vanish without a line in the log.
        try:
            work()
        except Exception as error:
            self._failure = f"{name} failed: {error}"
            trace = "" if isinstance(error, KdcError) else f"\n{traceback.format_exc()}"
            self.get_logger().error(f"{self._failure}{trace}")
            if name == "configure":
                self._clean_up()
            else:
                self._tried("deactivate", self._deactivate)
            self._publish_status()
            return FAILED
        self._failure = ""
        return self._done(name, state.label, to)

    def _tried(self, name: str, work: Callable[[], None]) -> bool:
        """Whether this has ended well; else it is told, and what remains to be done goes on."""
        try:
            work()
        except Exception as error:
            self._fail(f"{name}: {type(error).__name__}: {error}")
            self.get_logger().error(traceback.format_exc())
            return False
        return True

    def _done(self, name: str, before: str, to: str) -> TransitionCallbackReturn:
        """A transition that succeeded, in log and diagnostics."""
        self._state = to
        self.get_logger().info(f"{name}: {before} -> {to}")
        if self.context.ok():
            self._publish_status()
        return OK

    def _configure(self) -> None:
        self._monitor, self._box = Monitor(), LatestBox()
        try:
            self._loaded = loaded = Loaded(
                self,
                self._convert,
                self._monitor,
                lambda: self._settings,
                lambda: self._enabled,
                partial(self._on_build, self._monitor),
                self.stopping,
            )
        finally:
            self._monitor.building = ""
        predictor = loaded.predictor
        for name, reason in predictor.refused.items():
            self.get_logger().info(f"runtime {name} is not used: {reason}")
        self._publish_info(loaded)
        about = ", ".join(f"{k} {v}" for k, v in predictor.runtime.describe().items())
        self.get_logger().info(
            f"model {predictor.runtime.manifest.config.name} ready; {about}; images by "
            f"{'cv_bridge and ' if self._convert.bridged else ''}numpy"
        )

    def _on_build(self, monitor: Monitor, phase: str, done: int, total: int) -> None:
        """What the build of an engine does; called in the thread that waits for it."""
        part = f" {done} of {total}" if total else ""
        text = f"building an engine: {phase}{part}"
        monitor.builds(text)
        self.get_logger().info(text, **THROTTLED)
        if self._state != "active" and time.monotonic() - self._told_at >= 1.0:
            # Within configure no timer runs.
            self._told_at = time.monotonic()
            self._publish_status()

    def _activate(self) -> None:
        assert self._loaded is not None
        box = LatestBox(self._box.dropped)
        self._convert.to_8_bits = To8Bits()
        self._loaded.start(box)
        self._box = box
        self._monitor.activated(time.monotonic())
        self._health_log.forget()
        self._input.open(self._settings.reliability, self._settings.image_transport)

    def _deactivate(self) -> None:
        self._state = "inactive"
        self._input.close()
        if self._loaded is None:
            return
        if self._loaded.stop():
            self._fail(STUCK)
        self._monitor.building = ""
        if self.context.ok():
            self._loaded.processing.fall_silent()

    def _clean_up(self) -> None:
        """Free everything, whatever of it fails: rclpy would not tell, nor go on."""
        self._tried("deactivate", self._deactivate)
        self._state = "unconfigured"
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self._tried("cleanup", loaded.free)
            if loaded.freeing is not None:
                self._freeing.append(loaded.freeing)
        if self.stopping.is_set():
            for thread in self._freeing:
                thread.join()  # main ends the process if it takes too long

    def destroy_node(self) -> None:
        """As cleanup, and leave the graph."""
        if self._loaded is not None:
            self._clean_up()
        super().destroy_node()

    def _fail(self, text: str) -> None:
        self._failure = text
        self.get_logger().error(text)

    def _start_up(self) -> None:
        if self.trigger_configure() == OK:
            self.trigger_activate()

    # Callbacks of the executor: they store or switch, and do no work on images

    def _on_image(self, image: Message) -> None:
        self._monitor.got_image(time.monotonic())
        self._box.put(image)
        time.sleep(HANDOVER_S)

    def _on_lost(self, count: int) -> None:
        self._monitor.got_lost(count, time.monotonic())

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data and not self._enabled:
            self._monitor.activated(time.monotonic())
        self._enabled = request.data
        if not self._enabled and self._loaded is not None:
            self._loaded.processing.fall_silent()
        response.success = True
        response.message = "processing" if request.data else "paused"
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._loaded is not None
        response.message = "ids begin with 1" if response.success else "the node is unconfigured"
        if self._loaded is not None:
            self._loaded.processing.forget_people()
        return response

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        before = self._settings
        configured = self._loaded is not None
        self._settings, result = parameters.try_change(before, changes, configured)
        if self._loaded is not None and self._settings != before:
            self._monitor.forget_frames()
            self._publish_info(self._loaded)
        return result

    def _on_status_timer(self) -> None:
        self._input.follow_publishers()
        self._sim_time.look()
        loaded, monitor = self._loaded, self._monitor
        if loaded is not None and loaded.outputs_3d is not None:
            loaded.outputs_3d.follow_publishers()
        health = health_of(self._now())  # once, so that log and diagnostics tell the same
        if self._state == "active" and loaded is not None:
            self._health_log.tell(*health)
            silent = monitor.silent(time.monotonic(), self._settings.input_timeout)
            if silent or not self._enabled or health[0] == DiagnosticStatus.ERROR:
                loaded.processing.fall_silent()
        self._publish_status(health)
        if self._state == "active" and monitor.faults_in_a_row >= FAULTS_IN_A_ROW:
            self._failure = f"{FAULTS_IN_A_ROW} faults in a row, last: {monitor.last_error}"
            self.get_logger().error(f"deactivating: {self._failure}")
            call_soon(self, self.trigger_deactivate)

    def _now(self) -> NodeState:
        return NodeState(
            state=self._state,
            failure=self._failure,
            enabled=self._enabled,
            settings=self._settings,
            monitor=self._monitor,
            dropped=self._box.dropped,
            source=self._input,
            convert=self._convert,
            sim_time=self._sim_time,
            loaded=self._loaded,
        )

    def _publish_status(self, health: Health | None = None) -> None:
        now = self._now()
        status = status_of(self.get_fully_qualified_name(), now, health or health_of(now))
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _publish_info(self, loaded: Loaded) -> None:
        skeleton, runtime = loaded.predictor.skeleton, loaded.predictor.runtime
        content = {
            "version": kdc_core.__version__,
            "model": runtime.manifest.config.name,
            **runtime.describe(),
            "keypoints": list(skeleton.keypoints),
            "bones": [list(bone) for bone in skeleton.bones],
            "parameters": asdict(self._settings),
        }
        self._info.publish(messages.info_json(content))
