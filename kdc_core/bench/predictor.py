"""`kdc bench predictor`: network, decode, and the whole predictor with 1 and 30 people."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from kdc_core.data.annotations import decode_mask, read_coco, read_json
from kdc_core.data.images import Images
from kdc_core.evaluation.coco import coco_results, score
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.manifest import OUTPUTS
from kdc_core.inference.predictor import Predictor, letterbox_image
from kdc_core.show.drawing import draw_people

FRAME = (480, 640)
THREADS = 2


def bench_predictor(model: str, rounds: int) -> dict[str, float]:
    """Time a model on VGA frames, two threads.

    Args:
        model: shipped model's name or an .onnx file.
        rounds: interleaved rounds; medians are taken.

    Returns:
        network_ms: the exported network, cut off before decode. decode_over_network: the rest
        of the exported program over it. people_30_over_1: the whole predictor on a picture of
        30 people over one of 1. end_to_end_over_network: the predictor (30 people) over the
        network. frames_per_second: of the predictor (30 people). found_1, found_30: people
        found in the two pictures. scoring_over_predictor, drawing_over_predictor: over the
        sample pictures, what COCO scoring and overlays add to prediction.
    """
    from kdc_core.inference.export import cut_before_decode
    from kdc_core.inference.runtimes.choice import find_model
    from kdc_core.inference.runtimes.onnxruntime import make_session

    path = find_model(model, (".onnx",))
    network = make_session(cut_before_decode(path).SerializeToString(), THREADS)
    program = make_session(str(path), THREADS)
    predictor = Predictor.from_pretrained(model, "onnxruntime", threads=THREADS)
    one, many = one_person_picture(), paste_people(30)
    frame = letterbox_image(many, predictor.letterbox(FRAME))
    # What the figures are of: a crowd that a lower threshold shows whole.
    everybody = Predictor(predictor.runtime)
    everybody.thresholds = Thresholds(0.1, 0.3, 0.5)
    times = interleave(
        {
            "network": lambda: network.run(None, {"frame": frame}),
            "program": lambda: program.run(list(OUTPUTS), {"frame": frame}),
            "one": lambda: everybody(one),
            "many": lambda: everybody(many),
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
        "frames_per_second": round(1e3 / medians["many"], 2),
        "found_1": float(len(everybody(one))),
        "found_30": float(len(everybody(many))),
        **_extras(predictor),
        "rounds": float(rounds),
    }


def _extras(predictor: Predictor) -> dict[str, float]:
    """Time of scoring and of drawing over that of prediction, on the sample pictures."""
    samples = Path(str(files("kdc_core") / "samples"))
    source, annotated = Images(samples), read_coco(samples / "annotations.json")
    scored = Predictor(predictor.runtime)
    scored.thresholds = Thresholds(0.0, 0.0, 0.5)
    images = [source.read(picture.file_name) for picture in annotated]
    found, drawn, results = [], [], []
    begun = time.perf_counter()
    for image in images:
        found.append(scored(image))
    predicted = time.perf_counter()
    for picture, prediction in zip(annotated, found, strict=True):
        results += coco_results(prediction, picture.id)
    score(read_json(samples / "annotations.json"), results)
    counted = time.perf_counter()
    shown = [predictor(image) for image in images]
    drawing = time.perf_counter()
    for image, prediction in zip(images, shown, strict=True):
        drawn.append(draw_people(image, prediction, predictor.skeleton, 0.3))
    done = time.perf_counter()
    seconds = predicted - begun
    return {
        "scoring_over_predictor": round((counted - predicted) / seconds, 4),
        "drawing_over_predictor": round((done - drawing) / seconds, 4),
    }


def interleave(
    calls: dict[str, Callable[[], object]], rounds: int, warm_up: int = 3
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


def one_person_picture() -> np.ndarray:
    """A VGA frame with one person of the sample pictures on grey: (480, 640, 3) uint8 RGB."""
    return paste_people(1)


def paste_people(count: int) -> np.ndarray:
    """A VGA frame with so many people of the sample pictures side by side on grey.

    Args:
        count: 1 to 30.
    """
    samples = Path(str(files("kdc_core") / "samples"))
    cutouts = _cutouts(samples)
    canvas = np.full((*FRAME, 3), 114, np.uint8)
    columns, rows = 10, 3
    cell = (FRAME[0] // rows, FRAME[1] // columns)
    for place in range(count):
        image, mask = cutouts[place % len(cutouts)]
        scale = min(cell[0] / image.shape[0], cell[1] / image.shape[1])
        size = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
        row, column = divmod(place, columns)
        y = row * cell[0] + (cell[0] - size[1]) // 2
        x = column * cell[1] + (cell[1] - size[0]) // 2
        window = canvas[y : y + size[1], x : x + size[0]]
        window[inside] = small[inside]
    return canvas


def _cutouts(samples: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Well visible people of the sample pictures, cut out: (image, mask) each."""
    pictures = Images(samples)
    cutouts = []
    for annotated in read_coco(samples / "annotations.json"):
        image = pictures.read(annotated.file_name)
        for person in annotated.persons:
            x0, y0, x1, y1 = (int(v) for v in person.box)
            whole = (person.keypoints[:, 2] > 0).sum() >= 12
            upright = y1 - y0 > 1.5 * (x1 - x0) and y1 - y0 > 80
            if whole and upright and not person.crowd and person.segmentation:
                mask = decode_mask(person.segmentation, image.shape[:2])
                cutouts.append((image[y0:y1, x0:x1], mask[y0:y1, x0:x1]))
    return cutouts
