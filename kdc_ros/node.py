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
from typing import TYPE_CHECKING, Any

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
from kdc_core.inference.predictor import Predictor
from kdc_ros import messages, parameters
from kdc_ros.converter import Converter
from kdc_ros.diagnostics import Monitor, make_status, memory_mb
from kdc_ros.health import Health, Parts, Teller, health_of
from kdc_ros.image_input import ImageInput, Message
from kdc_ros.live_view import open_view
from kdc_ros.model import open_predictor
from kdc_ros.outputs import Outputs
from kdc_ros.outputs_3d import Outputs3d
from kdc_ros.processing import THROTTLED, Processing
from kdc_ros.publishers import all_or_none
from kdc_ros.sim_time import SimTime
from kdc_ros.timers import STEADY, call_soon
from kdc_ros.worker import LatestBox, Worker

if TYPE_CHECKING:
    from kdc_core.show.view import View

FAULTS_IN_A_ROW = 10  # then the node deactivates itself
STUCK = "a frame has not ended within stall_timeout: if it does not, restart the process"
OK = TransitionCallbackReturn.SUCCESS
FAILED = TransitionCallbackReturn.FAILURE


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

    _made = False

    def __init__(self, name: str = "kdc", status_period_s: float = 1.0, **options: Any):
        super().__init__(name, **options)
        self._settings = parameters.declare(self)
        self.stopping = threading.Event()
        self._leaving = threading.Event()  # set from deactivate to activate
        self._told_at = 0.0
        self._configured = False
        self._active = False
        self._enabled = True
        self._failure = ""  # why configure failed, or the worker gave up
        self._finalized = False
        self._predictor: Predictor | None = None
        self._convert = Converter()
        if self._convert.complaint:
            self.get_logger().warning(self._convert.complaint)
        self._box = LatestBox()
        self._worker: Worker | None = None
        self._freeing: threading.Thread | None = None  # of a model that a frame hung in
        self._input = ImageInput(self, self._on_image, self._on_lost)
        self._sim_time = SimTime(self)
        self._teller = Teller(self)
        self._outputs: Outputs | None = None
        self._outputs_3d: Outputs3d | None = None
        self._processing: Processing | None = None
        self._view: View | None = None
        self._monitor = Monitor()
        self.add_on_set_parameters_callback(self._on_parameters)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._info = self.create_publisher(String, "~/info", latched)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(status_period_s, self._look_around, clock=STEADY)
        self._made = True
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
        self._deactivate()
        return self._done("deactivate", state, "inactive")

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Free the model and the publishers."""
        self._failure = ""
        self._clean_up()
        return self._done("cleanup", state, "unconfigured")

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """As cleanup, from any state."""
        before = self._state_name()  # also at the end of the process, which is no transition
        self._failure = ""
        self._clean_up()
        self._finalized = True
        self._log("shutdown", before, "finalized")
        if self.context.ok():
            self._publish_status()
        return OK

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
            return TransitionCallbackReturn.ERROR

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """As cleanup, after an error."""
        self._clean_up()
        self._log("error", state.label, "unconfigured")
        return OK

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
                self._deactivate()
            self._publish_status()
            return FAILED
        self._failure = ""
        return self._done(name, state, to)

    def _done(self, name: str, state: State, to: str) -> TransitionCallbackReturn:
        """A transition that succeeded, in log and diagnostics."""
        self._log(name, state.label, to)
        self._publish_status()
        return OK

    def _log(self, name: str, before: str, after: str) -> None:
        self.get_logger().info(f"{name}: {before} -> {after}")

    def _configure(self) -> None:
        settings = self._settings
        self._monitor, self._box = Monitor(), LatestBox()
        self._convert.to_8_bits = To8Bits()
        self._leaving.clear()
        predictor = open_predictor(settings, self._on_build, self._gives_up)
        self._predictor = predictor
        for name, reason in predictor.refused.items():
            self.get_logger().info(f"runtime {name} is not used: {reason}")
        self._monitor.building = ""
        with all_or_none(self):
            self._outputs = Outputs(self, settings.hri)
            if settings.enable_3d:
                self._outputs_3d = Outputs3d(self, predictor.skeleton, lambda: self._enabled)
        self._view = open_view(self, predictor.skeleton) if settings.view else None
        self._processing = Processing(
            self,
            predictor,
            self._outputs,
            self._outputs_3d,
            self._view,
            self._convert,
            self._monitor,
            lambda: self._settings,
            lambda: self._enabled,
        )
        self._configured = True
        self._publish_info()
        about = ", ".join(f"{k} {v}" for k, v in predictor.runtime.describe().items())
        self.get_logger().info(
            f"model {predictor.runtime.manifest.config.name} ready; {about}; images by "
            f"{'cv_bridge and ' if self._convert.bridged else ''}numpy"
        )

    def _gives_up(self) -> bool:
        """Whether an engine that is being built will not be used."""
        return self.stopping.is_set() or self._leaving.is_set()

    def _on_build(self, phase: str, done: int, total: int) -> None:
        """What the build of an engine does; called in the thread that waits for it."""
        part = f" {done} of {total}" if total else ""
        self._monitor.building = f"building an engine: {phase}{part}"
        self.get_logger().info(self._monitor.building, **THROTTLED)
        if not self._active and time.monotonic() - self._told_at >= 1.0:
            # Within configure no timer runs.
            self._told_at = time.monotonic()
            self._publish_status()

    def _activate(self) -> None:
        assert self._processing is not None
        if self._worker is not None and not self._worker.stop(0.0):
            raise KdcError(STUCK)
        self._box = LatestBox(self._box.dropped)
        if self._outputs_3d is not None:
            self._outputs_3d.open()
        self._worker = Worker(self._box, self._processing.begin, self._settings.pipeline)
        self._monitor.activated(time.monotonic())
        self._processing.abandoned = False
        self._processing.start_anew()
        self._teller.forget()
        self._leaving.clear()
        self._active = True
        self._input.open(self._settings.reliability, self._settings.image_transport)

    def _deactivate(self) -> None:
        self._active = False
        self._leaving.set()
        self._input.close()
        if self._worker is not None and self._processing is not None:
            self._end_frames(self._worker, self._processing)
        if self._freeing is not None and self.stopping.is_set():
            self._freeing.join()
        self._monitor.building = ""
        if self._outputs_3d is not None:
            self._outputs_3d.close()
        if self._processing is not None and self.context.ok():
            self._processing.fall_silent()

    def _end_frames(self, worker: Worker, processing: Processing) -> None:
        """Wait for the frames in work; one that hangs is given up, and waited for no more."""
        limit_s: float | None = 0.0 if processing.abandoned else self._settings.stall_timeout
        if self.stopping.is_set():
            limit_s = None  # main ends the process if it takes too long
        if worker.stop(limit_s):
            self._worker = None
        elif not processing.abandoned:
            processing.abandoned = True
            self._fail(STUCK)

    def _clean_up(self) -> None:
        """Free everything, whatever of it fails: rclpy would not tell, nor go on."""
        self._try_to_end(self._deactivate)
        self._configured = False
        view, outputs, outputs_3d = self._view, self._outputs, self._outputs_3d
        predictor, worker = self._predictor, self._worker
        self._view = self._outputs = self._outputs_3d = None
        self._processing = self._predictor = self._worker = None
        for shown in (outputs, outputs_3d):
            if shown is not None:
                self._try_to_end(shown.destroy)
        if view is not None:
            self._try_to_end(view.close)
        if predictor is not None and worker is None:
            self._try_to_end(predictor.close)
        elif predictor is not None and worker is not None:
            # A frame hangs in the model: it is freed once that ends.
            ends = (worker.stop, predictor.close)
            self._freeing = threading.Thread(target=lambda: [end() for end in ends], daemon=True)
            self._freeing.start()

    def _try_to_end(self, end: Callable[[], object]) -> None:
        try:
            end()
        except Exception as error:
            self._fail(f"cleanup: {type(error).__name__}: {error}")
            self.get_logger().error(traceback.format_exc())

    def destroy_node(self) -> None:
        """As cleanup, and leave the graph."""
        if self._made:  # rclpy calls this, too, where a parameter given at start is refused
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

    def _on_lost(self, count: int) -> None:
        self._monitor.got_lost(count, time.monotonic())

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data and not self._enabled:
            self._monitor.activated(time.monotonic())
        self._enabled = request.data
        if not self._enabled and self._processing is not None:
            self._processing.fall_silent()
        response.success = True
        response.message = "processing" if request.data else "paused"
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._processing is not None
        response.message = "ids begin with 1" if response.success else "the node is unconfigured"
        if self._processing is not None:
            self._processing.forget_people()
        return response

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        before = self._settings
        self._settings, result = parameters.try_change(before, changes, self._configured)
        if self._settings != before and self._processing is not None:
            self._processing.start_anew()
            self._publish_info()
        return result

    def _look_around(self) -> None:
        self._input.look()
        if self._outputs_3d is not None:
            self._outputs_3d.look()
        health = self._health()  # once, so that log and diagnostics tell the same
        if self._active:
            self._teller.tell(*health)
            silent = self._monitor.silent(time.monotonic(), self._settings.input_timeout)
            if silent and self._processing is not None:
                self._processing.fall_silent()
        self._publish_status(health)

    def _publish_status(self, health: Health | None = None) -> None:
        level, text = health or self._health()
        monitor = self._monitor
        received, published = monitor.rates(time.monotonic())
        about = self._predictor.runtime.describe() if self._predictor else {}
        values = {
            "state": self._state_name(),
            "model": self._predictor.runtime.manifest.config.name if self._predictor else "",
            "runtime": about.get("runtime", ""),
            "device": about.get("device", ""),
            "precision": about.get("precision", ""),
            "engine": monitor.building or ("ready" if self._predictor else "none"),
            "input_topic": self._input.topic,
            "input_reliability": "reliable" if self._input.reliable else "best_effort",
            "input_hz": f"{received:.1f}",
            "output_hz": f"{published:.1f}",
            "dropped": str(self._box.dropped),
            **monitor.values(),
            **(self._outputs_3d.values() if self._outputs_3d else {}),
            "memory_mb": memory_mb(),
        }
        # As ROS knows them: two robots of the same names in one network must not be mixed up.
        name = self.get_fully_qualified_name()
        hardware = f"{name} ({about['device']})" if about else name
        status = make_status(f"{name}: people", hardware, level, text, values)
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
        if self._active and monitor.faults_in_a_row >= FAULTS_IN_A_ROW:
            self._failure = f"{FAULTS_IN_A_ROW} faults in a row, last: {monitor.last_error}"
            self.get_logger().error(f"deactivating: {self._failure}")
            call_soon(self, self.trigger_deactivate)

    def _health(self) -> Health:
        if self._failure:
            return DiagnosticStatus.ERROR, self._failure
        if self._monitor.building:
            return DiagnosticStatus.WARN, self._monitor.building
        if not self._active or self._processing is None:
            return DiagnosticStatus.WARN, self._state_name()
        if not self._enabled:
            return DiagnosticStatus.OK, "paused by ~/enable"
        parts = Parts(
            self._monitor,
            self._input,
            self._processing,
            self._outputs_3d,
            self._convert,
            self._sim_time,
        )
        return health_of(parts, self._settings)

    def _state_name(self) -> str:
        if self._finalized:
            return "finalized"
        if self._active:
            return "active"
        return "inactive" if self._configured else "unconfigured"

    def _publish_info(self) -> None:
        assert self._predictor is not None
        skeleton = self._predictor.skeleton
        content = {
            "version": kdc_core.__version__,
            "model": self._predictor.runtime.manifest.config.name,
            **self._predictor.runtime.describe(),
            "keypoints": list(skeleton.keypoints),
            "bones": [list(bone) for bone in skeleton.bones],
            "parameters": asdict(self._settings),
        }
        self._info.publish(messages.info_json(content))
