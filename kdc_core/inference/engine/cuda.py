"""CUDA: the memory, streams and graphs that running an engine needs, by NVIDIA's cuda-python.

Importing this file needs cuda-python; calling anything needs a driver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from kdc_core.inference.runtimes.protocol import UnusableRuntime


class CudaError(UnusableRuntime):
    """A CUDA call that failed; the text names the error and what was asked for."""


def check(result: tuple[Any, ...], what: str) -> Any:
    """What a CUDA call gave.

    Args:
        result: of a function of cuda-python: the error, then values.
        what: was asked for, for the message.

    Raises:
        CudaError: it failed.
    """
    error, *values = result
    if error == cudart.cudaError_t.cudaErrorMemoryAllocation:
        raise CudaError(
            f"out of GPU memory: {what} failed with {free_mib()} MiB free; close other programs "
            "on the GPU, or take a smaller input size"
        )
    if error != cudart.cudaError_t.cudaSuccess:
        raise CudaError(f"{what} failed: {error.name}")
    return values[0] if values else None


def free_mib() -> int:
    """Free memory of the GPU, MiB; 0 where it does not say."""
    error, free, _ = cudart.cudaMemGetInfo()
    return free >> 20 if error == cudart.cudaError_t.cudaSuccess else 0


@dataclass(frozen=True)
class _View:
    """Memory at an address, as numpy reads it."""

    __array_interface__: dict[str, Any]


class Buffer:
    """As many bytes on the device as an array has, and a pinned array on the host.

    Args:
        shape, dtype: of the array.

    Attributes:
        host: the pinned array; undefined after `free`.
        device: address.

    Raises:
        CudaError: no memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]):
        self.bytes = max(1, int(np.prod(shape)) * dtype.itemsize)
        what = f"allocating {self.bytes / 1e6:.1f} MB"
        self.device = int(check(cudart.cudaMalloc(self.bytes), what))
        try:
            pinned = check(cudart.cudaMallocHost(self.bytes), f"{what} of pinned memory")
        except CudaError:
            cudart.cudaFree(self.device)
            raise
        self._pinned = int(pinned)
        view = _View(
            {"data": (self._pinned, False), "shape": shape, "typestr": dtype.str, "version": 3}
        )
        self.host: np.ndarray = np.asarray(view)

    def upload(self, stream: int) -> None:
        """Copy host to device, in the order of the stream."""
        direction = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        copied = cudart.cudaMemcpyAsync(self.device, self._pinned, self.bytes, direction, stream)
        check(copied, "uploading a frame")

    def download(self, stream: int) -> None:
        """Copy device to host, in the order of the stream."""
        direction = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        copied = cudart.cudaMemcpyAsync(self._pinned, self.device, self.bytes, direction, stream)
        check(copied, "downloading people")

    def copy_to(self, address: int, stream: int) -> None:
        """Copy device to device, in the order of the stream."""
        direction = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        copied = cudart.cudaMemcpyAsync(address, self.device, self.bytes, direction, stream)
        check(copied, "copying a frame")

    def free(self) -> None:
        """Give the memory back."""
        cudart.cudaFree(self.device)
        cudart.cudaFreeHost(self._pinned)


def use_device(index: int) -> None:
    """Make the GPU of this number the one that this thread's calls go to."""
    check(cudart.cudaSetDevice(index), f"choosing GPU {index}")


def make_stream() -> int:
    """A stream that does not wait for the default one."""
    created = cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking)
    return int(check(created, "creating a stream"))


def make_event() -> int:
    """An event for waiting on; it measures no time."""
    created = cudart.cudaEventCreateWithFlags(cudart.cudaEventDisableTiming)
    return int(check(created, "creating an event"))


def capture(stream: int, enqueue: Callable[[], bool]) -> int | None:
    """Record what is enqueued as a graph.

    Args:
        stream: idle, and `enqueue` has run on it once: libraries allocate at their first run.
        enqueue: says whether it could.

    Returns:
        An executable graph, or None where the work cannot be captured.
    """
    mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    check(cudart.cudaStreamBeginCapture(stream, mode), "beginning a capture")
    # Whether it was enqueued is known only after the capture has ended: a refused call would
    # leave a graph that replays nothing.
    enqueued = enqueue()
    error, graph = cudart.cudaStreamEndCapture(stream)
    if error != cudart.cudaError_t.cudaSuccess or not enqueued:
        cudart.cudaGetLastError()  # a failed capture leaves its error behind
        return None
    error, executable = cudart.cudaGraphInstantiate(graph, 0)
    cudart.cudaGraphDestroy(graph)
    return int(executable) if error == cudart.cudaError_t.cudaSuccess else None
