"""COCO results and average precision, by pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kdc_core.codec.results import Prediction

# Positions of the summary's entries in COCOeval.stats, by kind of evaluation.
_STATS = {
    "segm": {"": 0, "50": 1, "75": 2, "_medium": 4, "_large": 5, "_recall": 8},
    "keypoints": {"": 0, "50": 1, "75": 2, "_medium": 3, "_large": 4, "_recall": 5},
}
# CrowdPose: a person's scale is this share of its box, and pictures are grouped by crowd index.
BOX_SHARE = 0.53
CROWD_INDEX = {"easy": (0.0, 0.1), "medium": (0.1, 0.8), "hard": (0.8, 1.01)}
# Every figure `score` may give.
FIGURES = tuple(
    name + suffix
    for name, kind in (
        ("keypoint_ap", "keypoints"),
        ("mask_ap_keypoint_persons", "segm"),
        ("mask_ap_full", "segm"),
    )
    for suffix in _STATS[kind]
)
# What `score_crowdpose` may add.
CROWD_FIGURES = tuple(f"keypoint_ap_crowd_{name}" for name in CROWD_INDEX)


def coco_results(prediction: Prediction, image_id: int) -> list[dict[str, Any]]:
    """Write the people of one image as COCO results (keypoints, RLE mask and box in one entry)."""
    results = []
    for person in prediction.persons:
        rle = rle_tools.encode(np.asfortranarray(person.full_mask(prediction.size), np.uint8))
        x0, y0, x1, y1 = (float(v) for v in person.box)
        keypoints = np.round(person.keypoints, 3)
        results.append(
            {
                "image_id": image_id,
                "category_id": 1,
                "score": person.score,
                "keypoints": keypoints.ravel().tolist(),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                # COCO boxes start at the pixel's corner, ours at its edge half a pixel before.
                "bbox": [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0],
            }
        )
    return results


def complete(annotations: dict[str, Any]) -> dict[str, Any]:
    """Fill in what pycocotools asks for and `read_coco` does without: a copy.

    Ids by position, crowd 0, category 1, keypoints unlabelled, their number counted, area of the
    box.
    """
    content = copy.deepcopy(annotations)
    content.setdefault("categories", [{"id": 1, "name": "person"}])
    for index, entry in enumerate(content["annotations"], 1):
        keypoints = entry.setdefault("keypoints", [])
        entry.setdefault("id", index)
        entry.setdefault("iscrowd", 0)
        entry.setdefault("category_id", 1)
        entry.setdefault("num_keypoints", sum(v > 0 for v in keypoints[2::3]))
        entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
    longest = max((len(entry["keypoints"]) for entry in content["annotations"]), default=0)
    for entry in content["annotations"]:
        entry["keypoints"] = entry["keypoints"] or [0] * longest
    return content


def score(
    annotations: dict[str, Any],
    results: list[dict[str, Any]],
    sigmas: tuple[float, ...] | None = None,
) -> dict[str, float]:
    """Score results of `coco_results` against COCO annotations of the same images.

    Returns:
        For each of `keypoint_ap`, `mask_ap_keypoint_persons` (persons without keypoints count as
        crowd: neither found nor false) and `mask_ap_full`: the average precision and, with the
        suffixes 50, 75, _medium and _large, its parts; with _recall the average recall (AR; of at
        most 100 masks or 20 poses a picture). -1 where nothing was annotated.
    """
    annotations = complete(annotations)
    masked = copy.deepcopy(annotations)
    for entry in masked["annotations"]:
        if not entry.get("num_keypoints"):
            entry["iscrowd"] = 1
    figures: dict[str, float] = {}
    for name, truth, kind in (
        ("keypoint_ap", annotations, "keypoints"),
        ("mask_ap_keypoint_persons", masked, "segm"),
        ("mask_ap_full", annotations, "segm"),
    ):
        persons = [a for a in truth["annotations"] if a["category_id"] == 1]
        if kind == "segm" and not all(a.get("segmentation") for a in persons):
            continue
        stats = _evaluate(truth, results, kind, sigmas)
        figures |= {name + suffix: stats[at] for suffix, at in _STATS[kind].items()}
    return figures


def score_by_protocol(
    annotations: dict[str, Any],
    results: list[dict[str, Any]],
    sigmas: tuple[float, ...] | None = None,
) -> dict[str, float]:
    """Score by CrowdPose's protocol where every picture has a crowd index, else by COCO's."""
    images = annotations["images"]
    if sigmas is not None and images and all("crowdIndex" in image for image in images):
        return score_crowdpose(annotations, results, sigmas)
    return score(annotations, results, sigmas)


def score_crowdpose(
    annotations: dict[str, Any], results: list[dict[str, Any]], sigmas: tuple[float, ...]
) -> dict[str, float]:
    """Score results by CrowdPose's protocol: over all pictures and by their crowd index.

    A person's scale is its box's area times .53; at most 20 detections a picture.

    Args:
        annotations: with a `crowdIndex` for each picture.
        results: of `coco_results`.
        sigmas: OKS constants of the skeleton.

    Returns:
        `keypoint_ap`, its parts 50 and 75, and `_crowd_easy`, `_crowd_medium`, `_crowd_hard`
        (crowd index below .1, up to .8, above). -1 where nothing was annotated.
    """
    truth = complete(annotations)
    for entry in truth["annotations"]:
        entry["area"] = BOX_SHARE * entry["bbox"][2] * entry["bbox"][3]
    stats = _evaluate(truth, results, "keypoints", sigmas)
    figures = {"keypoint_ap" + s: stats[at] for s, at in (("", 0), ("50", 1), ("75", 2))}
    for name, (low, high) in CROWD_INDEX.items():
        keep = {i["id"] for i in truth["images"] if low <= i["crowdIndex"] < high}
        few = {
            **truth,
            "images": [i for i in truth["images"] if i["id"] in keep],
            "annotations": [a for a in truth["annotations"] if a["image_id"] in keep],
        }
        mine = [r for r in results if r["image_id"] in keep]
        figures[f"keypoint_ap_crowd_{name}"] = _evaluate(few, mine, "keypoints", sigmas)[0]
    return figures


def _evaluate(
    annotations: dict[str, Any],
    results: list[dict[str, Any]],
    kind: str,
    sigmas: tuple[float, ...] | None = None,
) -> Any:
    # With all keys at once pycocotools would size every result by its box.
    own = (
        "image_id",
        "category_id",
        "score",
        "keypoints" if kind == "keypoints" else "segmentation",
    )
    results = [{key: result[key] for key in own} for result in results if own[-1] in result]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        found = truth.loadRes(copy.deepcopy(results)) if results else COCO()
        if not results:
            found.dataset = {
                "images": truth.dataset["images"],
                "annotations": [],
                "categories": truth.dataset.get("categories", []),
            }
            found.createIndex()
        evaluation = COCOeval(truth, found, kind)
        evaluation.params.catIds = [1]
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [round(float(value), 4) for value in evaluation.stats]
