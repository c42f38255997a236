"""COCO results and average precision, by faster-coco-eval."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as rle_tools

from kdc_core.codec.results import Prediction
from kdc_core.data.annotations import (
    BOX_FRACTION,
    AnnotatedImage,
    AnnotatedPerson,
    Annotations,
)
from kdc_core.data.masks import Rle, as_rle
from kdc_core.evaluation.figures import KEYPOINT_AP, MASK_AP, MASK_AP_ALL, ROWS

log = logging.getLogger(__name__)

# Suffixes of our figures, and what the scorer calls them.
_PARTS = {"": "AP_all", "50": "AP_50", "75": "AP_75", "_medium": "AP_medium", "_large": "AP_large"}
_WHOLE = {"": "AP_all", "50": "AP_50", "75": "AP_75", "_recall": "AR_all"}  # where sizes are none
# CrowdPose groups images by crowd index: from, to below. Its paper names .1 where its evaluation
# code, from which published figures come, has .2; the index may exceed 1.
CROWD_INDEX = {"easy": (-inf, 0.2), "medium": (0.2, 0.8), "hard": (0.8, inf)}
# Every figure `score` may give: by COCO's protocol, what CrowdPose's may add, and on keypoints
# that CrowdPose has in common with COCO.
FIGURES = tuple(name + part for name in ROWS for part in (*_PARTS, "_recall"))
CROWD_FIGURES = tuple(f"{KEYPOINT_AP}_crowd_{name}" for name in CROWD_INDEX)
COMMON = "_common12"
COMMON_FIGURES = tuple(f"{KEYPOINT_AP}{part}{COMMON}" for part in _WHOLE)
# What `protocol_of` says.
COCO_PROTOCOL, CROWDPOSE = "coco", "crowdpose"
COMMON12 = "common12, not CrowdPose's protocol"

# A COCO result: image_id, category_id, score, bbox, keypoints and, of a mask, segmentation and,
# where masks have scores of their own, mask_score.
Result = dict[str, Any]


def coco_results(prediction: Prediction, image_id: int) -> list[Result]:
    """Write the people of one image as COCO results (keypoints, RLE mask and box in one entry)."""
    results = []
    for person in prediction.persons:
        rle = rle_tools.encode(np.asfortranarray(person.full_mask(prediction.size), np.uint8))
        x0, y0, x1, y1 = (float(v) for v in person.box)
        result = {
            "image_id": image_id,
            "category_id": 1,
            "score": person.score,
            "keypoints": np.round(person.keypoints, 3).ravel().tolist(),
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            # COCO boxes start at the pixel's corner, ours at its edge half a pixel before.
            "bbox": [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0],
        }
        if person.mask_score is not None:
            result["mask_score"] = person.mask_score
        results.append(result)
    return results


def protocol_of(annotations: Annotations) -> str:
    """Whose protocol `score` follows: `coco`; `crowdpose`, where every image has a crowd index;
    `common12 ...`, where the skeleton has only some of CrowdPose's keypoints."""
    images = annotations.images
    if annotations.common is not None:
        return COMMON12
    indexed = images and all(image.crowd_index is not None for image in images)
    return CROWDPOSE if indexed else COCO_PROTOCOL


def score(annotations: Annotations, results: Sequence[Result]) -> dict[str, float]:
    """Score results of `coco_results` against annotations of the same images, by `protocol_of`.

    Returns:
        COCO's protocol: for each of `keypoint_ap`, `mask_ap_keypoint_persons` (persons without
        keypoints count as crowd: neither found nor false) and `mask_ap_full`, the average
        precision and, with the suffixes 50, 75, _medium and _large, its parts; with _recall the
        average recall (AR; of at most 100 masks or 20 poses an image). For masks a person without
        one is a crowd region of its box; no figures of masks where nobody has one. -1 where
        nothing was annotated.
        CrowdPose's: `keypoint_ap`, its parts 50, 75 and _recall, and `_crowd_easy`,
        `_crowd_medium`, `_crowd_hard` (crowd index below .2, below .8, from there). A person's
        scale is .53 of its box.
        On the keypoints in common: `keypoint_ap_common12`, `keypoint_ap50_common12` and so on, by
        the same scale.
    """
    protocol = protocol_of(annotations)
    if protocol == COCO_PROTOCOL:
        figures = Scorer(annotations, results).figures()
        return {name: value for name, value in figures.items() if name in FIGURES}
    scorer = Scorer(annotations, results, by_box=True)
    stats = scorer.stats(KEYPOINT_AP)
    whole = {f"{KEYPOINT_AP}{suffix}": stats[part] for suffix, part in _WHOLE.items()}
    if protocol == COMMON12:
        return {name + COMMON: value for name, value in whole.items()}
    for name, (low, high) in CROWD_INDEX.items():
        ids = [
            image.id
            for image in annotations.images
            if image.crowd_index is not None and low <= image.crowd_index < high
        ]
        whole[f"{KEYPOINT_AP}_crowd_{name}"] = scorer.stats(KEYPOINT_AP, ids)["AP_all"]
    return whole


class Scorer:
    """Annotations and results made ready once, to be scored whole and in parts.

    Args:
        annotations: what is true.
        results: of `coco_results`, of images of these annotations. Those without `segmentation`
            count in figures of keypoints alone, and the other way round.
        by_box: the scale of a person is .53 of its box, whatever its area.
    """

    def __init__(self, annotations: Annotations, results: Sequence[Result], by_box: bool = False):
        self._ids = [image.id for image in annotations.images]
        types = list(annotations.common or range(annotations.skeleton.num_keypoints))
        self._sigmas = [annotations.skeleton.sigmas[kept] for kept in types]
        images = [
            {"id": i.id, "height": i.size[0], "width": i.size[1]} for i in annotations.images
        ]

        def indexed(entries: Iterable[Result]) -> COCO:
            # An id of 0 would pass for no match.
            numbered = [{**entry, "id": number} for number, entry in enumerate(entries, 1)]
            categories = [{"id": 1, "name": "person"}]
            return COCO({"images": images, "annotations": numbered, "categories": categories})

        truth = [(i, p, _truth(i, p, by_box)) for i in annotations.images for p in i.annotations]
        poses = ({**entry, "keypoints": _only(entry, types)} for _, _, entry in truth)
        found = (_pose(result, types) for result in results if "keypoints" in result)
        self._sets = {KEYPOINT_AP: (indexed(poses), indexed(found))}
        if not any(p.segmentation is not None for p in annotations.people):
            return
        mask_results = indexed(_mask(r) for r in results if "segmentation" in r)
        full, labelled = [], []
        for image, person, entry in truth:
            rle, is_mask = mask_or_box(person, image.size)
            ignored = {**entry, "segmentation": rle, "iscrowd": 1}
            person_only = {**ignored, "iscrowd": int(person.crowd or not is_mask)}
            full.append(person_only)
            labelled.append(person_only if entry["num_keypoints"] else ignored)
        self._sets[MASK_AP] = (indexed(labelled), mask_results)
        self._sets[MASK_AP_ALL] = (indexed(full), mask_results)

    def figures(self, ids: Iterable[int] | None = None) -> dict[str, float]:
        """Figures of `score` by COCO's protocol, over the images of these ids (None = all).

        Beside them `mask_ap_full_small`; of small persons COCO annotates no keypoints.
        """
        ids = self._ids if ids is None else list(ids)
        figures: dict[str, float] = {}
        for name in self._sets:
            stats = self.stats(name, ids)
            # Of masks it has three, of at most 1, 10 and 100 an image.
            recall = "AR_all" if name == KEYPOINT_AP else "AR_third"
            figures |= {name + suffix: stats[part] for suffix, part in _PARTS.items()}
            figures[name + "_recall"] = stats[recall]
            if name == MASK_AP_ALL:
                figures[name + "_small"] = stats["AP_small"]
        return figures

    def stats(self, name: str, ids: Iterable[int] | None = None) -> dict[str, float]:
        """What the scorer says, by its own names, rounded to four digits.

        Args:
            name: of `ROWS`.
            ids: of the images scored; None = all.
        """
        evaluation = COCOeval_faster(
            *self._sets[name],
            "keypoints" if name == KEYPOINT_AP else "segm",
            print_function=log.debug,
            kpt_oks_sigmas=self._sigmas,
        )
        evaluation.params.imgIds = self._ids if ids is None else list(ids)
        evaluation.params.catIds = [1]
        evaluation.run()
        return {part: round(value, 4) for part, value in evaluation.stats_as_dict.items()}


def mask_or_box(person: AnnotatedPerson, size: tuple[int, int]) -> tuple[Rle, bool]:
    """A person's mask and True, or the part of its box in an image (height, width) and False."""
    if person.segmentation is not None:
        rle = as_rle(person.segmentation, size)
        if rle_tools.area(rle):
            return rle, True
    height, width = size
    corners = np.clip(person.box, 0, (width, height, width, height))
    x0, y0, x1, y1 = corners.astype(np.float64)
    return as_rle([np.array([x0, y0, x1, y0, x1, y1, x0, y1])], size), False


def _truth(image: AnnotatedImage, person: AnnotatedPerson, by_box: bool) -> Result:
    """A person as a COCO entry, without id and mask."""
    x0, y0, x1, y1 = person.box.tolist()
    width, height = max(0.0, x1 - x0), max(0.0, y1 - y0)
    return {
        "image_id": image.id,
        "category_id": 1,
        "iscrowd": int(person.crowd),
        "area": BOX_FRACTION * width * height if by_box else person.area,
        "bbox": [x0, y0, width, height],
        "keypoints": person.keypoints.ravel().tolist(),
        "num_keypoints": person.num_keypoints,
    }


def _only(entry: Result, types: list[int]) -> list[float]:
    """The keypoints of some types alone."""
    kept: list[float] = np.reshape(entry["keypoints"], (-1, 3))[types].ravel().tolist()
    return kept


def _pose(result: Result, types: list[int]) -> Result:
    """What a result is scored by for its keypoints.

    Its area, for COCO's groups of sizes, is that of the keypoints' box, as the scorers' own
    `loadRes` has it; that would take the box of a result that has everything.
    """
    keypoints = _only(result, types)
    area = float(np.prod(np.ptp(np.reshape(keypoints, (-1, 3))[:, :2], axis=0)))
    return {**_bare(result), "keypoints": keypoints, "area": area}


def _mask(result: Result) -> Result:
    """What a result is scored by for its mask, whose pixels are its area."""
    mask = result["segmentation"]
    area = float(rle_tools.area(mask))
    return {**_bare(result), "score": score_of_mask(result), "segmentation": mask, "area": area}


def score_of_mask(result: Result) -> float:
    """By which a result's mask is ranked: its own score, or where it has none the person's."""
    return float(result["mask_score"] if "mask_score" in result else result["score"])


def _bare(result: Result) -> Result:
    return {**{name: result[name] for name in ("image_id", "category_id", "score")}, "iscrowd": 0}
