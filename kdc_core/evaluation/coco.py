"""COCO results and average precision, by faster-coco-eval."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as rle_tools

from kdc_core.codec.results import Prediction
from kdc_core.data.annotations import BOX_FRACTION, AnnotatedImage, Annotations, as_rle

log = logging.getLogger(__name__)

# Suffixes of our figures, and what the scorer calls them: of masks its AR_third is that of at most
# 100 persons an image.
_PARTS = {"": "AP_all", "50": "AP_50", "75": "AP_75", "_medium": "AP_medium", "_large": "AP_large"}
_RECALL = {"segm": "AR_third", "keypoints": "AR_all"}
# CrowdPose groups images by crowd index: from, to below.
CROWD_INDEX = {"easy": (0.0, 0.1), "medium": (0.1, 0.8), "hard": (0.8, 1.01)}
PROTOCOLS = ("keypoint_ap", "mask_ap_keypoint_persons", "mask_ap_full")
# Every figure `score` may give, and what it may add by CrowdPose's protocol.
FIGURES = tuple(name + part for name in PROTOCOLS for part in (*_PARTS, "_recall"))
CROWD_FIGURES = tuple(f"keypoint_ap_crowd_{name}" for name in CROWD_INDEX)

# A COCO result: image_id, category_id, score, bbox, keypoints and, of a mask, segmentation.
Result = dict[str, Any]


def coco_results(prediction: Prediction, image_id: int) -> list[Result]:
    """Write the people of one image as COCO results (keypoints, RLE mask and box in one entry)."""
    results = []
    for person in prediction.persons:
        rle = rle_tools.encode(np.asfortranarray(person.full_mask(prediction.size), np.uint8))
        x0, y0, x1, y1 = (float(v) for v in person.box)
        results.append(
            {
                "image_id": image_id,
                "category_id": 1,
                "score": person.score,
                "keypoints": np.round(person.keypoints, 3).ravel().tolist(),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                # COCO boxes start at the pixel's corner, ours at its edge half a pixel before.
                "bbox": [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0],
            }
        )
    return results


def score(annotations: Annotations, results: list[Result]) -> dict[str, float]:
    """Score results of `coco_results` against annotations of the same images.

    By CrowdPose's protocol where every image has a crowd index, else by COCO's.

    Returns:
        COCO's protocol: for each of `keypoint_ap`, `mask_ap_keypoint_persons` (persons without
        keypoints count as crowd: neither found nor false) and `mask_ap_full`, the average
        precision and, with the suffixes 50, 75, _medium and _large, its parts; with _recall the
        average recall (AR; of at most 100 masks or 20 poses an image). No figures of masks where
        annotations lack them. -1 where nothing was annotated.
        CrowdPose's: `keypoint_ap`, its parts 50 and 75, and `_crowd_easy`, `_crowd_medium`,
        `_crowd_hard` (crowd index below .1, below .8, above). A person's scale is .53 of its box.
    """
    images = annotations.images
    if not images or any(image.crowd_index is None for image in images):
        figures = Scorer(annotations, results).figures()
        return {name: value for name, value in figures.items() if name in FIGURES}
    persons_by_box = (replace(image, persons=_scaled_by_box(image)) for image in images)
    scorer = Scorer(replace(annotations, images=tuple(persons_by_box)), results)
    whole = scorer.stats("keypoints")
    figures = {f"keypoint_ap{part}": whole[_PARTS[part]] for part in ("", "50", "75")}
    for name, (low, high) in CROWD_INDEX.items():
        ids = [i.id for i in images if i.crowd_index is not None and low <= i.crowd_index < high]
        figures[f"keypoint_ap_crowd_{name}"] = scorer.stats("keypoints", ids)["AP_all"]
    return figures


def _scaled_by_box(image: AnnotatedImage) -> tuple[Any, ...]:
    areas = (BOX_FRACTION * float(np.prod(p.box[2:] - p.box[:2])) for p in image.persons)
    return tuple(replace(p, area=area) for p, area in zip(image.persons, areas, strict=True))


class Scorer:
    """Annotations and results made ready once, to be scored whole and in parts.

    Args:
        annotations: what is true.
        results: of `coco_results`, of images of these annotations. Those without `segmentation`
            count in figures of keypoints alone, and the other way round.
    """

    def __init__(self, annotations: Annotations, results: Iterable[Result]):
        self.sigmas = annotations.skeleton.sigmas
        self.has_masks = all(image.has_masks for image in annotations.images)
        self._sizes = {image.id: image.size for image in annotations.images}
        self._truth = {image.id: _truth(image, self.has_masks) for image in annotations.images}
        self._found: dict[int, list[Result]] = {image.id: [] for image in annotations.images}
        for result in results:
            self._found[result["image_id"]].append(result)

    def figures(self, ids: Iterable[int] | None = None) -> dict[str, float]:
        """Figures of `score` by COCO's protocol, over the images of these ids (None = all).

        Beside them `mask_ap_full_small`; of small persons COCO annotates no keypoints.
        """
        images = list(self._sizes if ids is None else ids)
        figures: dict[str, float] = {}
        for name in PROTOCOLS if self.has_masks else PROTOCOLS[:1]:
            kind = "keypoints" if name == "keypoint_ap" else "segm"
            stats = self.stats(kind, images, name == "mask_ap_keypoint_persons")
            parts = {**_PARTS, "_recall": _RECALL[kind]}
            if name == "mask_ap_full":
                parts["_small"] = "AP_small"
            figures |= {name + suffix: stats[part] for suffix, part in parts.items()}
        return figures

    def stats(
        self, kind: str, ids: Iterable[int] | None = None, keypoint_persons: bool = False
    ) -> dict[str, float]:
        """What the scorer says, by its own names, rounded to four digits.

        Args:
            kind: `keypoints` or `segm`.
            ids: of the images scored; None = all.
            keypoint_persons: persons without keypoints count as crowd.
        """
        images = list(self._sizes if ids is None else ids)
        truth = [
            # Copied, for the scorer writes into entries.
            {**entry, "iscrowd": int(entry["iscrowd"] or not entry["num_keypoints"])}
            if keypoint_persons
            else {**entry}
            for image in images
            for entry in self._truth[image]
        ]
        key = "segmentation" if kind == "segm" else "keypoints"
        found = [_sized(r, key) for image in images for r in self._found[image] if key in r]
        evaluation = COCOeval_faster(
            self._dataset(images, truth),
            self._dataset(images, found),
            kind,
            print_function=log.debug,
            kpt_oks_sigmas=list(self.sigmas),
        )
        evaluation.params.catIds = [1]
        evaluation.run()
        return {name: round(value, 4) for name, value in evaluation.stats_as_dict.items()}

    def _dataset(self, images: list[int], entries: list[dict[str, Any]]) -> COCO:
        sizes = {image: self._sizes[image] for image in images}
        return COCO(
            {
                "images": [{"id": i, "height": h, "width": w} for i, (h, w) in sizes.items()],
                # An id of 0 would pass for no match.
                "annotations": [{**e, "id": number} for number, e in enumerate(entries, 1)],
                "categories": [{"id": 1, "name": "person"}],
            }
        )


def _truth(image: AnnotatedImage, masks: bool) -> list[dict[str, Any]]:
    """The persons of an image as COCO entries, without ids."""
    entries = []
    for person in image.persons:
        x0, y0, x1, y1 = person.box.tolist()
        entry = {
            "image_id": image.id,
            "category_id": 1,
            "iscrowd": int(person.crowd),
            "area": person.area,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "keypoints": person.keypoints.ravel().tolist(),
            "num_keypoints": person.num_keypoints,
        }
        if masks:
            entry["segmentation"] = as_rle(person.segmentation, image.size)
        entries.append(entry)
    return entries


def _sized(result: Result, key: str) -> dict[str, Any]:
    """A result with what it is scored by alone, and its area for COCO's groups of sizes.

    Of a mask its pixels, of keypoints their box, as the scorers' own `loadRes` has it; that would
    take the box of a result that has everything.
    """
    if key == "segmentation":
        area = float(rle_tools.area(result[key]))
    else:
        points = np.reshape(result[key], (-1, 3))[:, :2]
        area = float(np.prod(np.ptp(points, axis=0)))
    kept = {name: result[name] for name in ("image_id", "category_id", "score", key)}
    return {**kept, "area": area, "iscrowd": 0}
