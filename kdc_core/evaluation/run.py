"""Predict every picture of an annotation file and score the results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import COCO17, Skeleton
from kdc_core.data.annotations import AnnotatedImage, AnnotationError, read_coco, read_json
from kdc_core.data.datasets import keypoint_persons
from kdc_core.data.faults import tell_outside
from kdc_core.data.images import ImageError, Images
from kdc_core.evaluation.coco import coco_results, score, score_by_protocol

log = logging.getLogger(__name__)

Progress = Callable[[Iterable[AnnotatedImage], int], Iterable[AnnotatedImage]]


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        figures: average precisions by name (`kdc_core.evaluation.coco.score`).
        annotations: what was scored against.
        results: COCO results of all pictures.
        pictures: pictures scored.
        failed: pictures that could not be read; they count as pictures without detections.
    """

    figures: dict[str, float]
    annotations: dict[str, Any]
    results: list[dict[str, Any]]
    pictures: int
    failed: tuple[str, ...]


def evaluate(
    annotations: str | Path,
    images: str | Path,
    predict: Callable[[Images, AnnotatedImage], Prediction],
    progress: Progress,
    skeleton: Skeleton = COCO17,
    subset: str = "all",
) -> Evaluation:
    """Run a prediction function over a data set.

    Annotations with a crowd index for each picture are scored by CrowdPose's protocol.

    Args:
        annotations: COCO .json or .json.gz.
        images: folder or tar of the pictures.
        predict: called for each picture.
        progress: wraps the pictures and their number, to show how far it is.
        skeleton: of the predictions.
        subset: `all`, or `coco_persons` (`keypoint_persons`).

    Raises:
        AnnotationError, ImageError: annotations or pictures cannot be opened, or nobody is in
            them.
    """
    pictures = read_truth(annotations, skeleton)
    content = read_json(annotations)
    if subset == "coco_persons":
        pictures = keypoint_persons(pictures)
        if not pictures:
            raise AnnotationError(
                f"'{annotations}' has no person with keypoints, and coco_persons has no others"
            )
        content = _of_pictures(content, pictures)
    results, failed = predict_all(pictures, Images(images), predict, progress)
    figures = score_by_protocol(content, results, skeleton.sigmas)
    return Evaluation(figures, content, results, len(pictures), failed)


def read_truth(annotations: str | Path, skeleton: Skeleton) -> list[AnnotatedImage]:
    """Read pictures to score; what they have no figures for is logged.

    Raises:
        AnnotationError: not such a file, or it has no person at all.
    """
    pictures = read_coco(annotations, skeleton.num_keypoints)
    persons = [p for picture in pictures for p in picture.persons if not p.crowd]
    if not persons:
        raise AnnotationError(
            f"'{annotations}' has no person to score: expected annotations of category 1 that are "
            "no crowd regions"
        )
    if not any((person.keypoints[:, 2] > 0).any() for person in persons):
        log.warning(
            "'%s': no person has a labelled keypoint, so there is no AP of keypoints and none of "
            "masks of persons with keypoints",
            annotations,
        )
    tell_outside(annotations, pictures)
    return pictures


def score_coco_persons(
    annotations: str | Path, done: Evaluation, skeleton: Skeleton = COCO17
) -> dict[str, float]:
    """Score an evaluation of all pictures once more, on the `coco_persons` among them."""
    pictures = keypoint_persons(read_coco(annotations, skeleton.num_keypoints))
    keep = {picture.id for picture in pictures}
    results = [result for result in done.results if result["image_id"] in keep]
    return score(_of_pictures(done.annotations, pictures), results, skeleton.sigmas)


def _of_pictures(content: dict[str, Any], pictures: list[AnnotatedImage]) -> dict[str, Any]:
    """The part of a COCO file that is about these pictures."""
    keep = {picture.id for picture in pictures}
    return {
        **content,
        "images": [i for i in content["images"] if i["id"] in keep],
        "annotations": [a for a in content["annotations"] if a["image_id"] in keep],
    }


def predict_all(
    pictures: list[AnnotatedImage],
    source: Images,
    predict: Callable[[Images, AnnotatedImage], Prediction],
    progress: Progress,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """COCO results of all pictures, and what could not be read."""
    results: list[dict[str, Any]] = []
    failed = []
    for picture in progress(pictures, len(pictures)):
        try:
            results += coco_results(predict(source, picture), picture.id)
        except (ImageError, ValueError) as error:
            failed.append(f"{picture.file_name}: {error}")
    return results, tuple(failed)
