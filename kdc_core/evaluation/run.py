"""Predict every picture of an annotation file and score the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdc_core.data.coco import AnnotatedPicture, read_coco, read_json
from kdc_core.data.pictures import PictureError, Pictures
from kdc_core.evaluation.coco import coco_results, score
from kdc_core.results import Prediction

Progress = Callable[[Iterable[AnnotatedPicture], int], Iterable[AnnotatedPicture]]


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        figures: average precisions by name (`kdc_core.evaluation.coco.score`).
        results: COCO results of all pictures.
        pictures: pictures scored.
        failed: pictures that could not be read; they count as pictures without detections.
    """

    figures: dict[str, float]
    results: list[dict[str, Any]]
    pictures: int
    failed: tuple[str, ...]


def evaluate(
    annotations: str | Path,
    images: str | Path,
    predict: Callable[[Pictures, AnnotatedPicture], Prediction],
    progress: Progress,
) -> Evaluation:
    """Run a prediction function over a data set.

    Args:
        annotations: COCO .json or .json.gz.
        images: folder or tar of the pictures.
        predict: called for each picture.
        progress: wraps the pictures and their number, to show how far it is.
    """
    pictures = read_coco(annotations)
    source = Pictures(images)
    results: list[dict[str, Any]] = []
    failed = []
    for picture in progress(pictures, len(pictures)):
        try:
            results += coco_results(predict(source, picture), picture.id)
        except PictureError as error:
            failed.append(str(error))
    figures = score(read_json(annotations), results)
    return Evaluation(figures, results, len(pictures), tuple(failed))
