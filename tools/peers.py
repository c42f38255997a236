#!/usr/bin/env python3
"""MoveNet MultiPose and BodyPix beside our Predictor: average precision and time, one runtime.

The peers are rebuilt from published weights, which are no part of the package.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import script
import sizes
import typer
from bodypix import open_bodypix

from kdc_core.bench.movenet import open_movenet
from kdc_core.bench.peer import Peer
from kdc_core.codec.results import Prediction
from kdc_core.data.annotations import Annotations
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import coco_results, score
from kdc_core.files import write_json
from kdc_core.inference.export import cut_before_decode
from kdc_core.inference.model_files import find_model
from kdc_core.inference.predictor import Predictor, letterbox_image
from kdc_core.inference.runtimes.onnxruntime import Session
from kdc_core.inference.runtimes.threads import default_threads
from kdc_core.show.progress import track

SHARED = Path(__file__).parents[1].parent / "shared"  # beside the repository
WEIGHTS = SHARED / "weights"
ANNOTATIONS = SHARED / "data" / "coco_person" / "val.json.gz"
IMAGES = SHARED / "data" / "coco_person" / "val.tar"
MOVENET, BODYPIX = "movenet_multipose", "bodypix_mobilenet_075"
STAGES = ("letterbox", "model", "assembly")

# People of an image, with the times of STAGES; of our program, which decodes, too, also "network".
Predict = Callable[[np.ndarray], Prediction]


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
    annotations: Annotated[Path, typer.Option(help="COCO annotations.")] = ANNOTATIONS,
    images: Annotated[Path, typer.Option(help="Folder or tar.")] = IMAGES,
    weights: Annotated[Path, typer.Option(help="Folder of the peers' weights.")] = WEIGHTS,
    model: Annotated[str, typer.Option(help="Ours: shipped model or .onnx.")] = "kdc_light",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    sides: Annotated[
        str, typer.Option(help="Compare at these sides of the input: 320,448,576.")
    ] = "",
    more: Annotated[
        list[str] | None, typer.Option("--also", help="With --sides: a further file of ours.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="With --sides: draw them here.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="With --sides: for the times.")] = 15,
) -> None:
    """MoveNet MultiPose and BodyPix beside our predictor: average precision and time."""
    if sides:
        wanted = [int(side) for side in sides.split(",")]
        ours = [model, *(more or [])]
        by_size(wanted, ours, annotations, images, weights, limit, rounds, json_file, plot)
        return
    figures = compare(annotations, images, weights, model, limit)
    if json_file is not None:
        write_json(json_file, figures)
    models = figures["models"]
    typer.echo(f"{figures['pictures']} images, {figures['threads']} threads")
    typer.echo("all models have seen COCO train images")
    typer.echo(" " * 32 + "".join(f"{name:>24}" for name in models))
    for row in dict.fromkeys(name for entry in models.values() for name in entry):
        values = (entry.get(row) for entry in models.values())
        cells = ("" if value is None else f"{value:.3f}" for value in values)
        typer.echo(f"{row:32}" + "".join(f"{cell:>24}" for cell in cells))


def compare(
    annotations: Path, images: Path, weights: Path, model: str, limit: int | None
) -> dict[str, Any]:
    """Predict every image with each model in turn, so that load of the machine hits all alike.

    All run in ONNX Runtime with default_threads(), and return all they find: no threshold.

    Args:
        annotations: COCO .json or .json.gz.
        images: folder or tar of the images.
        weights: folder of the peers' published weights.
        model: ours, shipped model's name or an .onnx file.
        limit: only so many images, the first ones.

    Returns:
        annotations, pictures, threads, and by model: longer_side of its input; figures of
        `kdc_core.evaluation.coco.score` (no mask figures of MoveNet); network_ms and whole_ms
        (letterbox, network and decode), medians over images, of each the faster of two runs;
        whole_over_ours, median of the ratios.

    Raises:
        KdcError: weights, annotations or images are missing or unusable.
    """
    threads = default_threads()
    truth, source = read_truth(annotations, images, limit)
    models: dict[str, tuple[int, Predict]] = {}
    name, side, ours = our_predictor(model, threads)
    models[name] = side, ours
    for peer, opened in open_peers(weights, threads).items():
        models[peer] = opened.longer_side, opened
    results: dict[str, list[dict[str, Any]]] = {key: [] for key in models}
    times: dict[str, list[tuple[float, float]]] = {key: [] for key in models}
    for _, predict in models.values():  # warm
        predict(source.read(truth.images[0].file_name))
    for annotated in track(truth.images, len(truth.images), "peers"):
        image = source.read(annotated.file_name)
        for key, (_, predict) in models.items():
            # Twice: the first frame of a size takes longer, and what else runs disturbs.
            prediction, again = predict(image), predict(image)
            spent = {
                stage: min(taken, again.timings_ms[stage])
                for stage, taken in prediction.timings_ms.items()
            }
            results[key] += coco_results(prediction, annotated.id)
            whole = sum(spent[stage] for stage in STAGES)
            times[key].append((spent.get("network", spent["model"]), whole))

    table: dict[str, dict[str, float]] = {}
    for key, (longer_side, _) in models.items():
        figures = score(truth, results[key])
        if key == MOVENET:
            figures = {k: v for k, v in figures.items() if k.startswith("keypoint")}
        network, whole = np.median(times[key], 0)
        ratio = np.array(times[key])[:, 1] / np.array(times[name])[:, 1]
        table[key] = {
            "longer_side": longer_side,
            **figures,
            "network_ms": round(float(network), 2),
            "whole_ms": round(float(whole), 2),
            "whole_over_ours": round(float(np.median(ratio)), 3),
        }
    return {
        "annotations": annotations.name,
        "pictures": len(truth.images),
        "threads": threads,
        "models": table,
    }


def by_size(
    sides: list[int],
    models: list[str],
    annotations: Path,
    images: Path,
    weights: Path,
    limit: int | None,
    rounds: int,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Print, write and draw average precision and time at several sides of the input.

    Args:
        sides: of the frame's longer side, pixels.
        models: of ours, names or .onnx files.
        annotations, images, weights, limit: as for `compare`.
        rounds: of the times.
        json_file, plot: where to; None = nowhere.
    """
    threads = default_threads()
    truth, source = read_truth(annotations, images, limit)
    peers = open_peers(weights, threads)
    precision = sizes.precision_by_size(truth, source, models, peers, sides, threads)
    times = sizes.time_by_size(models, peers, MOVENET, sides, threads, rounds)
    if json_file is not None:
        figures = {"pictures": len(truth.images), "precision": precision, "time": times}
        write_json(json_file, figures)
    if plot is not None:
        sizes.plot(precision, times, plot)
    typer.echo(f"{len(truth.images)} images, {threads} threads; time over MoveNet at 512 px")
    for line in sizes.table_lines(precision, times):
        typer.echo(line)


def read_truth(annotations: Path, images: Path, limit: int | None) -> tuple[Annotations, Images]:
    """The first annotated images, and where they are read.

    Raises:
        KdcError: one of them is missing, or there is no image.
    """
    for what, path in (("annotations", annotations), ("images", images)):
        if not path.exists():
            raise KdcError(
                f"no {what} at '{path}': expected COCO person annotations and their images; "
                "give them with --annotations and --images"
            )
    truth = read_annotations(annotations)
    truth = truth.of(image.id for image in truth.images[:limit])
    if not truth.images:
        raise KdcError(f"'{annotations}' has no images")
    return truth, Images(images)


def open_peers(weights: Path, threads: int) -> dict[str, Peer]:
    """Both by name, at the sides that their authors give."""
    return {
        MOVENET: open_movenet(threads, weights_file(weights, MOVENET)),
        BODYPIX: open_bodypix(threads, weights_file(weights, BODYPIX)),
    }


def our_predictor(model: str, threads: int) -> tuple[str, int, Predict]:
    """The name and longer side of our model, and its Predictor.

    Its program has network and decode in one; the network alone is a run of its own.
    """
    predictor = Predictor.from_pretrained(
        model, "onnxruntime", threads=threads, confidence=0.0, keypoint=0.0
    )
    path = find_model(model, (".onnx",))
    network = Session(cut_before_decode(path).SerializeToString(), threads)

    def predict(image: np.ndarray) -> Prediction:
        prediction = predictor(image)
        frame = letterbox_image(image, predictor.letterbox((image.shape[0], image.shape[1])))
        begun = time.perf_counter()
        network.run(None, {"frame": frame})
        prediction.timings_ms["network"] = 1e3 * (time.perf_counter() - begun)
        return prediction

    return predictor.config.name, predictor.longer_side, predict


def weights_file(folder: Path, peer: str) -> Path:
    """The file of a peer's published weights in a folder.

    Raises:
        KdcError: it is not there.
    """
    path = folder / f"{peer}.safetensors"
    if not path.is_file():
        raise KdcError(
            f"no '{path.name}' in '{folder}': expected the peers' published weights, "
            f"{MOVENET}.safetensors and {BODYPIX}.safetensors; give their folder with --weights"
        )
    return path


if __name__ == "__main__":
    script.run(main)
