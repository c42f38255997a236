"""COCO results and average precision, by faster-coco-eval."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as rle_tools

from kdc_core.codec.results import Prediction
from kdc_core.data.annotations import BOX_FRACTION, AnnotatedImage, Annotations
from kdc_core.data.masks import as_rle

log = logging.getLogger(__name__)

# Suffixes of our figures, and what the scorer calls them.
_PARTS = {"": "AP_all", "50": "AP_50", "75": "AP_75", "_medium": "AP_medium", "_large": "AP_large"}
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


def score(annotations: Annotations, results: Sequence[Result]) -> dict[str, float]:
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
    scorer = Scorer(annotations, results, by_box=True)
    whole = scorer.stats("keypoint_ap")
    figures = {f"keypoint_ap{part}": whole[_PARTS[part]] for part in ("", "50", "75")}
    for name, (low, high) in CROWD_INDEX.items():
        ids = [i.id for i in images if i.crowd_index is not None and low <= i.crowd_index < high]
        figures[f"keypoint_ap_crowd_{name}"] = scorer.stats("keypoint_ap", ids)["AP_all"]
    return figures


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
        self._sigmas = annotations.skeleton.sigmas
        images = [
            {"id": i.id, "height": i.size[0], "width": i.size[1]} for i in annotations.images
        ]

        def indexed(entries: Iterable[Result]) -> COCO:
            # An id of 0 would pass for no match.
            numbered = [{**entry, "id": number} for number, entry in enumerate(entries, 1)]
            categories = [{"id": 1, "name": "person"}]
            return COCO({"images": images, "annotations": numbered, "categories": categories})

        masks = all(image.has_masks for image in annotations.images)
        truth = [entry for i in annotations.images for entry in _truth(i, masks, by_box)]
        found = (_sized(result, "keypoints") for result in results if "keypoints" in result)
        self._sets = {"keypoint_ap": (indexed(truth), indexed(found))}
        if masks:
            crowd = (int(entry["iscrowd"] or not entry["num_keypoints"]) for entry in truth)
            labelled = ({**e, "iscrowd": c} for e, c in zip(truth, crowd, strict=True))
            found = (_sized(r, "segmentation") for r in results if "segmentation" in r)
            mask_results = indexed(found)
            self._sets["mask_ap_keypoint_persons"] = (indexed(labelled), mask_results)
            self._sets["mask_ap_full"] = (self._sets["keypoint_ap"][0], mask_results)

    def figures(self, ids: Iterable[int] | None = None) -> dict[str, float]:
        """Figures of `score` by COCO's protocol, over the images of these ids (None = all).

        Beside them `mask_ap_full_small`; of small persons COCO annotates no keypoints.
        """
        ids = self._ids if ids is None else list(ids)
        figures: dict[str, float] = {}
        for name in self._sets:
            stats = self.stats(name, ids)
            # Of masks it has three, of at most 1, 10 and 100 an image.
            recall = "AR_all" if name == "keypoint_ap" else "AR_third"
            figures |= {name + suffix: stats[part] for suffix, part in _PARTS.items()}
            figures[name + "_recall"] = stats[recall]
            if name == "mask_ap_full":
                figures[name + "_small"] = stats["AP_small"]
        return figures

    def stats(self, name: str, ids: Iterable[int] | None = None) -> dict[str, float]:
        """What the scorer says, by its own names, rounded to four digits.

        Args:
            name: of `PROTOCOLS`.
            ids: of the images scored; None = all.
        """
        evaluation = COCOeval_faster(
            *self._sets[name],
            "keypoints" if name == "keypoint_ap" else "segm",
            print_function=log.debug,
            kpt_oks_sigmas=list(self._sigmas),
        )
        evaluation.params.imgIds = self._ids if ids is None else list(ids)
        evaluation.params.catIds = [1]
        evaluation.run()
        return {part: round(value, 4) for part, value in evaluation.stats_as_dict.items()}


def _truth(image: AnnotatedImage, masks: bool, by_box: bool) -> list[Result]:
    """The persons of an image as COCO entries, without ids."""
    entries = []
    for person in image.persons:
        x0, y0, x1, y1 = person.box.tolist()
        entry = {
            "image_id": image.id,
            "category_id": 1,
            "iscrowd": int(person.crowd),
            "area": BOX_FRACTION * (x1 - x0) * (y1 - y0) if by_box else person.area,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "keypoints": person.keypoints.ravel().tolist(),
            "num_keypoints": person.num_keypoints,
        }
        if masks:
            entry["segmentation"] = as_rle(person.segmentation, image.size)
        entries.append(entry)
    return entries


def _sized(result: Result, key: str) -> Result:
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
