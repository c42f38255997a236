"""What only an NVIDIA GPU can show.

`make gpu` runs each test in a process of its own and without conftest.py: on a robot there may be
no torch.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from kdc_core import Predictor
from kdc_core.data.images import Images
from kdc_core.inference.compare import compare
from kdc_core.inference.engine.cache import Cache
from kdc_core.inference.engine.driver import find_gpu
from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.manifest import Precision
from kdc_core.inference.runtimes.protocol import UnusableRuntime
from kdc_core.inference.runtimes.torch import TorchRuntime
from kdc_core.inference.selftest import BOUNDS

SAMPLES = Path(str(files("kdc_core"))) / "samples"
NAMES = sorted(path.name for path in SAMPLES.glob("*.jpg"))
VGA = ("000000409475.jpg", "000000448076.jpg")  # of one size, with other people
TENSORRT = ("tensorrt", "tensorrt-rtx")
RUNTIMES = (*TENSORRT, "onnxruntime-cuda", "onnxruntime-tensorrt", "torch")
GROWTH = 0.05  # of GPU memory, over 1000 frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of engines."""
    tmp_path.chmod(0o700)
    return tmp_path


def open_on_gpu(
    runtime: str, precision: Precision = "fp32", engines: Cache | None = None
) -> Predictor:
    """The shipped model on the GPU; without one, or without the runtime, the test is skipped."""
    try:
        find_gpu()
        return Predictor.from_pretrained(
            "kdc_light", runtime, "cuda", precision=precision, engines=engines
        )
    except (EngineError, UnusableRuntime) as error:
        pytest.skip(str(error))


def image(name: str = NAMES[0]) -> np.ndarray:
    return Images(SAMPLES).read(name)


def assert_as_on_the_cpu(on_gpu: Predictor, precision: Precision) -> None:
    """The people of every sample image are those that ONNX Runtime finds on the CPU."""
    on_cpu = Predictor.from_pretrained("kdc_light", "onnxruntime", "cpu")
    bound = BOUNDS[precision]
    assert len(NAMES) == 8
    for name in NAMES:
        difference = compare(on_cpu(image(name)), on_gpu(image(name)), 0.3)
        assert not difference.missed and not difference.extra, name
        assert difference.keypoint_px <= bound.keypoint_px, name
        assert difference.mask_iou >= bound.mask_iou, name


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_runtimes_find_whom_onnxruntime_finds_on_the_cpu(runtime: str, folder: Path) -> None:
    assert_as_on_the_cpu(open_on_gpu(runtime, engines=Cache(folder)), "fp32")


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_two_images_under_way_keep_their_own_people(runtime: str, folder: Path) -> None:
    on_gpu = open_on_gpu(runtime, engines=Cache(folder))
    images = [image(name) for name in VGA]
    alone = [on_gpu(each) for each in images]
    pending = on_gpu.submit(images[0])
    for number in range(1, 100):
        before, pending = pending, on_gpu.submit(images[number % 2])
        difference = compare(alone[(number - 1) % 2], before.collect(), 0.3)
        assert difference.people > 0 and not difference.missed and not difference.extra, number
        assert difference.keypoint_px <= BOUNDS["fp32"].keypoint_px, number
    pending.collect()


@pytest.mark.gpu
def test_torch_replays_a_graph_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """That it gives what the program gives was checked before it was taken."""
    on_gpu = open_on_gpu("torch")
    on_gpu(image(VGA[0]))
    assert "cannot be captured" not in caplog.text
    assert isinstance(on_gpu.runtime, TorchRuntime) and on_gpu.runtime._on_cuda is not None
    size = on_gpu.letterbox((480, 640)).size
    assert size in on_gpu.runtime._on_cuda._replays


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", TENSORRT)
def test_engines_of_fp16_find_them_too(runtime: str, folder: Path) -> None:
    assert_as_on_the_cpu(open_on_gpu(runtime, "fp16", Cache(folder)), "fp16")


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", TENSORRT)
def test_an_engine_built_once_is_served_from_then_on(runtime: str, folder: Path) -> None:
    first = open_on_gpu(runtime, engines=Cache(folder))
    expected = first(image())
    first.close()
    built = {path.name for path in folder.glob("*.engine")}
    assert len(built) == 1
    again = open_on_gpu(runtime, engines=Cache(folder, policy="prebuilt"))
    assert not compare(expected, again(image()), 0.3).missed
    assert {path.name for path in folder.glob("*.engine*")} == built, "none was refused"


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", TENSORRT)
def test_an_engine_runs_in_another_thread_and_its_memory_does_not_grow(
    runtime: str, folder: Path
) -> None:
    """The node configures in one thread and runs frames in another."""
    on_gpu = open_on_gpu(runtime, engines=Cache(folder))
    from kdc_core.inference.engine.cuda import free_mib

    frame, found, free = image(), list[int](), list[int]()
    expected = len(on_gpu(frame))

    def work() -> None:
        for number in range(1000):
            found.append(len(on_gpu(frame)))
            if number in (99, 999):
                free.append(free_mib())

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert found == [expected] * 1000
    settled, last = free
    assert settled - last <= GROWTH * settled
