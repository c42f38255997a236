"""The process that builds one engine: `python -m kdc_core.inference.engine.worker JOB PIPE`.

A process of its own, so that a crash in the builder, or its end for want of memory, takes nothing
else with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdc_core.inference.engine import driver
from kdc_core.inference.engine.header import LENGTH
from kdc_core.inference.engine.job import Answer, Built, Job
from kdc_core.inference.engine.library import Library, find_library, no_collection
from kdc_core.inference.engine.lock import never
from kdc_core.inference.engine.messages import BuildCancelled, EngineError, explain
from kdc_core.inference.engine.timing import keep_timing, start_timing
from kdc_core.inference.manifest import OUTPUTS

# A build takes at most this part of the GPU memory that is free when it begins.
FREE_FRACTION = 0.5
TELL_EVERY_S = 0.1


class Builder:
    """Builds the engine of one job.

    Args:
        job: what to build.
        library: the TensorRT to build with.
        tell: given each answer.
        stopped: whether to stop, asked at every step.
    """

    def __init__(
        self,
        job: Job,
        library: Library,
        tell: Callable[[Answer], None],
        stopped: Callable[[], bool] = never,
    ):
        self._job = job
        self._library = library
        self._trt: Any = library.module
        self._tell = tell
        self._stopped = stopped
        self._said: list[str] = []
        self._context: dict[str, object] = {
            "doing": "building",
            "program": job.program,
            "shapes": job.key.shapes,
            "library": library,
        }

    def build(self) -> Built:
        """Build, and write the engine to the job's part.

        Raises:
            EngineError: TensorRT refused, or the part cannot be written.
            BuildCancelled: stopped.
        """
        workspace = self._workspace()
        started = time.monotonic()
        try:
            with no_collection():
                plan = self._plan(workspace)
        except EngineError:
            raise
        except Exception as error:  # of the bindings: TypeError, RuntimeError, their own
            plan = None
            self._said.append(str(error))
        if self._stopped():
            raise BuildCancelled(explain(["BuildCanceled"], ""))
        if plan is None:
            self._context["driver"] = driver.describe()
            failed = explain(self._said, f"{self._library} built no engine", **self._context)
            raise EngineError(failed)
        seconds = time.monotonic() - started
        content = memoryview(plan)
        try:
            self._job.part.write_bytes(content)
        except OSError as error:
            raise EngineError(
                f"cannot write the engine ({len(content) / 1e6:.0f} MB) to "
                f"'{self._job.part.parent}': {error.strerror}"
            ) from error
        return Built(
            engine_sha256=hashlib.sha256(content).hexdigest(),
            engine_bytes=len(content),
            header=bytes(content[:LENGTH]).hex(),
            build_seconds=seconds,
            workspace_mib=workspace,
        )

    def _workspace(self) -> int:
        """MiB the builder may use: what the key says, where so much is free."""
        wanted = self._job.key.workspace_mib
        if self._job.gpu is None:
            return wanted
        free = driver.make_current(driver.find_gpu(self._job.gpu)) >> 20
        given = max(1, min(wanted, int(free * FREE_FRACTION)))
        self._context |= {"free": free, "workspace": given}
        return given

    def _plan(self, workspace: int) -> Any:
        trt, key = self._trt, self._job.key
        logger = make_logger(trt, self._said)
        builder = trt.Builder(logger)
        flags = trt.NetworkDefinitionCreationFlag
        network = builder.create_network(1 << int(flags.STRONGLY_TYPED))
        self._parse(trt.OnnxParser(network, logger))
        self._check(network)
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
        config.builder_optimization_level = key.level
        # Decode subtracts squares of positions: TF32's 10 bits blur them by many pixels.
        config.clear_flag(trt.BuilderFlag.TF32)
        monitor = make_monitor(trt, self._tell, self._stopped)
        config.progress_monitor = monitor
        targets = self._library.targets
        if targets:
            name = targets[key.target or key.capability or ""]
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
        frame = network.get_input(0)
        if any(side < 0 for side in frame.shape):
            profile = builder.create_optimization_profile()
            profile.set_shape(frame.name, *((*size, 3) for size in key.shapes.sizes))
            if config.add_optimization_profile(profile) < 0:
                return None
        timing = self._job.timing
        if timing is not None:
            start_timing(config, timing)
        plan = builder.build_serialized_network(network, config)
        if plan is not None and timing is not None:
            with contextlib.suppress(EngineError, OSError):  # the next build takes longer
                keep_timing(config, timing)
        return plan

    def _parse(self, parser: Any) -> None:
        try:
            content = self._job.program.read_bytes()
        except OSError as error:
            raise EngineError(f"cannot read '{self._job.program}': {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self._job.key.onnx_sha256:
            raise EngineError(f"'{self._job.program}' was changed just now: start again")
        if parser.parse(content):
            return
        faults = [parser.get_error(index) for index in range(parser.num_errors)]
        for fault in faults:
            self._context.setdefault("operator", fault.node_operator())
            self._context.setdefault("node", fault.node_name())
        found = [f"{f.node_operator()} '{f.node_name()}': {f.desc()}" for f in faults]
        failed = explain(
            [*found, *self._said], f"{self._library} cannot read the program", **self._context
        )
        raise EngineError(failed)

    def _check(self, network: Any) -> None:
        """`parse` says yes to anything; what it found must be a program of ours."""
        inputs = [network.get_input(index).name for index in range(network.num_inputs)]
        outputs = [network.get_output(index).name for index in range(network.num_outputs)]
        if inputs != ["frame"] or tuple(outputs) != OUTPUTS:
            raise EngineError(
                f"'{self._job.program}': {self._library} found the inputs {inputs} and the "
                f"outputs {outputs}, expected 'frame' and {OUTPUTS}: export it again"
            )


def make_logger(trt: Any, said: list[str]) -> Any:
    """A logger of TensorRT's that keeps what it says in errors."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                said.append(message)

    return Logger()


def make_monitor(trt: Any, tell: Callable[[Answer], None], stopped: Callable[[], bool]) -> Any:
    """A progress monitor of TensorRT's that tells the phases, and stops the build when told."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told = 0.0

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            self._say(phase, 0, always=True)

        def step_complete(self, phase: str, step: int) -> bool:
            self._say(phase, step + 1)
            return not stopped()

        def phase_finish(self, phase: str) -> None:
            steps = self._steps.get(phase, 0)
            self._say(phase, steps, always=True)

        def _say(self, phase: str, done: int, always: bool = False) -> None:
            now = time.monotonic()
            if always or now - self._told > TELL_EVERY_S:
                self._told = now
                tell(Answer(progress=(phase, done, self._steps.get(phase, 0))))

    return Monitor()


def main(job: str, pipe: int) -> None:
    """Build one engine and answer on a pipe.

    SIGINT, SIGTERM, and the end of whoever reads the pipe, stop the build at its next step.
    """
    stop = False

    def stopped() -> bool:
        return stop

    def note(signum: int, frame: object) -> None:
        nonlocal stop
        stop = True

    def tell(answer: Answer) -> None:
        nonlocal stop
        try:
            os.write(pipe, answer.model_dump_json(exclude_defaults=True).encode() + b"\n")
        except OSError:  # nobody reads any more
            stop = True

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, note)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # memory wanted: end this process before a robot's node
        Path("/proc/self/oom_score_adj").write_text("500")
    read = Job.model_validate_json(job)
    try:
        tell(Answer(built=Builder(read, find_library(read.key.family), tell, stopped).build()))
    except BuildCancelled:
        tell(Answer(cancelled=True))
    except EngineError as error:
        tell(Answer(failed=str(error)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
