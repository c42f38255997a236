"""A TensorRT without NVIDIA: as many names as our code touches, and answers from a script.

The script is JSON in the environment variable FAKE_TRT, so that a child process follows it too:
    version     of the real bindings whose names it has; what that version lacks is taken away
    builder     "nullptr": no builder can be made
    faults      [[operator, node, text], ...] found in the program
    said        errors logged during the build
    steps       of the one phase of the build
    pause_s     for each step
    build       "plan" (default), "none", "crash", "kill", "raise", "big"
    outputs     names the network has, instead of a program's
    free_sides  whether height and width are free (default)
    profile     what adding a profile answers (default 0)
"""

from __future__ import annotations

import enum
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT: dict[str, Any] = json.loads(os.environ.get("FAKE_TRT", "{}"))
VERSION: str = SCRIPT.get("version", "10.3.0")
NAMES: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[1] / "trt_names.json").read_text(encoding="utf-8")
)[VERSION]
OUTPUTS = ("score", "keypoints", "centroids", "owner", "confidence")
calls: list[tuple[Any, ...]] = []


class Strict:
    """Only attributes the class names can be set, as in the real bindings."""

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        calls.append((type(self).__name__, name, value))
        object.__setattr__(self, name, value)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class BuilderFlag(enum.Enum):
    TF32 = 0


class ComputeCapability(enum.Enum):
    NONE = 0
    CURRENT = 1
    SM86 = 86
    SM89 = 89
    SM120 = 120


class ILogger:
    INTERNAL_ERROR = 0
    ERROR = 1

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step_complete(self, phase: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase: str) -> None: ...


class IPluginV3OneBuildV2:
    pass


class ITensor:
    def __init__(self, name: str, shape: tuple[int, ...]):
        self._name, self._shape = name, shape

    @property
    def name(self) -> str:
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape


class INetworkDefinition:
    def __init__(self) -> None:
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class ParserError:
    def __init__(self, operator: str, node: str, text: str):
        self._operator, self._node, self._text = operator, node, text

    def node_operator(self) -> str:
        return self._operator

    def node_name(self) -> str:
        return self._node

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger):
        self._network = network
        self._faults = [ParserError(*fault) for fault in SCRIPT.get("faults", ())]

    @property
    def num_errors(self) -> int:
        return len(self._faults)

    def get_error(self, index: int) -> ParserError:
        return self._faults[index]

    def parse(self, content: bytes) -> bool:
        side = -1 if SCRIPT.get("free_sides", True) else 448
        self._network._inputs.append(ITensor("frame", (side, side, 3)))
        for name in SCRIPT.get("outputs", OUTPUTS):
            self._network._outputs.append(ITensor(name, (32,)))
        return not self._faults


class IOptimizationProfile:
    def set_shape(self, name: str, *sizes: tuple[int, ...]) -> None:
        calls.append(("IOptimizationProfile", "set_shape", name, *sizes))


class ITimingCache:
    def __init__(self, content: bytes):
        self._content = content

    def serialize(self) -> bytes:
        return self._content + b"timed"

    def combine(self, other: ITimingCache, ignore_mismatch: bool) -> bool:
        self._content = other._content
        return True


class IBuilderConfig(Strict):
    builder_optimization_level = 3
    num_compute_capabilities = 1
    progress_monitor: IProgressMonitor | None = None
    _timing: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        calls.append(("IBuilderConfig", "set_memory_pool_limit", pool.name, size))

    def clear_flag(self, flag: BuilderFlag) -> None:
        calls.append(("IBuilderConfig", "clear_flag", flag.name))

    def set_compute_capability(self, capability: ComputeCapability, index: int) -> bool:
        calls.append(("IBuilderConfig", "set_compute_capability", capability.name, index))
        return True

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        return int(SCRIPT.get("profile", 0))

    def create_timing_cache(self, content: bytes) -> ITimingCache | None:
        return None if content == b"refused" else ITimingCache(content)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._timing = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing


class Builder:
    def __init__(self, logger: ILogger):
        if SCRIPT.get("builder") == "nullptr":
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        calls.append(("Builder", "create_network", flags))
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytes | None:
        monitor = config.progress_monitor
        assert monitor is not None
        steps = SCRIPT.get("steps", 3)
        monitor.phase_start("Timing graph nodes", None, steps)
        for step in range(steps):
            time.sleep(SCRIPT.get("pause_s", 0))
            if not monitor.step_complete("Timing graph nodes", step):
                self._logger.log(ILogger.ERROR, "Error Code 7: Internal Error (BuildCanceled)")
                return None
        monitor.phase_finish("Timing graph nodes")
        for line in SCRIPT.get("said", ()):
            self._logger.log(ILogger.ERROR, line)
        return _RESULTS[SCRIPT.get("build", "plan")]()


def _raise() -> bytes | None:
    raise RuntimeError("something of the bindings' own")


def _end(signum: signal.Signals) -> bytes | None:
    os.kill(os.getpid(), signum)
    time.sleep(60)
    return None


_RESULTS: dict[str, Callable[[], bytes | None]] = {
    "plan": lambda: b"ftrt" + bytes(20) + bytes((10, 3, 0, 26)) + b"engine" * 1000,
    "big": lambda: b"ftrt" + bytes(8_000_000),
    "none": lambda: None,
    "raise": _raise,
    "crash": lambda: _end(signal.SIGSEGV),
    "kill": lambda: _end(signal.SIGKILL),
}


def public() -> dict[str, object]:
    """The names of the module in this version, its classes without what this version lacks."""
    found: dict[str, object] = {"__version__": VERSION.removeprefix("rtx ")}
    for name, value in list(globals().items()):
        if name in NAMES and isinstance(value, type):
            for own in [own for own in vars(value) if not own.startswith("_")]:
                if own not in NAMES[name]:
                    _take_away(value, own)
            found[name] = value
        elif name in NAMES[""] and isinstance(value, type):
            found[name] = value
    return found


def _take_away(owner: type, name: str) -> None:
    if issubclass(owner, enum.Enum):  # whose members cannot be deleted
        owner._member_map_.pop(name, None)
        type.__delattr__(owner, name)
    else:
        delattr(owner, name)
