"""Stand-ins for NVIDIA's modules, a trusted folder, and a program to build from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from onnx import helper

from kdc_core.inference.engine.cache import Cache, EngineFile, get_engine
from kdc_core.inference.engine.driver import Gpu
from kdc_core.inference.engine.key import Key, Target
from kdc_core.inference.engine.library import find_library
from kdc_core.inference.engine.program import ProgramFile, open_program
from kdc_core.inference.engine.shapes import Shapes
from kdc_core.inference.manifest import KEY, read_manifest

FAKE = Path(__file__).parent / "fake"
MODULES = ("scripted", "tensorrt", "tensorrt_rtx", "cuda", "cuda.bindings", "cuda.bindings.driver")
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106", "rtx 1.7.1.116")
SHIPPED = Path(str(files("kdc_core"))) / "models" / "kdc_light.onnx"
ADA = Gpu(0, "NVIDIA RTX 4000 Ada", "8.9", 20 << 30)
FIXED = Shapes.fixed((448, 576))

# Takes away what stands for NVIDIA's modules, and puts in what follows these scripts.
Play = Callable[..., ModuleType]
EngineOf = Callable[..., EngineFile]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play a TensorRT and a driver by script, in this process and in those it starts."""
    monkeypatch.syspath_prepend(str(FAKE))

    def begin(cuda: dict[str, Any] | None = None, **script: Any) -> ModuleType:
        gpus = [[ADA.name, 8, 9, ADA.memory]]
        given = {"gpus": gpus, "free": 16 << 30} | (cuda or {})
        monkeypatch.setenv("FAKE_CUDA", json.dumps(given))
        monkeypatch.setenv("FAKE_TRT", json.dumps({"version": "10.3.0"} | script))
        for name in MODULES:
            # Set before it is taken away: what stood here comes back after the test.
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
            del sys.modules[name]
        return import_module("scripted")

    return begin


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "engines"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of ours that is a manifest and nothing else."""
    return write_program(tmp_path_factory.mktemp("program") / "small.onnx")


@pytest.fixture
def program(small: Path) -> ProgramFile:
    return open_program(small)


@pytest.fixture
def engine_of(small: Path, folder: Path) -> EngineOf:
    """Gets its engine, in `folder` unless told otherwise, for the GPU that is played."""

    def get(size: Shapes | tuple[int, int] = FIXED, **cache: Any) -> EngineFile:
        return get_engine(small, size, cache=Cache(**{"folder": folder} | cache))

    return get


def write_program(path: Path, **manifest: Any) -> Path:
    """Write a program without a network.

    Args:
        path: its file.
        manifest: what it says of itself, where that differs from the shipped one.
    """
    shipped = read_manifest(SHIPPED).model_dump(mode="json") | manifest
    graph = helper.make_graph([], "none", [], [])
    model = helper.make_model(graph)
    model.metadata_props.add(key=KEY, value=json.dumps(shipped))
    path.write_bytes(model.SerializeToString())
    return path


def wanted(program: ProgramFile, shapes: Shapes = FIXED, gpu: Gpu = ADA) -> Key:
    """The key of an engine for a GPU."""
    return Key.of(program, shapes, Target(gpu.capability, gpu), find_library())
