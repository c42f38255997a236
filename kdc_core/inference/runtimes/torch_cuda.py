"""torch on CUDA: the next frame is uploaded while this one runs, each run one CUDA graph.

Its logic is tested against a stand-in for torch.cuda, and on a GPU by the tests marked `gpu`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdc_core.inference.assembly import Raw
from kdc_core.inference.manifest import OUTPUTS
from kdc_core.inference.runtimes.protocol import Pending

log = logging.getLogger(__name__)

# So many sizes of frames get a graph, which keeps its memory; frames of further ones run without.
GRAPHS = 3
WARM_UP = 3  # runs before a capture: libraries allocate in their first ones

Size = tuple[int, int]
Run = Callable[[Tensor], Sequence[Tensor]]


class CudaProgram:
    """A program on a GPU.

    Uploads have a stream of their own; everything else is in the order of one stream, and
    collecting a frame is the only wait.

    Args:
        program: on the device.
        device: a GPU.
        graphs: how many sizes of frames get a CUDA graph.
    """

    def __init__(self, program: nn.Module, device: torch.device, graphs: int):
        self._program, self._device, self._graphs = program, device, graphs
        self._stream, self._uploads = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._replays: dict[Size, Run] = {}
        self._constants: list[Constants] = []  # of the graphs, which read them

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        """Start on a frame; it may be changed as soon as this returns."""
        pinned = torch.from_numpy(frame).pin_memory()
        # Whoever changes the weights does so on the caller's stream.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.inference_mode(), precise():
            run = self._run_for((frame.shape[0], frame.shape[1]))
            with torch.cuda.stream(self._uploads):
                uploaded = pinned.to(self._device, non_blocking=True)
            self._stream.wait_stream(self._uploads)
            with torch.cuda.stream(self._stream):
                people = run(uploaded)[: len(OUTPUTS)]
                found = [value.to("cpu", non_blocking=True, copy=True) for value in people]
                done = self._stream.record_event()
        return Pending(partial(_collect, found, done, uploaded))

    def close(self) -> None:
        """Wait for frames under way and free the graphs."""
        try:
            self._stream.synchronize()
        finally:
            self._replays.clear()
            self._constants.clear()

    def _run_for(self, size: Size) -> Run:
        """What runs frames of a size: a graph, captured when such a frame first comes, or not."""
        if size not in self._replays and len(self._replays) < self._graphs:
            try:
                self._replays[size] = self._capture(size)
            except RuntimeError as error:
                self._graphs = len(self._replays)  # nor others
                log.warning(
                    "torch runs without a CUDA graph: frames of %dx%d cannot be captured: %s",
                    *size[::-1],
                    # A capture that was broken off ends with an error that tells less.
                    str(error.__context__ or error).partition("\n")[0],
                )
        return self._replays.get(size, self._program)

    def _capture(self, size: Size) -> Run:
        """The program as a graph that gives what the program gives.

        Raises:
            RuntimeError: it cannot be captured, or gives something else.
        """
        frame = torch.zeros((*size, 3), dtype=torch.uint8, device=self._device)
        constants, graph = Constants(self._device), torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                with constants:
                    self._program(frame)
        self._stream.synchronize()
        # Another thread may wait for the frame before, which a capture of all threads forbids.
        with (
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            constants,
        ):
            outputs = self._program(frame)

        def replay(new: Tensor) -> Sequence[Tensor]:
            frame.copy_(new)
            graph.replay()
            return outputs

        with torch.cuda.stream(self._stream):
            noise = torch.randint_like(frame, 256)
            expected = self._program(noise)
            same = [torch.equal(*both) for both in zip(expected, replay(noise), strict=True)]
        if not all(same):
            raise RuntimeError("the graph gives something else than the program")
        self._constants.append(constants)
        return replay


def precise() -> AbstractContextManager[None]:
    """Convolutions in float32 proper: TF32, torch's default, moves a keypoint by pixels."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


class Constants(TorchFunctionMode):
    """Keeps what a program makes of Python's numbers on a device in its first run within this.

    In further runs it gets the same tensors again, in their order: copies from the host cannot be
    captured.

    Args:
        device: of the program.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self._device, self._kept, self._next = device, list[Tensor](), 0

    def __enter__(self) -> Constants:
        self._next = 0
        super().__enter__()
        return self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        moved = func is Tensor.to and args[0].device.type != self._device.type
        if not moved and func is not torch.tensor:
            return func(*args, **(kwargs or {}))
        if self._next == len(self._kept):
            self._kept.append(func(*args, **(kwargs or {})))
        self._next += 1
        return self._kept[self._next - 1]


def _collect(found: list[Tensor], done: torch.cuda.Event, uploaded: Tensor) -> Raw:
    done.synchronize()  # until then `uploaded` may be read, and so must be held
    return Raw(*(value.numpy() for value in found))
