"""Which given persons are right, and how precision and recall follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdc_core.data.annotations import Annotations
from kdc_core.evaluation.calibration import precision_recall_curve

from .conftest import make_person
from .test_misses import read


def box_mask(x: int, y: int, w: int, h: int) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def person(number: int, x: float, **more: Any) -> dict[str, Any]:
    points = make_person(x, 20, 60)
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 17,
        "keypoints": points.ravel().tolist(),
        "area": 60.0 * 110,
        "bbox": [x, 20, 60, 120],
        "segmentation": box_mask(int(x), 20, 60, 120),
        **more,
    }


def given(x: float, score: float) -> dict[str, Any]:
    entry = person(0, x)
    return {k: entry[k] for k in ("image_id", "category_id", "keypoints", "segmentation")} | {
        "score": score
    }


def truth(*persons: dict[str, Any]) -> Annotations:
    image = {"id": 1, "file_name": "1.jpg", "height": 200, "width": 640}
    return read({"images": [image], "annotations": list(persons)})


def test_right_wrong_and_taken_twice() -> None:
    annotations = truth(person(1, 20), person(2, 200))
    results = [given(20, 0.9), given(21, 0.7), given(400, 0.5), given(200, 0.3)]
    curve = precision_recall_curve(annotations, results)
    assert curve.at(0.8) == {"confidence": 0.8, "precision": 1, "recall": 0.5, "recall_all": 0.5}
    assert curve.at(0.6)["precision"] == 0.5, "the second on the same person is wrong"
    assert curve.at(0.4)["precision"] == pytest.approx(1 / 3, abs=1e-3)
    low = curve.at(0.1)
    assert low["precision"] == 0.5 and low["recall"] == 1
    assert (np.diff(curve.recall) <= 0).all()


def test_persons_without_keypoints_count_by_their_mask_and_crowds_not_at_all() -> None:
    unlabelled = person(1, 20, num_keypoints=0, keypoints=[0] * 51)
    crowd = person(2, 300, iscrowd=1, num_keypoints=0, keypoints=[0] * 51)
    results = [given(22, 0.9), given(300, 0.8)]
    figures = precision_recall_curve(truth(unlabelled, crowd), results).at(0.5)
    assert figures["precision"] == 1, "one right by its mask, one neutral"
    assert figures["recall_all"] == 1 and figures["recall"] == 0
    beside = precision_recall_curve(truth(unlabelled, crowd), [given(70, 0.9)]).at(0.5)
    assert beside["precision"] == 0


def test_nothing_given_is_nothing_wrong() -> None:
    figures = precision_recall_curve(truth(person(1, 20)), []).at(0.5)
    assert figures["precision"] == 1 and figures["recall"] == 0
