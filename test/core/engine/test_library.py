"""Which TensorRT is taken, which GPU is found, and whose names our code touches."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from core.engine.conftest import ADA, VERSIONS, EngineOf, Play
from kdc_core.inference.engine import driver
from kdc_core.inference.engine.key import Target
from kdc_core.inference.engine.library import find_library
from kdc_core.inference.engine.messages import EngineError


def test_full_tensorrt_is_taken_before_rtx(play: Play) -> None:
    play(version="10.3.0")
    assert str(find_library()) == "TensorRT 10.3.0"
    play(version="rtx 1.7.1.116")
    library = find_library()
    assert (library.family, library.version) == ("tensorrt-rtx", "1.7.1.116")


def test_too_old_says_so(play: Play) -> None:
    play(version="8.6.1")
    with pytest.raises(EngineError, match=r"TensorRT 8\.6\.1 is too old .*10\.3 or later"):
        find_library("tensorrt")


def test_none_installed_names_both(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play()
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match="TensorRT is not installed.*TensorRT-RTX is not inst"):
        find_library()


def test_libraries_that_do_not_load_are_told_from_absent_ones(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play()
    monkeypatch.syspath_prepend(str(tmp_path))
    for error in ("ImportError", "OSError"):
        text = f"raise {error}('libnvinfer.so.10: no such file')"
        (tmp_path / "tensorrt.py").write_text(text)
        importlib.invalidate_caches()
        with pytest.raises(EngineError, match=r"is there but does not load: libnvinfer\.so\.10"):
            find_library("tensorrt")


def test_only_rtx_names_targets_and_only_some(play: Play) -> None:
    play(version="10.3.0")
    with pytest.raises(EngineError, match="builds for the GPU at hand only"):
        find_library("tensorrt", target="8.9")
    play(version="rtx 1.7.1.116")
    assert find_library(target="8.9").targets == {"8.6": "SM86", "8.9": "SM89", "12.0": "SM120"}
    with pytest.raises(EngineError, match=r"cannot target compute capability 9\.0, only 8\.6"):
        find_library(target="9.0")


def test_rtx_refuses_a_gpu_it_cannot_target(play: Play, folder: Path, engine_of: EngineOf) -> None:
    play(version="rtx 1.7.1.116", cuda={"gpus": [["Orin", 8, 7, 8 << 30]]})
    with pytest.raises(EngineError, match=r"cannot target .* 8\.7, .*; install TensorRT$"):
        engine_of()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("capability", ["89", "sm_89", "8.99", ""])
def test_a_target_is_a_compute_capability(capability: str) -> None:
    with pytest.raises(EngineError, match="expected a compute capability such as 8.9"):
        Target.named(capability)


# The driver


def test_the_gpu_is_named(play: Play) -> None:
    play()
    assert driver.find_gpu() == ADA
    assert driver.describe(Path("/absent")) == "CUDA 12.6"
    assert driver.make_current(ADA) == 16 << 30


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May", "535.183.01"),
        ("NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build", "540.4.0"),
        ("of another kind", "unknown"),
    ],
)
def test_the_kernel_module_is_named_beside_the_driver(
    play: Play, tmp_path: Path, text: str, version: str
) -> None:
    path = tmp_path / "version"
    assert driver.module_version(path) is None
    path.write_text(text)
    play()
    assert driver.describe(path) == f"CUDA 12.6, kernel module {version}"
    play(cuda={"init": 803})
    assert driver.describe(path).endswith(f"MISMATCH), kernel module {version}")


@pytest.mark.parametrize(
    ("cuda", "text"),
    [
        ({"init": "absent"}, "no usable NVIDIA driver"),
        ({"init": 803}, "no usable NVIDIA driver.*CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ({"init": 100}, "the NVIDIA driver finds no GPU"),
        ({"gpus": []}, "the NVIDIA driver finds no GPU"),
    ],
)
def test_without_a_gpu_the_reason_is_told(play: Play, cuda: dict[str, object], text: str) -> None:
    play(cuda=cuda)
    with pytest.raises(EngineError, match=text):
        driver.find_gpu()


def test_no_gpu_of_this_number(play: Play) -> None:
    play()
    with pytest.raises(EngineError, match="no GPU 1: the driver shows 1"):
        driver.find_gpu(1)


def test_without_cuda_python_it_is_named(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(EngineError, match="cuda-python is not installed"):
        driver.find_gpu()


def test_cuda_python_has_the_names_our_code_touches() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    used = {name for source in SOURCES for name in touched(source).get("cudart", ())}
    assert len(used) > 20
    assert not [name for name in used if not hasattr(runtime, name)]
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    source = Path(driver.__file__).read_text(encoding="utf-8")
    functions = set(re.findall(r'"(cu[A-Z]\w+)"', source))
    assert len(functions) >= 8
    assert not [name for name in functions if not hasattr(real, name)]
    assert {"CUDA_ERROR_NO_DEVICE", "CUDA_SUCCESS"} <= set(real.CUresult.__members__)


# The names of every supported version

CORE = Path(driver.__file__).parents[1]
SOURCES = [CORE / "runtimes" / "tensorrt.py", *sorted(CORE.glob("engine/*.py"))]
# What expressions of a source stand for: classes of TensorRT; "" is the module itself.
STANDS_FOR = {
    "worker.py": {
        "trt": "",
        "builder": "Builder",
        "config": "IBuilderConfig",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "fault": "ParserError",
        "profile": "IOptimizationProfile",
        "frame": "ITensor",
        "flags": "NetworkDefinitionCreationFlag",
        "trt.ILogger": "ILogger",
        "trt.MemoryPoolType": "MemoryPoolType",
    },
    "timing.py": {"config": "IBuilderConfig", "cache": "ITimingCache"},
    "kernels.py": {
        "config": "IRuntimeConfig",
        "cache": "IRuntimeCache",
        "self._cache": "IRuntimeCache",
    },
    "session.py": {
        "trt": "",
        "trt.CudaGraphStrategy": "CudaGraphStrategy",
        "engine": "ICudaEngine",
        "config": "IRuntimeConfig",
        "self._context": "IExecutionContext",
    },
    "tensorrt.py": {"self._library.module": "", "self._trt_runtime": "Runtime"},
}
# Names that only some versions have: each stands behind a question for it.
GUARDED = {
    ("", "CudaGraphStrategy"),
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
    ("ICudaEngine", "create_runtime_config"),
}
OF_RTX = {"IRuntimeConfig", "IRuntimeCache", "CudaGraphStrategy"}


def touched(path: Path) -> dict[str, set[str]]:
    """Attributes that a source takes, by the expression it takes them of."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.setdefault(ast.unparse(node.value), set()).add(node.attr)
    return found


def names_of_tensorrt() -> set[tuple[str, str]]:
    """(class, name) of everything of TensorRT's that our sources touch."""
    found = set()
    for path in SOURCES:
        names = touched(path)
        for words, owner in STANDS_FOR.get(path.name, {}).items():
            assert words in names, f"{path.name} has no expression {words}"
            found |= {(owner, name) for name in names[words] if not name.startswith("__")}
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_supported_version_has_the_names_our_sources_touch(version: str) -> None:
    table = json.loads((Path(__file__).parent / "trt_names.json").read_text(encoding="utf-8"))
    names = names_of_tensorrt()
    assert {
        ("Builder", "build_serialized_network"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "get_tensor_shape"),
        ("IExecutionContext", "execute_async_v3"),
        ("IRuntimeCache", "serialize"),
        ("ITimingCache", "combine"),
        ("", "nptype"),
    } <= names
    rtx = version.startswith("rtx")
    wanted = {n for n in names if rtx or (n not in GUARDED and n[0] not in OF_RTX)}
    assert not {(o, n) for o, n in wanted if n not in table[version].get(o, ())}


def test_what_stands_for_tensorrt_has_no_name_of_its_own(play: Play) -> None:
    scripted = play(version="rtx 1.7.1.116")
    table = json.loads((Path(__file__).parent / "trt_names.json").read_text(encoding="utf-8"))
    assert set(table) == {"8.6.1", *VERSIONS}
    for name, value in vars(scripted).items():
        if not isinstance(value, type) or value.__module__ != "scripted" or name == "Strict":
            continue
        known = {own for version in VERSIONS for own in table[version].get(name, ())}
        assert any(name in table[version][""] for version in VERSIONS), name
        own = {own for own in vars(value) if not own.startswith("_")}
        assert own <= known or not known, f"{name} has {own - known}"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_supported_version_has_the_names_a_build_touches(
    play: Play, engine_of: EngineOf, version: str
) -> None:
    play(version=version)
    engine = engine_of()
    assert engine.built and engine.sidecar.key.version == version.removeprefix("rtx ")
