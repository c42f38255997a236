"""torch on CUDA: order, graphs and what cannot be captured, against a stand-in for torch.cuda."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kdc_core.data.images import Images
from kdc_core.inference.assembly import Raw
from kdc_core.inference.model_files import find_model
from kdc_core.inference.program import Program
from kdc_core.inference.runtimes.torch import TorchRuntime
from kdc_core.inference.runtimes.torch_cuda import GRAPHS, Constants, CudaProgram
from kdc_core.network.weights import load_model

SIZE = (64, 128)
WEIGHTS = find_model("kdc_light", (".safetensors",))
CPU = torch.device("cpu")
Calls = list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]]


class Recorder(TorchDispatchMode):
    """Keeps each operator with what it took and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Calls = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, given))
        return given


class FakeGraph:
    """Does the recorded operators again, on the same tensors."""

    def __init__(self) -> None:
        self.calls: Calls = []

    def replay(self) -> None:
        for func, args, kwargs, given in self.calls:
            again = func(*args, **kwargs)
            both = zip(tensors(given), tensors(again), strict=True)
            for old, new in both:
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, (tuple, list)):
        return [each for part in value for each in tensors(part)]
    return [value] if isinstance(value, Tensor) else []


class FakeStream:
    """Everything on it is done at once.

    Attributes:
        broken: whether waiting for a frame fails.
    """

    broken = False

    def __init__(self, device: torch.device):
        pass

    def wait_stream(self, other: object) -> None:
        pass

    def record_event(self) -> FakeStream:
        return self

    def synchronize(self) -> None:
        if FakeStream.broken:
            raise RuntimeError("CUDA error: launch failure")


class FakeGpu:
    """What of torch.cuda is used, on the CPU.

    Attributes:
        capturing: whether a capture is under way.
        records: whether a capture records anything.
        captures: how many were begun.
        pinned: frames that were copied to pinned memory.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.capturing, self.records, self.captures, self.pinned = False, True, 0, 0
        monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
        monkeypatch.setattr(torch.cuda, "stream", nullcontext)
        monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: self.pin(tensor))
        monkeypatch.setattr(FakeStream, "broken", False)

    def pin(self, tensor: Tensor) -> Tensor:
        self.pinned += 1
        return tensor.clone()

    @contextmanager
    def graph(
        self, graph: FakeGraph, stream: FakeStream, capture_error_mode: str
    ) -> Iterator[None]:
        self.captures += 1
        assert capture_error_mode == "thread_local"
        self.capturing = True
        try:
            with Recorder() as recorder:
                yield
        except RuntimeError:
            raise RuntimeError("CUDA error: capture invalidated") from None
        finally:
            self.capturing = False
        graph.calls = recorder.calls if self.records else []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(monkeypatch)


@pytest.fixture(scope="module")
def program() -> Program:
    return Program(load_model(WEIGHTS)[0]).eval()


@pytest.fixture(scope="module")
def frames(samples: Path) -> list[np.ndarray]:
    """Small frames of one size, with people in them."""
    images = Images(samples)
    names = sorted(path.name for path in samples.glob("*.jpg"))[:4]
    return [cv2.resize(images.read(name), SIZE[::-1]) for name in names]


@pytest.fixture(scope="module")
def expected(frames: list[np.ndarray]) -> list[Raw]:
    """What torch finds on the CPU."""
    runtime = TorchRuntime.open(WEIGHTS, "cpu", 1)
    return [runtime.submit(frame).collect() for frame in frames]


def assert_same(ours: Raw, theirs: Raw) -> None:
    for name, value in vars(theirs).items():
        assert np.array_equal(getattr(ours, name), value), name


def test_a_graph_gives_what_the_program_gives(
    gpu: FakeGpu, program: Program, frames: list[np.ndarray], expected: list[Raw]
) -> None:
    """Each frame is submitted before the one before it is collected, and overwritten at once."""
    on_gpu = CudaProgram(program, CPU, GRAPHS)
    camera = np.empty_like(frames[0])
    pending, found = [], []
    for frame in frames:
        np.copyto(camera, frame)
        pending.append(on_gpu.submit(camera))
        camera[:] = 255
        if len(pending) == 2:
            found.append(pending.pop(0).collect())
    found.append(pending.pop().collect())
    assert (gpu.captures, gpu.pinned) == (1, len(frames))
    assert list(on_gpu._replays) == [SIZE]
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)
    assert any(raw.score.max() > 0.5 for raw in found), "there are people to be mistaken"


class Waits(torch.nn.Module):
    """A program that waits for the GPU, which a capture does not permit."""

    def __init__(self, program: Program, gpu: FakeGpu):
        super().__init__()
        self._program, self._gpu = program, gpu

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        if self._gpu.capturing:
            raise RuntimeError("CUDA error: operation not permitted\nmore")
        found: tuple[Tensor, ...] = self._program(frame)
        return found


@pytest.mark.parametrize(
    ("waits", "why"),
    [
        (True, "operation not permitted"),
        (False, "the graph gives something else than the program"),
    ],
)
def test_without_a_graph_it_runs_and_says_why_once(
    gpu: FakeGpu,
    program: Program,
    frames: list[np.ndarray],
    expected: list[Raw],
    caplog: pytest.LogCaptureFixture,
    waits: bool,
    why: str,
) -> None:
    gpu.records = False
    on_gpu = CudaProgram(Waits(program, gpu) if waits else program, CPU, GRAPHS)
    for frame, theirs in zip(frames, expected, strict=True):
        assert_same(on_gpu.submit(frame).collect(), theirs)
    on_gpu.submit(frames[0][:, :64].copy()).collect()  # of another size
    assert gpu.captures == 1
    (record,) = caplog.records
    assert "frames of 128x64 cannot be captured" in record.message and why in record.message
    assert "more" not in record.message


def test_few_sizes_get_a_graph(gpu: FakeGpu, program: Program) -> None:
    on_gpu = CudaProgram(program, CPU, 1)
    for size in ((64, 64), (64, 96), (64, 64)):
        on_gpu.submit(np.zeros((*size, 3), np.uint8)).collect()
    assert gpu.captures == 1 and list(on_gpu._replays) == [(64, 64)]
    on_gpu.close()
    assert not on_gpu._replays


def test_a_frame_that_fails_leaves_the_next_alone(
    gpu: FakeGpu,
    program: Program,
    frames: list[np.ndarray],
    expected: list[Raw],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_gpu = CudaProgram(program, CPU, 0)
    first, second = on_gpu.submit(frames[0]), on_gpu.submit(frames[1])
    with monkeypatch.context() as patch:
        patch.setattr(FakeStream, "broken", True)
        with pytest.raises(RuntimeError, match="launch failure"):
            first.collect()
    assert_same(second.collect(), expected[1])


class Copies(TorchDispatchMode):
    """Counts tensors that go from the host to a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = func(*args, **(kwargs or {}))
        from_host = any(each.device.type == "cpu" for each in tensors(args))
        self.count += from_host and any(each.device.type != "cpu" for each in tensors(given))
        return given


@pytest.mark.all
def test_what_is_captured_copies_nothing_from_the_host() -> None:
    """On torch's device without memory, which tells the host from another device."""
    device = torch.device("meta")
    program = Program(load_model(WEIGHTS)[0]).eval().to(device)
    frame = torch.zeros((*SIZE, 3), dtype=torch.uint8, device=device)
    constants = Constants(device)
    counts = []
    with torch.inference_mode():
        for _ in range(2):
            with Copies() as copies, constants:
                program(frame)
            counts.append(copies.count)
    assert counts[0] > 0 and counts[1] == 0
