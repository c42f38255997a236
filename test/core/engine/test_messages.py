"""Each row of the table of errors: what TensorRT says, and what the user reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from core.engine.conftest import ADA, FIXED, Play, wanted
from kdc_core.inference.engine.driver import Gpu
from kdc_core.inference.engine.job import Answer, Built, Job
from kdc_core.inference.engine.library import find_library
from kdc_core.inference.engine.messages import NO_DRIVER, RULES, EngineError, explain
from kdc_core.inference.engine.program import ProgramFile
from kdc_core.inference.engine.worker import Builder

# Beside every error where there is no driver, as TensorRT-RTX 1.7.1 writes it.
DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient "
    "for CUDA runtime version))"
)
MIXED = (
    "ITensor::getDimensions: Error Code 4: API Usage Error (addnode: ElementWiseOperation SUM "
    "must have same input types. But they are of types Float and Half. In validateTypes at "
    "/_src/optimizer/common/nodes/elementWiseNode.cpp:40)\n" + DRIVER
)
UINT8 = (
    "ITensor::getDimensions: Error Code 4: API Usage Error (tr: first input has type UInt8 but "
    "must have type Float, Half, BFloat16, FP8, E8M0, FP4, Int4, Int8, Int64, Int32, or Bool.)"
)
INT32 = (
    "ITensor::getDimensions: Error Code 4: API Usage Error (dqbias: input has type Int32 but must "
    "have type FP8, FP4, Int4, Int8, or UInt8. In checkType at /_src/common/nodeBase.cpp:456)"
)
UNSIGNED = (
    "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported. Please "
    "set kENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA to enable asymmetric quantization"
)
NO_PROFILE = (
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or "
    "shape inputs, but no optimization profile has been defined. In validate at /_src/n.cpp)"
)
ORDER = (
    "IOptimizationProfile::isValid: Error Code 4: API Usage Error (Invalid optimization profiles "
    "for input tensors frame, please ensure that the optimization profiles satisfy MIN<=OPT<=MAX.)"
)
SMALL = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([shape.cpp:175: "
    "~op_constraints_msg_streamer_t] \nError during shape inference of\nupsample_bilinear2d_10 : "
    "f32[1, 80] = resize(add_1333)\nError is:\nResize shape dims should be non-negativ)"
)
TURING = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: "
    "check_turing_op_compatibility] Cannot compile operation 'node_matmul' for Turing (SM75): "
    "FP32 GEMM is not supported. In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)"
)
NO_KERNEL = (
    "Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[node_conv2d...node_relu]}.)"
)
MEMORY = "Error Code 1: Cuda Runtime (out of memory)"

BUILD = [
    ({"builder": "nullptr"}, "TensorRT could not start; the driver: CUDA 12.6"),
    ({"faults": [["Add", "addnode", MIXED]]}, "the ONNX file mixes types at Add 'addnode'"),
    ({"faults": [["Transpose", "tr", UINT8]]}, "the ONNX file mixes types at Transpose 'tr'"),
    ({"faults": [["DequantizeLinear", "dqbias", INT32]]}, "this int8 file is for CPU runtimes"),
    ({"faults": [["QuantizeLinear", "q", UNSIGNED]]}, "this int8 file is for CPU runtimes"),
    ({"faults": [["", "", "MODEL_DESERIALIZE_FAILED: Failed to parse"]]}, "was cut short"),
    ({"faults": [["If", "n", "no importer"]]}, "TensorRT 10.3.0 cannot read the program: If 'n'"),
    ({"outputs": []}, "found the inputs ['frame'] and the outputs []"),
    ({"said": [NO_KERNEL], "build": "none"}, "out of GPU memory while building: 4096 MiB free"),
    ({"said": [MEMORY], "build": "none"}, "workspace 1024 MiB: close other programs on"),
    ({"said": [NO_PROFILE, DRIVER], "build": "none"}, "sizes do not fit the network: 448x576: I"),
    ({"said": [ORDER], "build": "none", "profile": 0}, "satisfy MIN<=OPT<=MAX"),
    ({"profile": -1}, "TensorRT 10.3.0 built no engine: TensorRT gave no reason"),
    ({"said": [SMALL], "build": "none"}, "448x576 begins too small: begin at a larger size"),
    (
        {"said": [TURING], "build": "none"},
        "for Turing (SM75): FP32 GEMM is not supported (at 'node_matmul')",
    ),
    ({"said": [DRIVER], "build": "none"}, NO_DRIVER),
    (
        {"said": ["Error Code 2: unheard of"], "build": "none"},
        "built no engine: Error Code 2: unh",
    ),
    ({"build": "none"}, "built no engine: TensorRT gave no reason"),
    ({"build": "raise"}, "built no engine: something of the bindings' own"),
]


def build(folder: Path, program: ProgramFile, gpu: Gpu = ADA) -> Built:
    """Build here, in this process."""
    key = wanted(program, gpu=gpu)
    job = Job(program=program.path, key=key, gpu=gpu.index, part=folder / "part", timing=None)
    return Builder(job, find_library(), lambda answer: None).build()


@pytest.mark.parametrize(("script", "text"), BUILD)
def test_what_tensorrt_says_becomes_what_the_user_reads(
    play: Play, folder: Path, program: ProgramFile, script: dict[str, Any], text: str
) -> None:
    play(cuda={"free": 4 << 30}, **script)
    with pytest.raises(EngineError) as error:
        build(folder, program)
    assert text in str(error.value)
    assert "cudaError 35" not in str(error.value) and "unknown" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (["Serialization assertion magicTag == kMAGIC_TAG failed."], "not a TensorRT engine"),
        (["Version tag does not match. Note: Current Version: 1"], "another version than the ins"),
        (["The engine plan file is generated on an incompatible device"], "made for another GPU"),
        (["[Error] out of memory"], "out of GPU memory while loading: 12 MiB free: close other"),
        (["Error Code 7: Internal Error (BuildCanceled)"], "engine build cancelled"),
        ([DRIVER], NO_DRIVER),
        ([], "the engine could not be loaded: TensorRT gave no reason"),
        (["", DRIVER, "some cause\nmore"], "the engine could not be loaded: some cause"),
    ],
)
def test_rows_for_loading(said: list[str], text: str) -> None:
    context = {"doing": "loading", "free": 12, "library": "TensorRT 10.3.0"}
    assert text in explain(said, "the engine could not be loaded", **context)


def test_every_row_of_the_table_is_tried() -> None:
    said = [
        MIXED,
        UINT8,
        f"DequantizeLinear {INT32}",
        UNSIGNED,
        NO_KERNEL,
        MEMORY,
        NO_PROFILE,
        SMALL,
        TURING,
    ]
    said += ["factory function returned nullptr", "MODEL_DESERIALIZE_FAILED", "magicTag"]
    said += ["Version tag does not match", "incompatible device", "BuildCanceled"]
    assert {next(r for r in RULES if re.search(r[0], text)) for text in said} == set(RULES)


def test_the_workspace_is_kept_below_the_memory_that_is_free(
    play: Play, folder: Path, program: ProgramFile
) -> None:
    scripted = play(cuda={"free": 900 << 20})
    assert build(folder, program).workspace_mib == 450
    assert ("IBuilderConfig", "set_memory_pool_limit", "WORKSPACE", 450 << 20) in scripted.calls


def test_no_engine_multiplies_in_tf32(play: Play, folder: Path, program: ProgramFile) -> None:
    scripted = play()
    build(folder, program)
    assert ("IBuilderConfig", "clear_flag", "TF32") in scripted.calls


def test_out_of_memory_before_the_build_is_told(
    play: Play, folder: Path, program: ProgramFile
) -> None:
    play(cuda={"fails": {"cuDevicePrimaryCtxRetain": 2}})
    with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        build(folder, program)


def test_a_network_is_built_strongly_typed_for_its_sizes(
    play: Play, folder: Path, program: ProgramFile
) -> None:
    scripted = play(version="rtx 1.7.1.116")
    build(folder, program)
    calls = scripted.calls
    assert ("Builder", "create_network", 2) in calls
    assert ("IBuilderConfig", "set_compute_capability", "SM89", 0) in calls
    size = (*FIXED.usual, 3)
    assert ("IOptimizationProfile", "set_shape", "frame", size, size, size) in calls


def test_a_network_of_fixed_sides_needs_no_profile(
    play: Play, folder: Path, program: ProgramFile
) -> None:
    scripted = play(free_sides=False)
    build(folder, program)
    assert not [call for call in scripted.calls if call[0] == "IOptimizationProfile"]


def test_a_program_that_changed_meanwhile_is_not_built(
    play: Play, folder: Path, program: ProgramFile, tmp_path: Path
) -> None:
    play()
    other = tmp_path / "other.onnx"
    other.write_bytes(program.path.read_bytes() + b"\0")
    job = Job(program=other, key=wanted(program), gpu=0, part=folder / "part", timing=None)
    with pytest.raises(EngineError, match="was changed just now"):
        Builder(job, find_library(), lambda answer: None).build()


def test_progress_is_told_and_a_stop_is_heard(
    play: Play, folder: Path, program: ProgramFile
) -> None:
    play(steps=4, pause_s=0.12)
    told: list[Answer] = []
    job = Job(program=program.path, key=wanted(program), gpu=0, part=folder / "part", timing=None)
    Builder(job, find_library(), told.append).build()
    steps = [answer.progress for answer in told]
    assert steps[0] == ("Timing graph nodes", 0, 4) and steps[-1] == ("Timing graph nodes", 4, 4)
    assert len(steps) > 3
