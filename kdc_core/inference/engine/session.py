"""An engine in memory: frames in, people out.

Nothing here has run on a GPU yet: its logic is tested against a stand-in for CUDA and TensorRT.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from kdc_core.inference.assembly import Raw
from kdc_core.inference.engine.cuda import (
    Buffer,
    CudaError,
    capture,
    check,
    make_event,
    make_stream,
)
from kdc_core.inference.engine.kernels import Kernels
from kdc_core.inference.engine.messages import BrokenEngine
from kdc_core.inference.manifest import OUTPUTS
from kdc_core.inference.runtimes.protocol import Pending

log = logging.getLogger(__name__)

# Frames under way at once: one is uploaded while the other runs.
SLOTS = 2


@dataclass
class Slot:
    """What one frame under way owns: its input, its outputs, and when each is through.

    Attributes:
        frame: input, uploaded here before the engine is free to take it.
        outputs: in the order of OUTPUTS; what the engine wrote is copied here.
        uploaded, done: events.
        busy: from submit until its people are collected.
    """

    frame: Buffer
    outputs: list[Buffer]
    uploaded: int
    done: int
    busy: bool = False


class EngineSession:
    """One engine in memory, ready for frames of one size.

    All addresses are set once. Uploads have a stream of their own; everything else is in the
    order of one stream, and collecting a frame is the only wait.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        engine: deserialised.
        origin: its file, for messages.
        kernels: those that RTX compiled for it before.

    Raises:
        BrokenEngine: its inputs and outputs are not those of a program of ours.
        CudaError: no memory, or none for an execution context.
    """

    def __init__(self, trt: Any, engine: Any, origin: str, kernels: Kernels | None = None):
        self._engine = engine
        self._context = _make_context(trt, engine, kernels)
        if self._context is None:
            raise CudaError(f"'{origin}': no execution context could be made")
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if names != ["frame", *OUTPUTS]:
            raise BrokenEngine(
                f"'{origin}': expected the input 'frame' and the outputs {OUTPUTS}, got {names}"
            )
        shapes = [tuple(engine.get_tensor_shape(name)) for name in names]
        dtypes = [np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names]
        self.shape = shapes[0]
        self._next = 0
        self._graph: int | None = None
        self._slots: list[Slot] = []
        # Everything on the GPU, for `close`.
        self._streams: list[int] = []
        self._events: list[int] = []
        self._buffers: list[Buffer] = []
        try:
            self._allocate(shapes, dtypes)
            for name, buffer in zip(names, self._own, strict=True):
                if not self._context.set_tensor_address(name, buffer.device):
                    raise BrokenEngine(f"'{origin}': the address of '{name}' was refused")
            # RTX captures by itself (`_make_context`).
            if not hasattr(trt, "CudaGraphStrategy"):
                self._graph = self._captured()
        except BaseException:
            self.close()
            raise

    def _allocate(self, shapes: list[tuple[int, ...]], dtypes: list[np.dtype[Any]]) -> None:
        """Streams, the engine's own inputs and outputs, and those of each frame under way."""

        def buffers() -> list[Buffer]:
            for both in zip(shapes, dtypes, strict=True):
                self._buffers.append(Buffer(*both))
            return self._buffers[-len(shapes) :]

        def event() -> int:
            self._events.append(make_event())
            return self._events[-1]

        for _ in range(2):
            self._streams.append(make_stream())
        self._stream, self._uploads = self._streams
        self._own = buffers()
        for _ in range(SLOTS):
            frame, *outputs = buffers()
            self._slots.append(Slot(frame, outputs, event(), event()))

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        """Start on a frame; it may be changed as soon as this returns.

        Raises:
            CudaError: SLOTS frames are already under way, or the GPU failed.
        """
        slot = self._slots[self._next]
        if slot.busy:
            raise CudaError(f"{SLOTS} frames are under way: collect one before the next submit")
        np.copyto(slot.frame.host, frame)
        slot.frame.upload(self._uploads)
        check(cudart.cudaEventRecord(slot.uploaded, self._uploads), "recording an upload")
        check(cudart.cudaStreamWaitEvent(self._stream, slot.uploaded, 0), "waiting for an upload")
        slot.frame.copy_to(self._own[0].device, self._stream)
        self._run()
        for own, kept in zip(self._own[1:], slot.outputs, strict=True):
            own.copy_to(kept.device, self._stream)
            kept.download(self._stream)
        check(cudart.cudaEventRecord(slot.done, self._stream), "recording a frame")
        slot.busy = True
        self._next = (self._next + 1) % SLOTS
        return Pending(partial(self._collect, slot))

    def _collect(self, slot: Slot) -> Raw:
        if not slot.busy:
            raise CudaError("the engine was closed before this frame was collected")
        try:
            check(cudart.cudaEventSynchronize(slot.done), "running the engine")
            return Raw(*(output.host.copy() for output in slot.outputs))
        finally:
            slot.busy = False

    def _run(self) -> None:
        if self._graph is not None:
            check(cudart.cudaGraphLaunch(self._graph, self._stream), "launching the engine")
        elif not self._context.execute_async_v3(self._stream):
            raise CudaError("the engine refused to run")

    def _captured(self) -> int | None:
        """The engine's work as a graph that gives what running it gives, else None, said once."""
        self._run()
        first = self._outputs()
        graph = capture(self._stream, lambda: bool(self._context.execute_async_v3(self._stream)))
        if graph is not None:
            check(cudart.cudaGraphLaunch(graph, self._stream), "launching the engine")
            if all(map(np.array_equal, first, self._outputs())):
                return graph
            cudart.cudaGraphExecDestroy(graph)
        log.warning("the engine cannot be replayed as a CUDA graph: it runs without one")
        return None

    def _outputs(self) -> list[np.ndarray]:
        for buffer in self._own[1:]:
            buffer.download(self._stream)
        check(cudart.cudaStreamSynchronize(self._stream), "running the engine")
        return [buffer.host.copy() for buffer in self._own[1:]]

    def close(self) -> None:
        """Free everything on the GPU."""
        for stream in self._streams:
            cudart.cudaStreamSynchronize(stream)
        if self._graph is not None:
            cudart.cudaGraphExecDestroy(self._graph)
        for slot in self._slots:
            slot.busy = False
        for buffer in self._buffers:
            buffer.free()
        for event in self._events:
            cudart.cudaEventDestroy(event)
        for stream in self._streams:
            cudart.cudaStreamDestroy(stream)
        del self._context, self._engine


def _make_context(trt: Any, engine: Any, kernels: Kernels | None) -> Any:
    """An execution context; of RTX one that captures its own graph."""
    if hasattr(trt, "CudaGraphStrategy"):
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if kernels is not None:
            kernels.give_to(config)
        return engine.create_execution_context(config)
    return engine.create_execution_context()
