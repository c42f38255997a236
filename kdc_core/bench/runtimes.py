"""`kdc bench runtimes`: every runtime that can be had here, in one run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from kdc_core.bench.frames import FRAME, SAMPLES, paste_people
from kdc_core.bench.movenet import open_movenet
from kdc_core.bench.predictor import interleave
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.export import change_precision, cut_before_decode
from kdc_core.inference.manifest import read_file
from kdc_core.inference.predictor import Predictor, letterbox_image
from kdc_core.inference.program import level_fields
from kdc_core.inference.quantize import training_frames
from kdc_core.inference.runtimes.choice import RUNTIMES, find_program, order
from kdc_core.inference.runtimes.onnxruntime import Session
from kdc_core.inference.runtimes.openvino import OpenVinoRuntime, compile_program
from kdc_core.inference.runtimes.protocol import Runtime, UnusableRuntime
from kdc_core.network.backbones import side_rule
from kdc_core.network.weights import load_model

THREADS = 2
# Frames after which the process has all the memory that it needs.
SETTLED = 100
Call = Callable[[], object]


@dataclass(frozen=True)
class RuntimeFigures:
    """What `bench_runtimes` found.

    Attributes:
        figures: by name.
        stages: median milliseconds of each stage of the predictor, by runtime.
        refused: why a runtime cannot be had here, by runtime.
    """

    figures: dict[str, float]
    stages: dict[str, dict[str, float]]
    refused: dict[str, str]


def bench_runtimes(
    model: str, rounds: int, frames: int, movenet: Path | None = None
) -> RuntimeFigures:
    """Time a model in every runtime on a VGA image of 30 people, two threads.

    Args:
        model: shipped model's name.
        rounds: interleaved rounds; medians are taken.
        frames: how many the default runtime executes while memory is watched; over SETTLED.
        movenet: MoveNet's published weights; None = beside the repository, else random ones.

    Returns:
        Among the figures, of the predictor in the runtime `auto` takes on the CPU:
        end_to_end_over_network, over its network alone in that runtime; over_movenet, over
        MoveNet MultiPose whole in ONNX Runtime, at 512 px. Of whole
        programs: openvino_over_onnxruntime, and openvino_int8_over_onnxruntime with a network
        that is calibrated on the sample images here. Of the default: configure_cached_s, opening
        it, its self-test and a frame to warm it up, with all files and engines in their caches;
        first_frame_s, the frame after that; memory_growth, of the process from frame SETTLED to
        the last, as a fraction. With CUDA: end_to_end_over_network_cuda, of torch;
        frames_per_second_cuda, of the fastest runtime there.
    """
    image = paste_people(30)
    figures = {}
    figures["configure_cached_s"], figures["first_frame_s"] = _configure(model, image)
    predictors, refused = _open_all(model)
    ranked = [name for name in order(one_size=True) if name in predictors]
    on_gpu = [name for name in ranked if _on_gpu(predictors[name])]
    on_cpu = next(name for name in ranked if name not in on_gpu)
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in predictors}
    calls = {name: _staged(run, image, stages[name]) for name, run in predictors.items()}
    frame = letterbox_image(image, predictors["onnxruntime"].letterbox(FRAME))
    calls |= _parts(find_program(model, "fp32"), predictors, frame)
    peer = open_movenet(THREADS, movenet)
    calls["movenet"] = lambda: peer(image)
    # On a CPU torch is the reference, and its threads take the cores from all others.
    slow = {name: calls.pop(name) for name in ranked if name == "torch" and name not in on_gpu}
    times = interleave(calls, rounds) | interleave(slow, min(rounds, 3), warm_up=1)

    figures["end_to_end_over_network"] = _over(times, on_cpu, f"{on_cpu} network")
    figures["over_movenet"] = _over(times, on_cpu, "movenet")
    if "openvino" in predictors:
        figures["openvino_over_onnxruntime"] = _over(
            times, "openvino program", "onnxruntime program"
        )
        figures["openvino_int8_over_onnxruntime"] = _over(
            times, "openvino int8", "onnxruntime program"
        )
    if on_gpu:
        fastest = min(float(np.median(times[name])) for name in on_gpu)
        figures["frames_per_second_cuda"] = 1e3 / fastest
    if "torch network" in times:
        figures["end_to_end_over_network_cuda"] = _over(times, "torch", "torch network")
    figures["memory_growth"] = memory_growth(lambda: predictors[ranked[0]](image), frames)
    return RuntimeFigures(
        {name: round(value, 4) for name, value in figures.items()},
        {name: _medians(rows[1:]) for name, rows in stages.items()},
        refused,
    )


def memory_growth(call: Call, frames: int) -> float:
    """Growth of this process's memory from frame SETTLED to the last, as a fraction."""
    settled = 0
    for number in range(1, frames + 1):
        call()
        if number == SETTLED:
            settled = _memory()
    return _memory() / settled - 1


def _memory() -> int:
    """Bytes of this process in memory."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _configure(model: str, image: np.ndarray) -> tuple[float, float]:
    """Seconds to open the default runtime for this image the second time, and for its frames.

    Returns:
        Opening, self-test and one frame; the next frame.
    """
    size: tuple[int, int] | None = None
    opened = begun = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        predictor = Predictor.from_pretrained(model, threads=THREADS, size=size)
        predictor(image)
        opened = time.perf_counter()
        predictor(image)
        done = time.perf_counter()
        size = predictor.letterbox(FRAME).size
        predictor.close()
    return opened - begun, done - opened


def _open_all(model: str) -> tuple[dict[str, Predictor], dict[str, str]]:
    """Every runtime that can be had, and why the others cannot."""
    predictors, refused = {}, {}
    for name in RUNTIMES:
        try:
            predictors[name] = Predictor.from_pretrained(model, name, threads=THREADS)
            # What the figures are of: a crowd that a lower threshold shows whole.
            predictors[name].thresholds = Thresholds(0.1, 0.3, 0.5)
        except UnusableRuntime as error:
            refused[name] = str(error)
    return predictors, refused


def _on_gpu(predictor: Predictor) -> bool:
    # TensorRT says which GPU it is, others cuda:N.
    return predictor.runtime.describe()["device"] != "cpu"


def _staged(predictor: Predictor, image: np.ndarray, rows: list[dict[str, float]]) -> Call:
    return lambda: rows.append(predictor(image).timings_ms)


def _parts(path: Path, predictors: dict[str, Predictor], frame: np.ndarray) -> dict[str, Call]:
    """Programs and networks alone."""
    size = (frame.shape[0], frame.shape[1])
    cut = cut_before_decode(path).SerializeToString()
    session = Session(cut, THREADS)
    calls: dict[str, Call] = {
        "onnxruntime network": lambda: session.run(None, {"frame": frame}),
        "onnxruntime program": lambda: predictors["onnxruntime"].runtime.submit(frame).collect(),
    }
    if "openvino" in predictors:
        int8, network = _open_int8(path, size), compile_program(cut, size, THREADS)
        calls["openvino network"] = lambda: network.infer({"frame": frame})
        calls["openvino program"] = lambda: predictors["openvino"].runtime.submit(frame).collect()
        calls["openvino int8"] = lambda: int8.submit(frame).collect()
    if "torch" in predictors and _on_gpu(predictors["torch"]):
        calls["torch network"] = _torch_network(path.with_suffix(".safetensors"), frame)
    return calls


def _open_int8(path: Path, size: tuple[int, int]) -> Runtime:
    """The program with a network in int8, calibrated on the sample images, in OpenVINO."""
    # How long it takes does not depend on the images it was calibrated on.
    frames = training_frames(SAMPLES, read_file(path).config, size, count=2)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        change_precision(path, file, "int8-cpu", frames)
        runtime = OpenVinoRuntime(file, "cpu", THREADS)
        runtime.submit(np.zeros((*size, 3), np.uint8)).collect()  # compiles, which reads the file
    return runtime


def _torch_network(weights: Path, frame: np.ndarray) -> Call:
    """The network alone by torch on CUDA, and the wait for it."""
    network = load_model(weights)[0].cuda()
    multiple, _ = side_rule(network.config)
    image = torch.from_numpy(frame).cuda()

    def call() -> None:
        with torch.inference_mode():
            level_fields(network, image, multiple)
        torch.cuda.synchronize()

    return call


def _over(times: dict[str, np.ndarray], one: str, other: str) -> float:
    return float(np.median(times[one] / times[other]))


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {stage: float(np.median([row[stage] for row in rows])) for stage in rows[0]}
