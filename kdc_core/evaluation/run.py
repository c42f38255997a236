"""Predict every image of a data set and score the results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import COCO17, Skeleton
from kdc_core.data.annotations import AnnotatedImage, AnnotationError, Annotations
from kdc_core.data.datasets import keypoint_persons
from kdc_core.data.faults import warn_outside
from kdc_core.data.images import ImageError
from kdc_core.data.reading import read_annotations
from kdc_core.evaluation.coco import Result, coco_results, score
from kdc_core.inference.predictor import ImageArrayError

log = logging.getLogger(__name__)

Predict = Callable[[AnnotatedImage], Prediction]
# Wraps the images and their number, to show how far it is.
Progress = Callable[[Iterable[AnnotatedImage], int], Iterable[AnnotatedImage]]
# What an image raises that cannot be read, or is not as annotated.
FAILED = (ImageError, AnnotationError, ImageArrayError)


@dataclass(frozen=True)
class EvaluationResult:
    """What came out.

    Attributes:
        figures: average precisions by name (`kdc_core.evaluation.coco.score`).
        annotations: what was scored against.
        results: COCO results of all images.
        failed: images that could not be read; they count as images without detections.
    """

    figures: dict[str, float]
    annotations: Annotations
    results: list[Result]
    failed: tuple[str, ...]


def evaluate(annotations: Annotations, predict: Predict, progress: Progress) -> EvaluationResult:
    """Run a prediction function over a data set and score what it finds (`score`)."""
    results, failed = predict_all(annotations, predict, progress)
    return EvaluationResult(score(annotations, results), annotations, results, failed)


def predict_all(
    annotations: Annotations, predict: Predict, progress: Progress
) -> tuple[list[Result], tuple[str, ...]]:
    """COCO results of all images, and what could not be read."""
    (results,), failed = predict_each(annotations, [predict], progress)
    return results, failed


def predict_each(
    annotations: Annotations, predicts: list[Predict], progress: Progress
) -> tuple[list[list[Result]], tuple[str, ...]]:
    """COCO results of all images by each function in turn, and what could not be read."""
    results: list[list[Result]] = [[] for _ in predicts]
    failed = []
    for image in progress(annotations.images, len(annotations.images)):
        try:
            for found, predict in zip(results, predicts, strict=True):
                found += coco_results(predict(image), image.id)
        except FAILED as error:
            failed.append(f"{image.file_name}: {error}")
    return results, tuple(failed)


def timed(predict: Predict) -> tuple[Predict, list[float]]:
    """The function, and the seconds of each of its calls as they come."""
    seconds: list[float] = []

    def measured(image: AnnotatedImage) -> Prediction:
        begun = time.perf_counter()
        prediction = predict(image)
        seconds.append(time.perf_counter() - begun)
        return prediction

    return measured, seconds


def read_truth(path: str | Path, skeleton: Skeleton = COCO17, subset: str = "all") -> Annotations:
    """Read annotations to score against; what they give no figures for is logged.

    Args:
        path: COCO .json or .json.gz.
        skeleton: of the predictions.
        subset: `all`, or `coco_persons`: images with labelled persons alone.

    Raises:
        AnnotationError: not such a file, or nobody is in it.
    """
    annotations = read_annotations(path, skeleton)
    if not annotations.people:
        raise AnnotationError(
            f"'{path}' has no person to score: expected annotations of category 1 that are no "
            "crowd regions"
        )
    if subset == "coco_persons":
        annotations = coco_persons(annotations)
        if not annotations.images:
            raise AnnotationError(
                f"'{path}' has no person with keypoints, and coco_persons has no others"
            )
    if not annotations.has_keypoints:
        log.warning(
            "'%s': no person has a labelled keypoint, so there is no AP of keypoints and none of "
            "masks of persons with keypoints",
            path,
        )
    warn_outside(annotations)
    return annotations


def coco_persons(annotations: Annotations) -> Annotations:
    """The images of COCOPersons (`keypoint_persons`), with everybody in them."""
    return annotations.of(image.id for image in keypoint_persons(annotations).images)


def score_coco_persons(done: EvaluationResult) -> dict[str, float]:
    """Score an evaluation of all images once more, on the `coco_persons` among them."""
    few = coco_persons(done.annotations)
    keep = {image.id for image in few.images}
    return score(few, [result for result in done.results if result["image_id"] in keep])
