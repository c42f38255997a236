"""Which TensorRT is there, and what it can do: by the names it has, never by its version."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Literal

from kdc_core.inference.engine.messages import NOT_INSTALLED, TOO_OLD, EngineError

Family = Literal["tensorrt", "tensorrt-rtx"]
# In the order they are looked for.
MODULES: dict[Family, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
TITLES: dict[Family, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
# The first three are used; the last came with 10.3, the oldest version supported.
NEEDED = (
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "IProgressMonitor",
    "ParserError.node_name",
    "IPluginV3OneBuildV2",
)


@dataclass(frozen=True)
class Library:
    """One TensorRT that can be imported.

    Attributes:
        family: also the name of the runtime it makes possible.
        module: `tensorrt` or `tensorrt_rtx`.
        version: in full.
    """

    family: Family
    module: ModuleType
    version: str

    def __str__(self) -> str:
        return f"{TITLES[self.family]} {self.version}"

    @property
    def targets(self) -> dict[str, str]:
        """Compute capabilities it can be told to build for, and its names for them.

        None: it builds for the GPU at hand, whichever that is.
        """
        members = getattr(getattr(self.module, "ComputeCapability", None), "__members__", {})
        names = [name for name in members if name.startswith("SM")]
        return {f"{name[2:-1]}.{name[-1]}": name for name in names}

    def check_target(self, capability: str, named: bool) -> None:
        """Refuse a compute capability that it cannot build for.

        Args:
            capability: such as 8.9.
            named: asked for by the user, not read off the GPU at hand.

        Raises:
            EngineError: it cannot.
        """
        targets = self.targets
        if not targets and named:
            raise EngineError(
                f"{self} builds for the GPU at hand only: expected no target, got {capability}; "
                "TensorRT-RTX can name one"
            )
        if targets and capability not in targets:
            mend = "" if named else "; install TensorRT"
            raise EngineError(
                f"{self} cannot target compute capability {capability}, only "
                f"{', '.join(targets)}{mend}"
            )


def check_installed(family: Family) -> None:
    """Refuse a family whose module is not there, without importing it.

    Raises:
        EngineError: it is not installed.
    """
    if find_spec(MODULES[family]) is None:
        raise EngineError(NOT_INSTALLED[family])


def find_library(family: Family | None = None, target: str | None = None) -> Library:
    """The TensorRT to use.

    Args:
        family: which; None = the first usable one.
        target: compute capability it must be able to name; None = none need be named.

    Raises:
        EngineError: there is none, or it is too old.
    """
    if family is None:
        reasons: list[str] = []
        for each in MODULES:
            try:
                return find_library(each, target)
            except EngineError as error:
                reasons.append(str(error))
        raise EngineError("; ".join(dict.fromkeys(reasons)))
    name = MODULES[family]
    try:
        module = import_module(name)
    except (ImportError, OSError) as error:  # the latter: a library that does not load
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise EngineError(NOT_INSTALLED[family]) from error
        raise EngineError(f"the module {name} is there but does not load: {error}") from error
    library = Library(family, module, str(getattr(module, "__version__", "unknown")))
    missing = [path for path in NEEDED if not _has(module, path)]
    if missing:
        raise EngineError(TOO_OLD.format(library=library, missing=missing[0]))
    if target is not None:
        library.check_target(target, named=True)
    return library


def _has(module: ModuleType, path: str) -> bool:
    at: object = module
    for name in path.split("."):
        if not hasattr(at, name):
            return False
        at = getattr(at, name)
    return True


class _Calls:
    """Calls of TensorRT that are under way in any thread."""

    def __init__(self) -> None:
        self.lock, self.count, self.collected = Lock(), 0, False


_calls = _Calls()


@contextmanager
def no_collection() -> Iterator[None]:
    """For calls in which TensorRT calls Python back, as its logger.

    It holds a lock meanwhile that freeing a builder takes too: were the garbage collector to find
    an older one just then, the call would never end.
    """
    with _calls.lock:
        if not _calls.count:
            _calls.collected = gc.isenabled()
            gc.disable()
        _calls.count += 1
    try:
        yield
    finally:
        with _calls.lock:
            _calls.count -= 1
            if not _calls.count and _calls.collected:
                gc.enable()
