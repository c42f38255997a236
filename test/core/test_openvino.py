"""OpenVINO's programs, signals, and the file that it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kdc_core.inference.model_files import LARGEST_AP_LOSS
from kdc_core.inference.runtimes.choice import choose_runtime

from .conftest import PROGRAM

SIGNALLED = """
import os, signal, numpy as np
from kdc_core.inference.runtimes import openvino
from kdc_core.inference.runtimes.choice import choose_runtime
runtime = choose_runtime("kdc_light", "openvino", threads=1).runtime
for size in ((448, 576), (576, 448)):
    runtime.submit(np.zeros((*size, 3), np.uint8)).collect()
while runtime._programs:
    del runtime._programs[next(iter(runtime._programs))]
signal.signal(signal.SIGINT, lambda *_: print("taken", flush=True))
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.all
def test_a_signal_after_openvino_freed_its_programs_is_taken() -> None:
    """In any order: it hands the thread that compiled stacks for signals, and takes them back."""
    pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "taken\n"), done.stderr


@pytest.mark.all
def test_openvino_keeps_few_programs_of_one_size() -> None:
    pytest.importorskip("openvino")
    from kdc_core.inference.runtimes.openvino import OWN_PROGRAMS, OpenVinoRuntime

    opened = OpenVinoRuntime(PROGRAM, "cpu", 1)
    sizes = [(64 + 32 * i, 64) for i in range(OWN_PROGRAMS + 1)]
    for size in [*sizes, *sizes]:
        assert opened.submit(np.zeros((*size, 3), np.uint8)).collect().owner.shape == (
            size[0] // 2,
            32,
        )
    assert list(opened._programs) == [*sizes[:OWN_PROGRAMS], None]


@pytest.mark.all
def test_openvino_needs_its_file_no_more_and_tells_what_takes_long(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from kdc_core.inference.runtimes.openvino import OpenVinoRuntime

    told: list[str] = []
    path = tmp_path / "m.onnx"
    path.write_bytes(PROGRAM.read_bytes())
    opened = OpenVinoRuntime(path, "cpu", 1, lambda phase, *_: told.append(phase))
    path.write_bytes(b"cut off")
    for _ in range(2):
        opened.submit(np.zeros((96, 64, 3), np.uint8)).collect()
    assert told == ["OpenVINO's for frames of 96x64"]


def test_openvino_takes_the_shipped_int8_file() -> None:
    pytest.importorskip("openvino")
    runtime = choose_runtime("kdc_light", "openvino", threads=1).runtime
    assert runtime.describe()["precision"] == "int8-cpu"
    loss = runtime.manifest.ap_loss
    assert loss is not None and loss <= LARGEST_AP_LOSS
