"""A Predictor in programs: several threads, processes forked off, the end of a program."""

from __future__ import annotations

import multiprocessing
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdc_core.codec.results import Prediction
from kdc_core.data.images import Images
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.protocol import UnusableRuntime

LAST_LINE_OF_A_SCRIPT = """
import threading
import numpy as np
from kdc_core import Predictor

predictor = Predictor.from_pretrained("kdc_light", "onnxruntime", threads=1)
image = np.zeros((64, 64, 3), np.uint8)
begun = threading.Event()

def work():
    begun.wait()
    threading.main_thread().join()
    print([len(predictor(image)) for _ in range(3)])

threading.Thread(target=work).start()
begun.set()
"""


@pytest.fixture(scope="module")
def images(samples: Path) -> list[np.ndarray]:
    store = Images(samples)
    return [store.read(path.name) for path in sorted(samples.glob("*.jpg"))]


@pytest.fixture
def predictor() -> Iterator[Predictor]:
    with Predictor.from_pretrained("kdc_light", "onnxruntime", threads=1) as opened:
        yield opened


def scores(prediction: Prediction) -> list[float]:
    return [person.score for person in prediction.persons]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_threads_that_share_one_get_the_people_of_their_own_images(
    runtime: str, images: list[np.ndarray]
) -> None:
    pytest.importorskip(runtime)
    with Predictor.from_pretrained("kdc_light", runtime, threads=1) as shared:
        alone = [scores(shared(image)) for image in images]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda n: scores(shared(images[n % len(images)])), range(32)))
    assert sum(map(bool, alone)) >= 6
    assert found == [alone[n % len(images)] for n in range(32)]


def _outcome(predictor: Predictor, image: np.ndarray, results: Any) -> None:
    try:
        results.put(f"found {len(predictor(image))}")
    except UnusableRuntime as error:
        results.put(str(error))


def told_in_a_fork(predictor: Predictor, image: np.ndarray) -> str:
    """What a process that is forked off now is told when it calls the predictor."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_outcome, args=(predictor, image, results))
    process.start()
    try:
        told: str = results.get(timeout=60)
        return told
    finally:
        process.kill()
        process.join()


def test_a_process_that_is_forked_off_is_told_to_open_its_own(
    predictor: Predictor, images: list[np.ndarray]
) -> None:
    assert "forked off" in told_in_a_fork(predictor, images[0])


def test_a_process_forked_off_during_a_call_is_told_so_too(
    predictor: Predictor, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that holds the lock is not there."""
    inside, leave = threading.Event(), threading.Event()

    def wait(*_: object) -> Prediction:
        inside.set()
        leave.wait()
        raise UnusableRuntime("not a frame")

    monkeypatch.setattr(predictor, "submit", wait)
    caller = threading.Thread(target=_outcome, args=(predictor, images[0], queue.Queue()))
    caller.start()
    assert inside.wait(10)
    try:
        assert "forked off" in told_in_a_fork(predictor, images[0])
    finally:
        leave.set()
        caller.join()


def test_thresholds_may_be_given_with_an_image(
    predictor: Predictor, images: list[np.ndarray]
) -> None:
    before = predictor.thresholds
    assert not predictor(images[0], Thresholds(1.0, 0.3, 0.5)).persons
    assert predictor(images[0]).persons and predictor.thresholds == before


def test_a_thread_goes_on_after_the_main_thread_has_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAST_LINE_OF_A_SCRIPT], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout) == (0, "[0, 0, 0]\n"), done.stderr


def test_a_closed_one_says_so(predictor: Predictor, images: list[np.ndarray]) -> None:
    predictor.close()
    predictor.close()
    with pytest.raises(UnusableRuntime, match="this predictor is closed"):
        predictor(images[0])
    with pytest.raises(UnusableRuntime, match="the model is closed"):
        predictor.runtime.submit(np.zeros((64, 64, 3), np.uint8))


def test_one_that_is_forgotten_leaves_no_thread() -> None:
    before = threading.active_count()
    opened = Predictor.from_pretrained("kdc_light", "onnxruntime", threads=1)
    assert threading.active_count() == before + 1
    thread = next(t for t in threading.enumerate() if t.name == "kdc_onnxruntime")
    del opened
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"confidence": 50}, "confidence: expected 0 to 1, got 50"),
        ({"keypoint": float("nan")}, "keypoint: expected 0 to 1, got nan"),
        ({"mask": -1.0}, "mask: expected 0 to 1, got -1.0"),
        ({"confidence": "0.5"}, "confidence: expected 0 to 1, got '0.5'"),
        ({"threads": 1.5}, "threads: expected a whole number from 1, or None, got 1.5"),
        ({"threads": 0}, "threads: expected a whole number from 1, or None, got 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Predictor.from_pretrained("kdc_light", "onnxruntime", **settings)


def test_attributes_that_mean_nothing_are_refused(
    predictor: Predictor, images: list[np.ndarray]
) -> None:
    with pytest.raises(ValueError, match="max_persons: expected 1 or more, got -1"):
        Thresholds(0.5, 0.3, 0.5, max_persons=-1)
    with pytest.raises(ValueError, match="longer_side: expected 1 to 16384, got -5"):
        Predictor(predictor.runtime, longer_side=-5)
    predictor.rotate = 45  # type: ignore[assignment]
    with pytest.raises(ValueError, match="rotate: expected one of .*270.*, got 45"):
        predictor(images[0])
