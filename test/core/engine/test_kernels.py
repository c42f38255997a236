"""Kernels that TensorRT-RTX compiled, kept beside an engine."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kdc_core.inference.engine.cache import set_aside
from kdc_core.inference.engine.entries import clean
from kdc_core.inference.engine.kernels import Kernels

DRIVER = "CUDA 13.0, kernel module 580.1"


class RuntimeCache:
    """Stands for RTX's: it takes back what it gave, and nothing else."""

    def __init__(self) -> None:
        self.kernels: list[str] = []

    def deserialize(self, blob: bytes) -> bool:
        if blob.startswith(b"kernels "):
            self.kernels += blob.decode().split()[1:]
        return blob.startswith(b"kernels ")

    def serialize(self) -> bytes:
        return " ".join(["kernels", *self.kernels]).encode()


class Config:
    """Stands for RTX's runtime configuration."""

    cuda_graph_strategy: object = None
    cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


Run = Callable[..., int]


@pytest.fixture
def engine(folder: Path) -> Path:
    return folder / f"{'e' * 64}.engine"


@pytest.fixture
def run(engine: Path) -> Run:
    """Runs the engine, which needs two kernels; how many were compiled for it."""

    def start(driver: str = DRIVER) -> int:
        kernels, config = Kernels(engine, driver), Config()
        kernels.give_to(config)
        assert config.cache is not None
        compiled = [name for name in ("conv", "resize") if name not in config.cache.kernels]
        config.cache.kernels += compiled
        kernels.keep()
        return len(compiled)

    return start


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kernels"))


def test_kernels_are_compiled_once_for_each_driver(run: Run, folder: Path) -> None:
    assert run() == 2 and run() == 0
    (file,) = kept(folder)
    before = file.stat().st_mtime_ns
    assert run() == 0 and file.stat().st_mtime_ns == before, "nothing new, nothing written"
    assert file.stat().st_mode & 0o777 == 0o644 and len(list(folder.iterdir())) == 1
    assert run("another driver") == 2 and run("another driver") == 0 and run() == 0
    assert len(kept(folder)) == 2


CHANGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "one bit": (lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:], "content was changed"),
    "truncated": (lambda d: d[:-1], "content was changed"),
    "the checksum": (lambda d: b"\0" + d[1:], "content was changed"),
    "empty": (lambda d: b"", "content was changed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_kernels_are_set_aside_and_compiled_anew(
    run: Run, folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    edit, text = CHANGES[name]
    run()
    (file,) = kept(folder)
    file.write_bytes(edit(file.read_bytes()))
    assert run() == 2 and text in caplog.text
    assert file.with_name(f"{file.name}.bad").exists()
    assert run() == 0


def test_kernels_that_rtx_refuses_are_set_aside(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    with monkeypatch.context() as other:
        other.setattr(RuntimeCache, "deserialize", lambda self, blob: False)
        assert run() == 2
    assert "TensorRT-RTX does not take them" in caplog.text
    assert list(folder.glob("*.bad")) and run() == 0


def test_kernels_that_others_may_write_to_are_not_run(
    run: Run, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    (file,) = kept(folder)
    file.chmod(0o666)
    assert run() == 2 and "others may write to" in caplog.text
    assert file.stat().st_mode & 0o777 == 0o644, "and written anew"


def test_a_folder_that_cannot_be_written_to_costs_time_alone(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*others: object, **settings: object) -> None:
        raise OSError(30, "Read-only file system")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert run() == 2 and run() == 2
    assert "not kept, and compiled again next time: cannot write to" in caplog.text


def test_kernels_go_with_their_engine(run: Run, engine: Path, folder: Path) -> None:
    run()
    set_aside(folder, engine.stem)
    assert run() == 2, "those of an engine that was refused may be why"
    engine.write_bytes(b"")
    removed, _ = clean(folder)
    assert {path.suffix for path in removed} == {".engine", ".kernels", ".bad"}
    assert not list(folder.iterdir())


def test_rtx_has_the_names_that_are_used() -> None:
    table = json.loads((Path(__file__).parent / "trt_names.json").read_text(encoding="utf-8"))
    names = table["rtx 1.7.1.116"]
    assert {"create_runtime_cache", "set_runtime_cache"} <= set(names["IRuntimeConfig"])
    assert {"deserialize", "serialize"} <= set(names["IRuntimeCache"])
    assert "create_runtime_config" in names["ICudaEngine"]
    assert "WHOLE_GRAPH_CAPTURE" in names["CudaGraphStrategy"]


def test_a_session_begins_with_the_kernels_kept(
    engine: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python, in the extra [cuda]")
    from core.fake_cuda import FakeCuda, FakeEngine
    from kdc_core.inference.engine import cuda, session
    from kdc_core.inference.model_files import find_model
    from kdc_core.inference.runtimes.onnxruntime import Session

    class RtxEngine(FakeEngine):
        def create_runtime_config(self) -> Config:
            return config

        def create_execution_context(self, *given: Any) -> FakeEngine:
            assert given == (config,)
            return self

    run()
    device, config = FakeCuda(), Config()
    monkeypatch.setattr(cuda, "cudart", device)
    monkeypatch.setattr(session, "cudart", device)
    strategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    rtx = SimpleNamespace(
        nptype=lambda dtype: dtype, CudaGraphStrategy=strategy, IRuntimeConfig=Config
    )
    program = Session(str(find_model("kdc_light", (".onnx",))), 1).raw
    loaded = RtxEngine(device, program, (64, 64))
    opened = session.EngineSession(rtx, loaded, "an engine", Kernels(engine, DRIVER))
    assert config.cache is not None and config.cache.kernels == ["conv", "resize"]
    assert config.cuda_graph_strategy == "whole" and not device.graphs
    opened.submit(np.zeros((64, 64, 3), np.uint8)).collect()
    opened.close()
