"""Predict every image of a data set and score the results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import COCO17, CROWDPOSE14, Skeleton
from kdc_core.data.annotations import (
    AnnotatedImage,
    AnnotatedPerson,
    AnnotationError,
    Annotations,
    Progress,
)
from kdc_core.data.datasets import keypoint_persons
from kdc_core.data.faults import warn_outside
from kdc_core.data.headers import check_sizes
from kdc_core.data.images import ImageError, Images
from kdc_core.data.reading import read_annotations
from kdc_core.evaluation.coco import Result, coco_results, mask_or_box, protocol_of, score
from kdc_core.evaluation.protocols import (
    POSE2SEG,
    on_skeleton,
    pose2seg_persons,
    score_pose2seg,
)
from kdc_core.inference.predictor import ImageArrayError

log = logging.getLogger(__name__)

Predict = Callable[[AnnotatedImage], Prediction]
# The same image under each of several settings.
PredictMany = Callable[[AnnotatedImage], Iterable[Prediction]]
# What an image raises that cannot be read, or is not as annotated.
FAILED = (ImageError, AnnotationError, ImageArrayError)


@dataclass(frozen=True)
class EvaluationResult:
    """What came out.

    Attributes:
        protocol: by which was scored.
        figures: average precisions by name (`kdc_core.evaluation.coco.score`).
        annotations: what was scored against.
        results: COCO results of all images.
        failed: images that could not be read; they count as images without detections.
    """

    protocol: str
    figures: dict[str, float]
    annotations: Annotations
    results: list[Result]
    failed: tuple[str, ...]


def evaluate(annotations: Annotations, predict: Predict, progress: Progress) -> EvaluationResult:
    """Run a prediction function over a data set and score what it finds (`score`)."""
    results, failed = predict_all(annotations, predict, progress)
    figures = score(annotations, results)
    return EvaluationResult(protocol_of(annotations), figures, annotations, results, failed)


def evaluate_pose2seg(
    annotations: Annotations, predict: Predict, progress: Progress
) -> EvaluationResult:
    """Run a function that is given keypoints over the persons that Pose2Seg counts, and score it.

    Raises:
        AnnotationError: nobody has keypoints and a mask.
    """
    few = pose2seg_persons(annotations)
    if not few.images:
        raise AnnotationError(
            f"'{annotations.path}' has no person with keypoints and a mask, and Pose2Seg's "
            "protocol counts no others"
        )
    found, failed = predict_all(few, predict, progress)
    results = [{**result, "score": 1.0, "mask_score": 1.0} for result in found]
    return EvaluationResult(POSE2SEG, score_pose2seg(few, results), few, results, failed)


def predict_all(
    annotations: Annotations, predict: Predict, progress: Progress
) -> tuple[list[Result], tuple[str, ...]]:
    """COCO results of all images, and what could not be read."""
    (results,), failed = predict_each(annotations, lambda image: [predict(image)], 1, progress)
    return results, failed


def predict_each(
    annotations: Annotations, predict: PredictMany, count: int, progress: Progress
) -> tuple[list[list[Result]], tuple[str, ...]]:
    """COCO results of all images under each of `count` settings, and what could not be read."""
    results: list[list[Result]] = [[] for _ in range(count)]
    failed = []
    for image in progress(annotations.images, len(annotations.images)):
        try:
            for found, prediction in zip(results, predict(image), strict=True):
                found += coco_results(prediction, image.id)
        except FAILED as error:
            failed.append(f"{image.file_name}: {error}")
    return results, tuple(failed)


def read_truth(
    path: str | Path,
    skeleton: Skeleton = COCO17,
    subset: str = "all",
    images: Images | None = None,
    category: str | None = None,
) -> Annotations:
    """Read annotations to score against.

    Args:
        path: COCO .json or .json.gz.
        skeleton: of the predictions; for COCO's the file may have CrowdPose's, of which those
            that both have are kept (`Annotations.common`).
        subset: `all`, or `coco_persons`: images with labelled persons alone.
        images: which must have the sizes annotated (`check_sizes`); None = they are not read.
        category: as for `read_annotations`.

    Raises:
        AnnotationError: not such a file or not of these images, or nobody is in it.
    """
    also = CROWDPOSE14 if skeleton == COCO17 else None
    annotations = read_annotations(path, skeleton, category, also)
    if annotations.skeleton != skeleton:
        annotations = on_skeleton(annotations, skeleton)
    if not annotations.people:
        raise AnnotationError(
            f"'{path}' has no person to score: expected annotations of category "
            f"{annotations.category!r} that are no crowd regions"
        )
    if subset == "coco_persons":
        annotations = coco_persons(annotations)
        if not annotations.images:
            raise AnnotationError(
                f"'{path}' has no person with keypoints, and coco_persons has no others"
            )
    if images is not None:
        check_sizes(annotations, images)
    bare = persons_without_mask(annotations)
    if 0 < len(bare) < len(annotations.people):
        log.warning(
            "'%s': %d of %d persons have no mask, the first in '%s': for masks each is scored as "
            "a crowd region of its box",
            path,
            len(bare),
            len(annotations.people),
            bare[0][0].file_name,
        )
    warn_outside(annotations)
    return annotations


def persons_without_mask(
    annotations: Annotations,
) -> list[tuple[AnnotatedImage, AnnotatedPerson]]:
    """The persons that are no crowd regions and of whom no pixel is known, with their images."""
    return [
        (image, person)
        for image in annotations.images
        for person in image.people
        if not mask_or_box(person, image.size)[1]
    ]


def coco_persons(annotations: Annotations) -> Annotations:
    """The images of COCOPersons (`keypoint_persons`), with everybody in them."""
    return annotations.of(image.id for image in keypoint_persons(annotations).images)


def score_coco_persons(done: EvaluationResult) -> dict[str, float]:
    """Score an evaluation of all images once more, on the `coco_persons` among them."""
    few = coco_persons(done.annotations)
    keep = {image.id for image in few.images}
    return score(few, [result for result in done.results if result["image_id"] in keep])
