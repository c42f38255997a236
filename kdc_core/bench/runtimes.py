"""`kdc bench runtimes`: every runtime that can be had here, in one run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from kdc_core.bench.frames import CROWD, FRAME, paste_people
from kdc_core.bench.movenet import open_movenet
from kdc_core.bench.predictor import interleave
from kdc_core.inference.export import cut_before_decode
from kdc_core.inference.manifest import Precision
from kdc_core.inference.model_files import find_program
from kdc_core.inference.predictor import Predictor, letterbox_image
from kdc_core.inference.program import level_fields
from kdc_core.inference.runtimes.choice import RUNTIMES, order
from kdc_core.inference.runtimes.onnxruntime import Session
from kdc_core.inference.runtimes.openvino import OpenVinoRuntime, compile_program
from kdc_core.inference.runtimes.protocol import Runtime, UnusableRuntime
from kdc_core.network.weights import load_model

THREADS = 2
# Frames after which the process has all the memory that it needs.
SETTLED = 100
# Of OpenVINO, and what each is called over ONNX Runtime in fp32.
PRECISIONS: dict[Precision, str] = {
    "fp32": "openvino_over_onnxruntime",
    "int8-cpu": "openvino_int8_over_onnxruntime",
}
Call = Callable[[], object]


@dataclass(frozen=True)
class RuntimeFigures:
    """What `bench_runtimes` found.

    Attributes:
        figures: by name.
        stages: median milliseconds of each stage of the predictor, by runtime and precision.
        refused: why a runtime cannot be had here, by runtime.
    """

    figures: dict[str, float]
    stages: dict[str, dict[str, float]]
    refused: dict[str, str]


def bench_runtimes(model: str, rounds: int, frames: int) -> RuntimeFigures:
    """Time a model in every runtime on a VGA image of 30 people, two threads.

    Args:
        model: shipped model's name.
        rounds: interleaved rounds; medians are taken.
        frames: how many the default runtime executes while memory is watched; over SETTLED.

    Returns:
        Among the figures, of the predictor in the runtime and precision that `auto` takes on the
        CPU for frames of one size: end_to_end_over_network, over its network alone in both;
        over_movenet, over MoveNet MultiPose whole in ONNX Runtime, at 512 px. Of whole programs:
        openvino_over_onnxruntime, and openvino_int8_over_onnxruntime where there is an int8
        file. Of the default: configure_cached_s, opening it, its self-test and a frame to warm it
        up, with all files and engines in their caches; first_frame_s, the frame after that;
        memory_growth, of the process from frame SETTLED to the last, as a fraction. With CUDA:
        end_to_end_over_network_cuda, of torch; frames_per_second_cuda, of the fastest runtime
        there.
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
    calls |= _parts(model, predictors, frame)
    peer = open_movenet(THREADS)
    calls["movenet"] = lambda: peer(image)
    # On a CPU torch is the reference, and its threads take the cores from all others.
    slow = {name: calls.pop(name) for name in ranked if name == "torch" and name not in on_gpu}
    times = interleave(calls, rounds) | interleave(slow, min(rounds, 3), warm_up=1)

    figures["end_to_end_over_network"] = _over(times, on_cpu, f"{on_cpu} network")
    figures["over_movenet"] = _over(times, on_cpu, "movenet")
    for precision, name in PRECISIONS.items():
        if f"openvino {precision}" in times:
            figures[name] = _over(times, f"openvino {precision}", "onnxruntime program")
    if on_gpu:
        fastest = min(float(np.median(times[name])) for name in on_gpu)
        figures["frames_per_second_cuda"] = 1e3 / fastest
    if "torch network" in times:
        figures["end_to_end_over_network_cuda"] = _over(times, "torch", "torch network")
    figures["memory_growth"] = memory_growth(lambda: predictors[ranked[0]](image), frames)
    precisions = {name: run.runtime.manifest.precision for name, run in predictors.items()}
    for predictor in predictors.values():
        predictor.close()
    return RuntimeFigures(
        {name: round(value, 4) for name, value in figures.items()},
        {f"{name} {precisions[name]}": _medians(rows[1:]) for name, rows in stages.items()},
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
            predictors[name].thresholds = CROWD
        except UnusableRuntime as error:
            refused[name] = str(error)
    return predictors, refused


def _on_gpu(predictor: Predictor) -> bool:
    # TensorRT says which GPU it is, others cuda:N.
    return predictor.runtime.describe()["device"] != "cpu"


def _staged(predictor: Predictor, image: np.ndarray, rows: list[dict[str, float]]) -> Call:
    return lambda: rows.append(predictor(image).timings_ms)


def _parts(model: str, predictors: dict[str, Predictor], frame: np.ndarray) -> dict[str, Call]:
    """Programs and networks alone."""
    path = find_program(model, "fp32")
    session = Session(cut_before_decode(path).SerializeToString(), THREADS)
    calls: dict[str, Call] = {
        "onnxruntime network": lambda: session.run(None, {"frame": frame}),
        "onnxruntime program": partial(_execute, predictors["onnxruntime"].runtime, frame),
    }
    if "openvino" in predictors:
        calls |= _parts_in_openvino(model, predictors["openvino"].runtime, frame)
    if "torch" in predictors and _on_gpu(predictors["torch"]):
        calls["torch network"] = _torch_network(path.with_suffix(".safetensors"), frame)
    return calls


def _parts_in_openvino(model: str, taken: Runtime, frame: np.ndarray) -> dict[str, Call]:
    """The network in the precision that is taken, and the program in each that there is."""
    cut = cut_before_decode(find_program(model, taken.manifest.precision)).SerializeToString()
    network = compile_program(cut, (frame.shape[0], frame.shape[1]), THREADS)
    calls: dict[str, Call] = {"openvino network": lambda: network.infer({"frame": frame})}
    for precision in PRECISIONS:
        try:
            path = find_program(model, precision)
        except UnusableRuntime:  # there is no such file
            continue
        runtime = OpenVinoRuntime(path, "cpu", THREADS)
        calls[f"openvino {precision}"] = partial(_execute, runtime, frame)
    return calls


def _execute(runtime: Runtime, frame: np.ndarray) -> object:
    return runtime.submit(frame).collect()


def _torch_network(weights: Path, frame: np.ndarray) -> Call:
    """The network alone by torch on CUDA, and the wait for it."""
    network = load_model(weights)[0].cuda()
    image = torch.from_numpy(frame).cuda()

    def call() -> None:
        with torch.inference_mode():
            level_fields(network, image)
        torch.cuda.synchronize()

    return call


def _over(times: dict[str, np.ndarray], one: str, other: str) -> float:
    return float(np.median(times[one] / times[other]))


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {stage: float(np.median([row[stage] for row in rows])) for stage in rows[0]}
