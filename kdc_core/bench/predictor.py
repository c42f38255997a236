"""`kdc bench predictor`: network, decode, and the whole predictor with 1 and 30 people."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from kdc_core.bench.frames import CROWD, FRAME, SAMPLES, one_person_image, paste_people
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.evaluation.coco import coco_results, score
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.manifest import OUTPUTS
from kdc_core.inference.model_files import find_model
from kdc_core.inference.predictor import Predictor, letterbox_image
from kdc_core.inference.runtimes.onnxruntime import Session
from kdc_core.show.drawing import draw_people

THREADS = 2


def bench_predictor(model: str, rounds: int) -> dict[str, float]:
    """Time a model on VGA frames, two threads.

    Args:
        model: shipped model's name or an .onnx file.
        rounds: interleaved rounds; medians are taken.

    Returns:
        network_ms: the exported network, cut off before decode. decode_over_network: the rest
        of the exported program over it. people_30_over_1: the whole predictor on an image of
        30 people over one of 1. end_to_end_over_network: the predictor (30 people) over the
        network. over_movenet: the predictor (30 people) over MoveNet MultiPose whole on the same
        image, at 512 px and with its decode of six people; the figure to compare between
        machines, whose speeds differ. frames_per_second: of the predictor (30 people).
        found_1, found_30: people found in the two images. scoring_over_predictor,
        drawing_over_predictor: over the sample images, what COCO scoring and overlays add to
        prediction.
    """
    from kdc_core.bench.movenet import open_movenet
    from kdc_core.inference.export import cut_before_decode

    path = find_model(model, (".onnx",))
    network = Session(cut_before_decode(path).SerializeToString(), THREADS)
    program = Session(str(path), THREADS)
    predictor = Predictor.from_pretrained(model, "onnxruntime", threads=THREADS)
    peer = open_movenet(THREADS)
    one, many = one_person_image(), paste_people(30)
    frame = letterbox_image(many, predictor.letterbox(FRAME))
    everybody = Predictor(predictor.runtime)
    everybody.thresholds = CROWD
    times = interleave(
        {
            "network": lambda: network.run(None, {"frame": frame}),
            "program": lambda: program.run(list(OUTPUTS), {"frame": frame}),
            "one": lambda: everybody(one),
            "many": lambda: everybody(many),
            "movenet": lambda: peer(many),
        },
        rounds,
    )
    medians = {name: float(np.median(values)) for name, values in times.items()}
    decode = float(np.median(times["program"] - times["network"]))
    return {
        "network_ms": round(medians["network"], 3),
        "decode_over_network": round(decode / medians["network"], 4),
        "people_30_over_1": round(float(np.median(times["many"] / times["one"])), 4),
        "end_to_end_over_network": round(medians["many"] / medians["network"], 4),
        "over_movenet": round(float(np.median(times["many"] / times["movenet"])), 4),
        "frames_per_second": round(1e3 / medians["many"], 2),
        "found_1": float(len(everybody(one))),
        "found_30": float(len(everybody(many))),
        **_extras(predictor),
        "rounds": float(rounds),
    }


def _extras(predictor: Predictor) -> dict[str, float]:
    """Time of scoring and of drawing over that of prediction, on the sample images."""
    annotations, source = read_annotations(SAMPLES / "annotations.json"), Images(SAMPLES)
    scored = Predictor(predictor.runtime)
    scored.thresholds = Thresholds(0.0, 0.0, 0.5)
    images = [source.read(annotated.file_name) for annotated in annotations.images]
    begun = time.perf_counter()
    found = [scored(image) for image in images]
    predicted = time.perf_counter()
    results = []
    for annotated, prediction in zip(annotations.images, found, strict=True):
        results += coco_results(prediction, annotated.id)
    score(annotations, results)
    counted = time.perf_counter()
    shown = [predictor(image) for image in images]
    drawing = time.perf_counter()
    for image, prediction in zip(images, shown, strict=True):
        draw_people(image, prediction, predictor.skeleton, 0.3)
    done = time.perf_counter()
    seconds = predicted - begun
    return {
        "scoring_over_predictor": round((counted - predicted) / seconds, 4),
        "drawing_over_predictor": round((done - drawing) / seconds, 4),
    }


def interleave(
    calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3
) -> dict[str, np.ndarray]:
    """Time each call once per round, in turn, so that all meet the same disturbances.

    Returns:
        (rounds,) milliseconds by name.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + warm_up):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if number >= warm_up:
                times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: np.array(values) for name, values in times.items()}
