"""Average precision and time by the side of the network's input: ours and the peers'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from kdc_core.bench.frames import paste_people
from kdc_core.bench.peer import Peer
from kdc_core.bench.predictor import interleave
from kdc_core.codec.results import Prediction
from kdc_core.data.annotations import Annotations
from kdc_core.data.images import Images
from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import coco_results, score
from kdc_core.inference.predictor import Predictor
from kdc_core.show.progress import track

RUNTIMES = ("onnxruntime", "openvino")
SHOWN = ("keypoint_ap", "mask_ap_keypoint_persons", "mask_ap_full")
CROWD = 30  # people in the frame that is timed
MEASURE = 512  # side at which MoveNet is the measure of time, as in `kdc bench predictor`

Find: TypeAlias = Callable[[np.ndarray], Prediction]


def precision_by_size(
    truth: Annotations,
    images: Images,
    models: Sequence[str],
    peers: dict[str, Peer],
    sides: Sequence[int],
    threads: int,
) -> dict[str, dict[int, dict[str, float]]]:
    """Figures of SHOWN for each model and side, by ONNX Runtime: other runtimes find the same,
    in int8 nearly.

    Args:
        truth: what is scored against.
        images: of it.
        models: .onnx files of ours, or names of shipped ones.
        peers: by name.
        sides: of the longer side of the frame, pixels.
        threads: of the CPU.
    """
    finders: dict[tuple[str, int], Find] = {}
    for model in models:
        first = open_ours(model, "onnxruntime", threads)
        if (label(first), sides[0]) in finders:
            raise KdcError(f"'{model}' is the second {label(first)}: give one of a name")
        for side in sides:
            finders[label(first), side] = at_side(first, side)
    for name, peer in peers.items():
        for side in sides:
            finders[name, side] = replace(peer, longer_side=side)
    results: dict[tuple[str, int], list[dict[str, Any]]] = {key: [] for key in finders}
    for annotated in track(truth.images, len(truth.images), "sizes"):
        image = images.read(annotated.file_name)
        for key, find in finders.items():
            results[key] += coco_results(find(image), annotated.id)
    table: dict[str, dict[int, dict[str, float]]] = {}
    for (name, side), found in results.items():
        figures = score(truth, found)
        table.setdefault(name, {})[side] = {row: figures[row] for row in SHOWN}
    return table


def time_by_size(
    models: Sequence[str],
    peers: dict[str, Peer],
    measure: str,
    sides: Sequence[int],
    threads: int,
    rounds: int,
) -> dict[str, dict[int, float]]:
    """Time over that of the measure at 512 px, for each model, runtime and side.

    A VGA frame of 30 people, medians of the ratios within each round.

    Args:
        models, peers, sides, threads: as for `precision_by_size`.
        measure: name of the peer that is the measure.
        rounds: interleaved.
    """
    frame = paste_people(CROWD)
    base = partial(replace(peers[measure], longer_side=MEASURE), frame)
    ours = [(model, runtime, side) for model in models for runtime in RUNTIMES for side in sides]
    table: dict[str, dict[int, float]] = {}
    for model, runtime, side in track(ours, len(ours), "times of ours"):
        # Opened for each side: OpenVINO compiles a program of its own for the first few only.
        predictor = at_side(open_ours(model, runtime, threads), side)
        name = f"{label(predictor)}, {runtime}"
        table.setdefault(name, {})[side] = _over(base, partial(predictor, frame), rounds)
        predictor.close()
    others = [(name, side) for name in peers for side in sides]
    for name, side in track(others, len(others), "times of peers"):
        this = partial(replace(peers[name], longer_side=side), frame)
        table.setdefault(name, {})[side] = _over(base, this, rounds)
    return table


def _over(base: Callable[[], object], this: Callable[[], object], rounds: int) -> float:
    times = interleave({"base": base, "this": this}, rounds)
    return round(float(np.median(times["this"] / times["base"])), 3)


def open_ours(model: str, runtime: str, threads: int) -> Predictor:
    """A file in its precision, a shipped model in fp32."""
    return Predictor.from_pretrained(
        model,
        runtime,
        threads=threads,
        confidence=0.0,
        keypoint=0.0,
        precision="auto" if model.endswith(".onnx") else "fp32",
    )


def at_side(predictor: Predictor, side: int) -> Predictor:
    """The same model on frames of another longer side."""
    other = Predictor(predictor.runtime, side)
    other.thresholds = predictor.thresholds
    return other


def label(predictor: Predictor) -> str:
    manifest = predictor.runtime.manifest
    return f"{manifest.config.name} {manifest.precision}"


def plot(
    precision: dict[str, dict[int, dict[str, float]]],
    times: dict[str, dict[int, float]],
    output: Path,
) -> None:
    """Draw average precision over time, a line for each model and runtime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, len(SHOWN), figsize=(15, 5), layout="constrained")
    for number, (name, by_side) in enumerate(times.items()):
        found = precision[name.split(", ")[0]]
        for axis, row in zip(axes, SHOWN, strict=True):
            values = [found[side][row] for side in by_side]
            if max(values) <= 0:
                continue  # MoveNet has no masks
            style = {"marker": "o", "markersize": 4, "color": f"C{number}", "label": name}
            axis.plot(list(by_side.values()), values, **style)
            for side, value in zip(by_side, values, strict=True):
                axis.annotate(
                    str(side),
                    (by_side[side], value),
                    fontsize=6,
                    color=f"C{number}",
                    xytext=(3, -8) if number % 2 else (-12, 4),
                    textcoords="offset points",
                )
    for axis, row in zip(axes, SHOWN, strict=True):
        axis.set(title=row.replace("_", " "), xlabel=f"time over MoveNet at {MEASURE} px")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(output, dpi=110)


def table_lines(
    precision: dict[str, dict[int, dict[str, float]]], times: dict[str, dict[int, float]]
) -> list[str]:
    """Lines of text: a row for each model, runtime and side."""
    lines = [f"{'':44}{'side':>6}{'time':>8}" + "".join(f"{row:>26}" for row in SHOWN)]
    for name, by_side in times.items():
        found = precision[name.split(", ")[0]]
        for side, time in by_side.items():
            cells = "".join(f"{found[side][row]:26.3f}" for row in SHOWN)
            lines.append(f"{name:44}{side:6}{time:8.2f}{cells}")
    return lines
