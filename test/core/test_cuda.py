"""Running an engine: order, memory and graphs, against a stand-in for CUDA and TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest

pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python, in the extra [cuda]")

from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.inference.assembly import Raw
from kdc_core.inference.engine import cuda
from kdc_core.inference.engine import session as session_module
from kdc_core.inference.engine.driver import Gpu
from kdc_core.inference.engine.key import Target
from kdc_core.inference.engine.library import Library
from kdc_core.inference.engine.messages import BrokenEngine, EngineError
from kdc_core.inference.engine.session import EngineSession
from kdc_core.inference.model_files import find_model
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes import tensorrt
from kdc_core.inference.runtimes.choice import choose_runtime
from kdc_core.inference.runtimes.onnxruntime import Session
from kdc_core.inference.runtimes.protocol import Runtime, UnusableRuntime
from kdc_core.inference.runtimes.tensorrt import TensorRtRuntime

from .fake_cuda import FULL_TENSORRT, FakeCuda, FakeEngine

SIZE = (192, 256)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("kdc_light", "onnxruntime")


@pytest.fixture(scope="module")
def frames(samples: Path) -> list[np.ndarray]:
    """Four sample images as frames of one size."""
    store = Images(samples)
    images = read_annotations(samples / "annotations.json").images[4:]
    return [cv2.resize(store.read(image.file_name), SIZE[::-1]) for image in images]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return use(FakeCuda(), monkeypatch)


def use(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    monkeypatch.setattr(cuda, "cudart", fake)
    monkeypatch.setattr(session_module, "cudart", fake)
    return fake


def engine(device: FakeCuda, predictor: Predictor) -> FakeEngine:
    return FakeEngine(device, Session(str(find_model("kdc_light", (".onnx",))), 2).raw, SIZE)


def assert_same(ours: Raw, theirs: Raw) -> None:
    for name, value in vars(theirs).items():
        assert np.array_equal(getattr(ours, name), value), name


def find(predictor: Predictor, frame: np.ndarray) -> Raw:
    """What ONNX Runtime finds."""
    return predictor.runtime.submit(frame).collect()


def test_frames_under_way_do_not_touch_each_other(
    device: FakeCuda, predictor: Predictor, frames: list[np.ndarray]
) -> None:
    """Each is submitted before the one before it is collected, and overwritten at once."""
    session = EngineSession(FULL_TENSORRT, engine(device, predictor), "an engine")
    camera = np.empty_like(frames[0])
    pending, found = [], []
    for frame in frames:
        np.copyto(camera, frame)
        pending.append(session.submit(camera))
        camera[:] = 255
        if len(pending) == 2:
            found.append(pending.pop(0).collect())
    found.append(pending.pop().collect())
    for frame, raw in zip(frames, found, strict=True):
        assert_same(raw, find(predictor, frame))
    assert any(raw.score.max() > 0.5 for raw in found), "there are people to be mistaken"


def test_a_third_frame_under_way_is_refused(
    device: FakeCuda, predictor: Predictor, frames: list[np.ndarray]
) -> None:
    session = EngineSession(FULL_TENSORRT, engine(device, predictor), "an engine")
    first = session.submit(frames[0])
    session.submit(frames[1])
    with pytest.raises(cuda.CudaError, match="2 frames are under way"):
        session.submit(frames[2])
    assert_same(first.collect(), find(predictor, frames[0]))


def test_a_frame_that_fails_leaves_room_for_the_next(
    device: FakeCuda, predictor: Predictor, frames: list[np.ndarray]
) -> None:
    session = EngineSession(FULL_TENSORRT, fake := engine(device, predictor), "an engine")
    before = session.submit(frames[0])
    graph, session._graph, fake.runs = session._graph, None, False
    with pytest.raises(cuda.CudaError, match="refused to run"):
        session.submit(frames[1])
    session._graph, fake.runs = graph, True
    after = session.submit(frames[2])
    device.broken = True
    with pytest.raises(cuda.CudaError, match="running the engine failed"):
        before.collect()
    device.broken = False
    assert_same(after.collect(), find(predictor, frames[2]))
    for frame in frames:
        assert_same(session.submit(frame).collect(), find(predictor, frame))


def test_a_frame_collected_after_the_engine_was_closed_is_an_error(
    device: FakeCuda, predictor: Predictor, frames: list[np.ndarray]
) -> None:
    session = EngineSession(FULL_TENSORRT, engine(device, predictor), "an engine")
    pending = [session.submit(frame) for frame in frames[:2]]
    session.close()
    assert not (device.memory or device.graphs or device.streams or device.events)
    for each in pending:
        with pytest.raises(cuda.CudaError, match="closed before this frame was collected"):
            each.collect()


def test_everything_on_the_device_is_given_back(device: FakeCuda, predictor: Predictor) -> None:
    session = EngineSession(FULL_TENSORRT, engine(device, predictor), "an engine")
    assert device.memory and device.graphs
    session.close()
    assert not (device.memory or device.graphs or device.streams or device.events)


def test_without_a_graph_it_runs_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    predictor: Predictor,
    frames: list[np.ndarray],
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = use(FakeCuda(can_capture=False), monkeypatch)
    session = EngineSession(FULL_TENSORRT, engine(device, predictor), "an engine")
    for frame in frames[:2]:
        assert_same(session.submit(frame).collect(), find(predictor, frame))
    assert caplog.text.count("cannot be replayed as a CUDA graph") == 1


def test_an_engine_that_refuses_to_run_is_an_error(
    device: FakeCuda, predictor: Predictor, frames: list[np.ndarray]
) -> None:
    session = EngineSession(FULL_TENSORRT, fake := engine(device, predictor), "an engine")
    session._graph, fake.runs = None, False
    with pytest.raises(cuda.CudaError, match="refused to run"):
        session.submit(frames[0])


def test_a_capture_that_records_nothing_is_no_graph(device: FakeCuda) -> None:
    stream = cuda.make_stream()
    assert cuda.capture(stream, lambda: False) is None
    assert cuda.capture(stream, lambda: True) is not None


def test_an_engine_of_something_else_is_refused(device: FakeCuda, predictor: Predictor) -> None:
    other = engine(device, predictor)
    other.names = other.names[:-1]
    with pytest.raises(BrokenEngine, match="expected the input 'frame' and the outputs"):
        EngineSession(FULL_TENSORRT, other, "an engine")


def test_too_little_memory_is_told_with_what_is_free(
    monkeypatch: pytest.MonkeyPatch, predictor: Predictor
) -> None:
    device = use(FakeCuda(free_mib=0), monkeypatch)
    with pytest.raises(cuda.CudaError, match="out of GPU memory: allocating .* with 0 MiB free"):
        EngineSession(FULL_TENSORRT, engine(device, predictor), "an engine")


def test_a_session_short_of_memory_gives_back_what_it_had(
    device: FakeCuda, predictor: Predictor
) -> None:
    loaded = engine(device, predictor)
    session = EngineSession(FULL_TENSORRT, loaded, "an engine")
    needed = sum(memory.size for memory in device.memory.values())
    session.close()
    for fraction in (0.01, 0.2, 0.5, 0.9, 0.999):
        device.free = int(needed * fraction)
        with pytest.raises(cuda.CudaError, match="out of GPU memory"):
            EngineSession(FULL_TENSORRT, loaded, "an engine")
        assert not (device.memory or device.streams or device.events), fraction
        assert device.free == int(needed * fraction)


GPU = Gpu(0, "a GPU", "8.9", 8 << 30)


class FakeTensorRt:
    """What opens engines: of the shipped program, for frames of SIZE.

    Attributes:
        loads: sizes for which an engine was asked for.
        spoiled: engines whose keypoints lie elsewhere.
        says: what is said of an engine instead of loading it.
    """

    def __init__(self, device: FakeCuda, monkeypatch: pytest.MonkeyPatch):
        self.device, self.loads, self.spoiled = device, list[tuple[int, int]](), False
        self.says, self.said = "", list[str]()
        module = SimpleNamespace(nptype=lambda dtype: dtype, Runtime=lambda logger: self)
        library = Library("tensorrt", cast(ModuleType, module), "10.99")
        monkeypatch.setattr(tensorrt, "check_installed", lambda family: None)
        monkeypatch.setattr(tensorrt, "find_library", lambda family: library)
        monkeypatch.setattr(tensorrt, "make_logger", self.make_logger)
        monkeypatch.setattr(tensorrt, "get_engine", self.get_engine)
        monkeypatch.setattr(Target, "at_hand", lambda index: Target("8.9", GPU))

    def make_logger(self, module: object, said: list[str]) -> None:
        self.said = said

    def get_engine(self, path: Path, size: tuple[int, int], *others: object) -> None:
        """As of the cache: what its check refuses is refused for good."""
        check = cast(Callable[[object, bytes], None], others[-1])
        self.loads.append(size)
        if size != SIZE:
            raise EngineError(f"no engine for frames of {size}")
        try:
            check(SimpleNamespace(path="an engine"), b"plan")
        except BrokenEngine as error:
            raise EngineError(f"the engine just built is refused: {error}") from error

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        if self.says:
            self.said.append(self.says)
            return None
        engine = FakeEngine(
            self.device, Session(str(find_model("kdc_light", (".onnx",))), 2).raw, SIZE
        )
        engine.shift_px = 20.0 if self.spoiled else 0.0
        return engine


@pytest.fixture
def fake(device: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    return FakeTensorRt(device, monkeypatch)


PROGRAM = find_model("kdc_light", (".onnx",))


def test_an_engine_is_opened_with_the_first_frame_of_its_size(
    fake: FakeTensorRt, predictor: Predictor, frames: list[np.ndarray]
) -> None:
    runtime = TensorRtRuntime(PROGRAM, "tensorrt")
    assert fake.loads == []
    for frame in frames[:2]:
        assert_same(runtime.submit(frame).collect(), find(predictor, frame))
    assert fake.loads == [SIZE]
    assert runtime.describe()["device"] == "a GPU"
    runtime.close()
    assert not fake.device.memory


def test_frames_without_an_engine_go_to_the_next_runtime_and_that_is_said_once(
    fake: FakeTensorRt, predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    other = np.zeros((256, 320, 3), np.uint8)
    opened: list[Runtime] = []

    def otherwise() -> Runtime:
        opened.append(predictor.runtime)
        return predictor.runtime

    runtime = TensorRtRuntime(PROGRAM, "tensorrt", otherwise=otherwise)
    for _ in range(2):
        assert_same(runtime.submit(other).collect(), find(predictor, other))
    third = np.zeros((288, 320, 3), np.uint8)
    assert_same(runtime.submit(third).collect(), find(predictor, third))
    assert caplog.text.count("frames of 320x256 go to onnxruntime") == 1
    assert len(opened) == 1, "one for all sizes"
    alone = TensorRtRuntime(PROGRAM, "tensorrt")
    with pytest.raises(UnusableRuntime, match="no engine for frames"):
        alone.submit(other).collect()
    with pytest.raises(UnusableRuntime, match="no engine for frames"):
        TensorRtRuntime(PROGRAM, "tensorrt", size=(256, 320))


def test_auto_hands_frames_without_an_engine_to_the_next_runtime(
    fake: FakeTensorRt, predictor: Predictor
) -> None:
    frame = np.zeros((256, 320, 3), np.uint8)
    runtime = choose_runtime("kdc_light").runtime
    assert runtime.name == "tensorrt"
    assert_same(runtime.submit(frame).collect(), find(predictor, frame))
    runtime.close()


def test_frames_of_an_engine_and_of_the_next_runtime_are_under_way_together(
    fake: FakeTensorRt, predictor: Predictor, frames: list[np.ndarray]
) -> None:
    runtime = TensorRtRuntime(PROGRAM, "tensorrt", otherwise=lambda: predictor.runtime)
    runtime.submit(frames[0]).collect()
    without = np.zeros((256, 320, 3), np.uint8)
    for one, two in ((frames[0], without), (without, frames[1]), (frames[2], frames[3])):
        first, second = runtime.submit(one), runtime.submit(two)
        assert_same(first.collect(), find(predictor, one))
        assert_same(second.collect(), find(predictor, two))


def test_an_engine_that_puts_keypoints_elsewhere_is_refused(fake: FakeTensorRt) -> None:
    fake.spoiled = True
    with pytest.raises(UnusableRuntime, match="does not find the people it should"):
        TensorRtRuntime(PROGRAM, "tensorrt", size=SIZE)
    assert not fake.device.memory, "and leaves nothing on the GPU"


@pytest.mark.parametrize(
    ("says", "text"),
    [
        ("Cuda Runtime (out of memory)", "^out of GPU memory while loading: 4096 MiB free"),
        ("magicTag does not match", "refused: not a TensorRT engine"),
        ("generated on an incompatible device", "refused: engine made for another GPU"),
        ("Version tag does not match", "refused: engine made by another version than the"),
        ("something else", "refused: the engine 'an engine' could not be loaded: something else"),
    ],
)
def test_an_engine_that_cannot_be_loaded_is_refused_unless_memory_is_short(
    fake: FakeTensorRt, says: str, text: str
) -> None:
    fake.says = says
    with pytest.raises(UnusableRuntime, match=text):
        TensorRtRuntime(PROGRAM, "tensorrt", size=SIZE)


NO_MEMORY = "Error Code 1: Cuda Runtime (out of memory)"


def test_too_little_memory_for_a_context_is_told_and_the_engine_kept(
    fake: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FakeEngine, "create_execution_context", lambda self: fake.said.append(NO_MEMORY)
    )
    with pytest.raises(UnusableRuntime, match="^out of GPU memory while loading: .* smaller inp"):
        TensorRtRuntime(PROGRAM, "tensorrt", size=SIZE)
    monkeypatch.setattr(FakeEngine, "create_execution_context", lambda self: None)
    with pytest.raises(UnusableRuntime, match="^'an engine': no execution context could be made"):
        TensorRtRuntime(PROGRAM, "tensorrt", size=SIZE)


@pytest.mark.parametrize(
    ("says", "text"),
    [
        (NO_MEMORY, "^out of GPU memory while running: 409[0-9] MiB free: close other programs"),
        ("unheard of", "^the engine refused to run: unheard of"),
        ("", "^the engine refused to run$"),
    ],
)
def test_a_frame_that_cannot_be_run_says_why_and_the_next_one_runs(
    fake: FakeTensorRt,
    predictor: Predictor,
    frames: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    text: str,
) -> None:
    fake.device.can_capture = False
    runtime = TensorRtRuntime(PROGRAM, "tensorrt", size=SIZE)
    fake.said.append("of another frame")

    def refuse(self: FakeEngine, stream: int) -> bool:
        fake.said.extend([says] * bool(says))
        return False

    with monkeypatch.context() as broken:
        broken.setattr(FakeEngine, "execute_async_v3", refuse)
        with pytest.raises(cuda.CudaError, match=text):
            runtime.submit(frames[0])
    assert_same(runtime.submit(frames[0]).collect(), find(predictor, frames[0]))
