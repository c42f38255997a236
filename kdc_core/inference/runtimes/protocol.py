"""What every runtime does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from kdc_core.errors import KdcError

if TYPE_CHECKING:  # which no process that only builds needs
    from kdc_core.inference.assembly import Raw
    from kdc_core.inference.manifest import Manifest


class UnusableRuntime(KdcError):
    """A runtime or model that cannot be used here; the text says why and what to do."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Pending(Generic[Result]):
    """A frame under way.

    Attributes:
        collect: waits for what comes of it; to be called once, whatever became of other frames.
    """

    collect: Callable[[], Result]


class Runtime(Protocol):
    """Executes one program.

    Frames are submitted from one thread; they may be collected from another, in their order.

    Attributes:
        name: as in `choice.RUNTIMES`.
        manifest: what the program says about itself.
    """

    name: str
    manifest: Manifest

    def describe(self) -> dict[str, str]:
        """Version, device, precision and threads, for logs and reports."""
        ...

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        """Start on a frame; what cannot work beside its caller works when it is collected.

        Two frames may be under way. One that fails, here or in `collect`, leaves the others and
        the runtime as they are.

        Args:
            frame: (H, W, 3) uint8 RGB, contiguous; not to be changed before it is collected.

        Raises:
            FrameError: its sides are not those of the manifest.
        """
        ...

    def close(self) -> None:
        """Free what the runtime holds; frames under way are waited for, or fail in `collect`."""
        ...


def submit_frame(runtime: Runtime, frame: np.ndarray) -> Pending[Raw]:
    """`Runtime.submit`, whose failures are KdcErrors, whatever its library raises.

    Raises:
        FrameError: its sides are not those of the manifest.
        UnusableRuntime: here or in `collect`, the runtime could not run it.
    """

    def collect() -> Raw:
        with _told(runtime):
            return pending.collect()

    with _told(runtime):
        pending = runtime.submit(frame)
    return Pending(collect)


@contextmanager
def _told(runtime: Runtime) -> Iterator[None]:
    try:
        yield
    except KdcError:
        raise
    except Exception as error:  # libraries raise classes of their own for every cause
        raise UnusableRuntime(f"{runtime.name} could not run a frame: {error}") from error
