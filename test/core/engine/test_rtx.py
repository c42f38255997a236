"""TensorRT-RTX itself parses and builds every shipped program, without a GPU."""

from __future__ import annotations

import gc
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from core.engine.conftest import SHIPPED
from kdc_core.inference.engine import worker
from kdc_core.inference.engine.cache import Cache, get_engine
from kdc_core.inference.engine.entries import list_entries
from kdc_core.inference.engine.job import Job
from kdc_core.inference.engine.key import Key, Target
from kdc_core.inference.engine.library import find_library
from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.engine.program import ProgramFile
from kdc_core.inference.engine.shapes import Shapes, parse_profile
from kdc_core.inference.engine.worker import Builder
from kdc_core.inference.manifest import read_manifest

tensorrt_rtx: Any = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

# Files in int8 for the CPU it refuses, as below.
PROGRAMS = [p for p in sorted(SHIPPED.parent.glob("*.onnx")) if "int8-cpu" not in p.name]
MANIFEST = read_manifest(SHIPPED)
ADA = Target.named("8.9")
# Operators that TensorRT-RTX 1.7.1 has parsed and built in a program of ours.
PROVED = set(
    """
Add And ArgMax BatchNormalization Cast Clip Concat ConstantOfShape Conv DepthToSpace Div Equal Exp
Expand Floor Gather GatherElements GatherND Greater GreaterOrEqual Less LessOrEqual Log MatMul Max
MaxPool Min Mod Mul Neg Not Or Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum Relu Reshape Resize Round Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub TopK
Transpose Unsqueeze Where
""".split()
)


def test_it_has_every_name_a_build_needs() -> None:
    library = find_library("tensorrt-rtx")
    assert {"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"} <= set(library.targets)
    assert "9.0" not in library.targets and "8.7" not in library.targets


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_use_only_operators_that_were_proved(path: Path) -> None:
    used = {node.op_type for node in onnx.load(path).graph.node}
    assert used <= PROVED, "build it with TensorRT-RTX, then add them"


def model(nodes: list[onnx.NodeProto], kind: int, *constants: onnx.TensorProto) -> bytes:
    """A graph from x (2, 4) to z, of a type."""
    x, z = (helper.make_tensor_value_info(name, kind, [2, 4]) for name in "xz")
    graph = helper.make_graph(nodes, "graph", [x], [z], list(constants))
    opset = helper.make_opsetid("", 20)
    return bytes(helper.make_model(graph, opset_imports=[opset]).SerializeToString())


def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


node = helper.make_node
HALF, FLOAT, UINT8 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
SCALE = constant("s", np.array(0.1, np.float32))
REFUSED = {
    "the ONNX file mixes types at Add 'sum'": model(
        [node("Cast", ["x"], ["y"], to=HALF), node("Add", ["x", "y"], ["z"], name="sum")], FLOAT
    ),
    "the ONNX file mixes types at Transpose 'turn'": model(
        [node("Transpose", ["x"], ["z"], perm=[0, 1], name="turn")], UINT8
    ),
    "this int8 file is for CPU runtimes": model(
        [node("DequantizeLinear", ["b", "s", "o"], ["y"]), node("Add", ["x", "y"], ["z"])],
        FLOAT,
        SCALE,
        constant("o", np.array(0, np.int32)),
        constant("b", np.zeros(4, np.int32)),
    ),
    "this int8 file is for CPU runtimes: use the int8-trt file": model(
        [node("QuantizeLinear", ["x", "s", "o"], ["y"])]
        + [node("DequantizeLinear", ["y", "s", "o"], ["z"])],
        FLOAT,
        SCALE,
        constant("o", np.array(128, np.uint8)),
    ),
    "found the inputs ['x'] and the outputs ['z']": model([node("Neg", ["x"], ["z"])], FLOAT),
    "found the inputs [] and the outputs []": b"hello",
    "is not an ONNX file of ours, or was cut short": SHIPPED.read_bytes()[:100000],
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_it_says_of_bad_programs_is_understood(text: str, folder: Path) -> None:
    """The table of errors against TensorRT-RTX itself, which has no driver to help it."""
    with pytest.raises(EngineError) as error:
        builder_of(REFUSED[text], folder).build()
    assert text in str(error.value) and "driver" not in str(error.value)


def builder_of(content: bytes, folder: Path) -> Builder:
    """The builder of an engine for a file of this content."""
    library = find_library("tensorrt-rtx")
    program = ProgramFile(folder / "bad.onnx", sha256(content).hexdigest(), MANIFEST)
    program.path.write_bytes(content)
    key = Key.of(program, Shapes.fixed((448, 576)), ADA, library)
    job = Job(program=program.path, key=key, gpu=None, part=folder / "part", timing=None)
    return Builder(job, library, lambda answer: None)


def test_nothing_is_collected_while_it_calls_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collects: list[bool] = []

    class Logger(tensorrt_rtx.ILogger):
        def __init__(self) -> None:
            tensorrt_rtx.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            collects.append(gc.isenabled())

    monkeypatch.setattr(worker, "make_logger", lambda trt, said: Logger())
    with pytest.raises(EngineError):
        builder_of(b"hello", folder).build()
    assert collects and not any(collects) and gc.isenabled()


# An older builder, with another logger, that only the collector frees; then one more.
TWO_BUILDERS = """
import gc
import tensorrt_rtx
from kdc_core.inference.engine.library import no_collection
from kdc_core.inference.engine.worker import make_logger
first, second = make_logger(tensorrt_rtx, []), make_logger(tensorrt_rtx, [])
gc.disable()
older = [tensorrt_rtx.Builder(first)]
older.append(older)
gc.set_threshold(1)
gc.enable()
with no_collection():
    del older
    tensorrt_rtx.Builder(second)
"""


def test_an_older_builder_does_not_hold_up_the_next() -> None:
    subprocess.run([sys.executable, "-c", TWO_BUILDERS], check=True, timeout=60)


@pytest.mark.all
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_every_shipped_program_builds_and_goes_through_the_cache(path: Path, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    cache = Cache(folder, progress=lambda *step: told.append(step))
    library = find_library("tensorrt-rtx")
    engine = get_engine(path, (448, 576), ADA, library, cache)
    assert engine.built and {phase for phase, _, _ in told} > {"Building engine"}
    header = bytes.fromhex(engine.sidecar.header)
    assert header[:4] == b"vtrt" and ".".join(map(str, header[24:])) == library.version
    assert int.from_bytes(header[16:24], "little") == engine.sidecar.engine_bytes
    served = get_engine(path, (448, 576), ADA, library, cache)
    assert not served.built and served.seconds < 5
    (entry,) = list_entries(folder)
    assert entry.fault is None and entry.why_not_here, "no GPU may run it"


@pytest.mark.all
@pytest.mark.parametrize("profile", ["320x320,448x576,576x576"])
def test_a_range_of_sizes_builds(profile: str, folder: Path) -> None:
    shapes = parse_profile(profile)
    assert get_engine(SHIPPED, shapes, ADA, find_library("tensorrt-rtx"), Cache(folder)).built


@pytest.mark.all
def test_a_range_that_begins_too_small_is_explained(folder: Path) -> None:
    shapes = Shapes(smallest=(128, 128), usual=(448, 576), largest=(576, 576))
    with pytest.raises(EngineError, match="128x128 to 448x576 to 576x576 begins too small"):
        get_engine(SHIPPED, shapes, ADA, find_library("tensorrt-rtx"), Cache(folder))
