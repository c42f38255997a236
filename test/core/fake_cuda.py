"""Stand-ins for CUDA and TensorRT that keep their order of things, on a machine without a GPU.

Memory is host memory. What is put on a stream happens only when somebody waits for it, so code
that reads too early, or writes over what is still to be copied, gives wrong people. An engine runs
a program of ours in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

Work = Callable[[], object]


class Stream:
    """Work in its order; `done` of it has happened."""

    def __init__(self) -> None:
        self.work: list[Work] = []
        self.done = 0
        self.captured: list[Work] | None = None

    def put(self, work: Work) -> None:
        (self.work if self.captured is None else self.captured).append(work)

    def wait(self, until: int | None = None) -> None:
        until = len(self.work) if until is None else until
        while self.done < until:
            self.done += 1
            self.work[self.done - 1]()


class Error(Enum):
    cudaSuccess = 0  # noqa: N815 -- CUDA's own names
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorLaunchFailure = 719  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815


OK = Error.cudaSuccess


class FakeCuda:
    """The functions of `cuda.bindings.runtime` that are used.

    Args:
        free_mib: memory there is.
        can_capture: whether graphs can be captured.

    Attributes:
        broken: whether waiting for a frame fails.
    """

    cudaError_t = Error  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaEventDisableTiming = 2  # noqa: N815

    def __init__(self, free_mib: int = 4096, can_capture: bool = True):
        self.free, self.can_capture, self.broken = free_mib << 20, can_capture, False
        self.memory: dict[int, np.ndarray] = {}
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, tuple[Stream, int] | None] = {}
        self.graphs: dict[int, list[Work]] = {}
        self._handles = iter(range(1, 10**6))

    def at(self, address: int) -> np.ndarray:
        """The bytes allocated at an address."""
        return self.memory[int(address)]

    def cudaSetDevice(self, index: int) -> tuple[Error]:  # noqa: N802
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Error, int | None]:  # noqa: N802
        if size > self.free:
            return Error.cudaErrorMemoryAllocation, None
        self.free -= size
        memory = np.full(size, 0xA5, np.uint8)
        self.memory[memory.ctypes.data] = memory
        return OK, memory.ctypes.data

    cudaMallocHost = cudaMalloc  # noqa: N815

    def cudaFree(self, address: int) -> tuple[Error]:  # noqa: N802
        self.free += self.memory.pop(int(address)).size
        return (OK,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaMemGetInfo(self) -> tuple[Error, int, int]:  # noqa: N802
        return OK, self.free, 4096 << 20

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, int]:  # noqa: N802
        handle = next(self._handles)
        self.streams[handle] = Stream()
        return OK, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Error]:  # noqa: N802
        del self.streams[stream]
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:  # noqa: N802
        self.streams[stream].wait()
        return (OK,)

    def cudaMemcpyAsync(  # noqa: N802
        self, to: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Error]:
        self.streams[stream].put(lambda: np.copyto(self.at(to)[:size], self.at(source)[:size]))
        return (OK,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Error, int]:  # noqa: N802
        handle = next(self._handles)
        self.events[handle] = None
        return OK, handle

    def cudaEventDestroy(self, event: int) -> tuple[Error]:  # noqa: N802
        del self.events[event]
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Error]:  # noqa: N802
        here = self.streams[stream]
        self.events[event] = (here, len(here.work))
        return (OK,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Error]:  # noqa: N802
        recorded = self.events[event]
        if recorded is not None:
            self.streams[stream].put(lambda: recorded[0].wait(recorded[1]))
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Error]:  # noqa: N802
        recorded = self.events[event]
        if recorded is not None:
            recorded[0].wait(recorded[1])
        return (Error.cudaErrorLaunchFailure if self.broken else OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Error]:  # noqa: N802
        self.streams[stream].captured = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Error, int | None]:  # noqa: N802
        work, self.streams[stream].captured = self.streams[stream].captured, None
        if not self.can_capture or work is None:
            return Error.cudaErrorStreamCaptureUnsupported, None
        handle = next(self._handles)
        self.graphs[handle] = work
        return OK, handle

    def cudaGetLastError(self) -> tuple[Error]:  # noqa: N802
        return (OK,)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Error, int]:  # noqa: N802
        handle = next(self._handles)
        self.graphs[handle] = self.graphs[graph]
        return OK, handle

    def cudaGraphDestroy(self, graph: int) -> tuple[Error]:  # noqa: N802
        del self.graphs[graph]
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy  # noqa: N815

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Error]:  # noqa: N802
        for work in self.graphs[graph]:
            self.streams[stream].put(work)
        return (OK,)


class FakeEngine:
    """An engine and its execution context: a program of ours, for frames of one size.

    Args:
        cuda: where its memory and streams are.
        session: of the program, in ONNX Runtime.
        size: (height, width) of the frames.
        runs: whether the context can be run.

    Attributes:
        shift_px: how far to the right all keypoints come out.
    """

    def __init__(
        self,
        cuda: FakeCuda,
        session: onnxruntime.InferenceSession,
        size: tuple[int, int],
        runs: bool = True,
    ):
        self._cuda, self._session, self.runs = cuda, session, runs
        self.shift_px = 0.0
        self.names = ["frame", *(output.name for output in session.get_outputs())]
        example = np.zeros((*size, 3), np.uint8)
        arrays = [example, *session.run(None, {"frame": example})]
        self._arrays = dict(zip(self.names, arrays, strict=True))
        self._addresses: dict[str, int] = {}

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._arrays[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return self._arrays[name].dtype

    def create_execution_context(self) -> FakeEngine:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.runs:
            self._cuda.streams[stream].put(self._run)
        return self.runs

    def _memory(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        memory = self._cuda.at(self._addresses[name])[: array.nbytes]
        return memory.view(array.dtype).reshape(array.shape)

    def _run(self) -> None:
        found = self._session.run(None, {"frame": self._memory("frame").copy()})
        for name, value in zip(self.names[1:], found, strict=True):
            if name == "keypoints":
                value[..., 0] += self.shift_px
            np.copyto(self._memory(name), value)


FULL_TENSORRT = SimpleNamespace(nptype=lambda dtype: dtype)
