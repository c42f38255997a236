"""Misses are called by their names, and the breakdown scores the right images."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle_tools

from kdc_core.codec.skeleton import COCO17, Skeleton
from kdc_core.data.annotations import Annotations
from kdc_core.data.masks import as_rle
from kdc_core.data.reading import read_annotations
from kdc_core.evaluation.breakdown import breakdown
from kdc_core.evaluation.coco import Result, Scorer, score
from kdc_core.evaluation.misses import KINDS, Miss, count_misses, find_misses

from .conftest import make_person

SIZE = (240, 400)
SCALE = 80.0


def rle(box: tuple[float, float, float, float]) -> dict[str, Any]:
    mask = np.zeros(SIZE, np.uint8, order="F")
    x0, y0, x1, y1 = (max(0, round(v)) for v in box)
    mask[y0:y1, x0:x1] = 1
    coded = rle_tools.encode(mask)
    return {"size": coded["size"], "counts": coded["counts"].decode()}


def corners(x: float, y: float) -> tuple[float, float, float, float]:
    """Box of a person of `SCALE`, 80 x 160 pixels, with its corner at (x, y)."""
    return (x, y, x + SCALE, y + 2 * SCALE)


def truth(number: int, x: float, y: float = 40, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 7,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 17,
        "keypoints": make_person(x, y, SCALE).ravel().tolist(),
        "segmentation": rle(corners(x, y)),
        "bbox": [x, y, SCALE, 2 * SCALE],
        "area": 2 * SCALE**2,
        **changes,
    }


def found(x: float, y: float = 40, score: float = 0.9, **changes: Any) -> dict[str, Any]:
    return {
        "image_id": 7,
        "category_id": 1,
        "score": score,
        "bbox": [x, y, SCALE, 2 * SCALE],
        "keypoints": make_person(x, y, SCALE).ravel().tolist(),
        "segmentation": rle(corners(x, y)),
        **changes,
    }


def read(content: dict[str, Any], skeleton: Skeleton = COCO17) -> Annotations:
    """A COCO file's content as the reader gives it."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(content, file)
        file.flush()
        return read_annotations(file.name, skeleton)


def annotated(*people: dict[str, Any]) -> Annotations:
    image = {"id": 7, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    return read({"images": [image], "annotations": list(people), "categories": categories})


def points(*parts: tuple[float, slice]) -> list[float]:
    """Keypoints of a person at the given x, by range of keypoints."""
    keypoints = np.zeros((17, 3), np.float32)
    for x, part in parts:
        keypoints[part] = make_person(x, 40, SCALE)[part]
    return keypoints.ravel().tolist()


def named(people: list[dict[str, Any]], results: list[Result]) -> list[tuple[Any, ...]]:
    misses = find_misses(annotated(*people), results, 0.5)
    return [(miss.kind, miss.annotation, miss.result) for miss in misses]


ALL = slice(None)
MIRRORED = make_person(20, 40, SCALE)[list(COCO17.flip)].ravel().tolist()
NO_KEYPOINTS: dict[str, Any] = {"num_keypoints": 0, "keypoints": [0] * 51}
AWAY = rle((380, 0, 400, 20))


@pytest.mark.parametrize(
    ("people", "results", "expected"),
    [
        ([truth(1, 20)], [found(22)], []),
        ([truth(1, 20)], [], [("missed", 1, None)]),
        ([truth(1, 20)], [found(20, score=0.49)], [("missed", 1, None)]),
        ([truth(1, 20)], [found(32, 52)], [("jitter", 1, 0)]),
        # Left and right exchanged, on the right pixels.
        ([truth(1, 20)], [found(20, keypoints=MIRRORED)], [("swap", 1, 0)]),
        # The mask is the person's, the keypoints are nobody's.
        ([truth(1, 20)], [found(20, keypoints=points((300, ALL)))], [("misplaced", 1, 0)]),
        # The second detection has the first person's arms and legs.
        (
            [truth(1, 20), truth(2, 130)],
            [found(20), found(130, keypoints=points((130, slice(7)), (20, slice(7, 17))))],
            [("swap", 2, 1)],
        ),
        # One detection over two persons, more of the first one.
        (
            [truth(1, 20), truth(2, 130)],
            [found(20, keypoints=points((20, slice(11)), (130, slice(11, 17))))],
            [("swap", 2, 0)],
        ),
        # Behind somebody who is found: that detection is not about this person.
        ([truth(1, 20), truth(2, 32)], [found(20)], [("missed", 2, None)]),
        (
            [truth(1, 20), truth(2, 130)],
            [found(20, segmentation=rle((20, 40, 190, 200))), found(130)],
            [("merged_mask", 2, 0)],
        ),
        # Persons without keypoints have masks too.
        (
            [truth(1, 20), truth(2, 130, **NO_KEYPOINTS)],
            [found(20, segmentation=rle((20, 40, 190, 200)))],
            [("merged_mask", 2, 0)],
        ),
        ([truth(1, 20)], [found(20, segmentation=rle((20, 40, 100, 110)))], [("poor_mask", 1, 0)]),
        ([truth(1, 20, segmentation=None)], [found(20, segmentation=AWAY)], []),
        ([truth(1, 20)], [found(20), found(250)], [("false", None, 1)]),
        ([truth(1, 20)], [found(20, score=0.6), found(24)], [("duplicate", 1, 0)]),
        ([truth(1, 20)], [found(20), found(32, 52)], [("duplicate", 1, 1)]),
        # What COCO does not count is no miss.
        ([truth(1, 20), truth(2, 250, **NO_KEYPOINTS)], [found(20), found(250)], []),
        ([truth(1, 20), truth(2, 250, iscrowd=1, **NO_KEYPOINTS)], [found(20), found(260)], []),
        (
            [truth(1, 20), truth(2, 250, iscrowd=1, **NO_KEYPOINTS)],
            [found(20), found(32, 52, segmentation=rle(corners(250, 40)))],
            [],
        ),
        (
            [truth(1, 20), truth(2, 250, segmentation=None, **NO_KEYPOINTS)],
            [found(20), found(290)],
            [],
        ),
        # Another category is nobody.
        ([truth(1, 250, category_id=2)], [found(250)], [("false", None, 0)]),
    ],
)
def test_each_kind_by_its_name(
    people: list[dict[str, Any]], results: list[dict[str, Any]], expected: list[tuple[Any, ...]]
) -> None:
    assert named(people, results) == expected


def test_the_better_score_takes_the_person_first() -> None:
    people = [truth(1, 20)]
    assert named(people, [found(20, score=0.6), found(26, score=0.8)]) == [("duplicate", 1, 0)]
    assert named(people, [found(20, score=0.8), found(26, score=0.6)]) == [("duplicate", 1, 1)]


def test_costs_are_fractions_of_the_image_and_scores() -> None:
    half = found(20, segmentation=rle((20, 40, 100, 100)))
    misses = find_misses(annotated(truth(1, 20), truth(2, 130)), [half, found(300)], 0.5)
    fraction = 2 * SCALE**2 / (SIZE[0] * SIZE[1])
    assert {m.kind: m.cost for m in misses} == pytest.approx(
        {"missed": fraction, "poor_mask": fraction * (1 - 60 / 160), "false": 0.9}
    )


def test_results_need_no_masks() -> None:
    bare = {k: v for k, v in found(20).items() if k != "segmentation"}
    people = [truth(1, 20, segmentation=None), truth(2, 130, segmentation=None)]
    assert named(people, [bare]) == [("missed", 2, None)]


@pytest.fixture(scope="module")
def sample(samples: Path) -> Annotations:
    return read_annotations(samples / "annotations.json")


def perfect(annotations: Annotations) -> list[Result]:
    """Everybody found as annotated."""
    results = []
    for image in annotations.images:
        for person in image.annotations:
            x0, y0, x1, y1 = person.box.tolist()
            results.append(
                {
                    "image_id": image.id,
                    "category_id": 1,
                    "keypoints": person.keypoints.ravel().tolist(),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": as_rle(person.segmentation, image.size),
                    "score": 0.9,
                }
            )
    return results


def noisy(results: list[Result], noise_px: float, rng: np.random.Generator) -> list[Result]:
    """Keypoints moved by a standard deviation of so many pixels."""
    moved = []
    for result in results:
        keypoints = np.reshape(result["keypoints"], (-1, 3)).astype(float)
        keypoints[:, :2] += rng.normal(0, noise_px, (len(keypoints), 2))
        moved.append({**result, "keypoints": keypoints.ravel().tolist()})
    return moved


def test_a_perfect_prediction_of_real_images_has_no_miss(sample: Annotations) -> None:
    results = perfect(sample)
    assert find_misses(sample, results, 0.5) == []
    counts = count_misses(sample, [])
    assert counts["persons"] == counts["found"] == 27
    assert set(counts) == {"persons", "found", *KINDS}


def test_one_change_to_real_images_is_one_miss(sample: Annotations) -> None:
    results = perfect(sample)
    people = [person for image in sample.images for person in image.annotations]
    for index in [i for i, person in enumerate(people) if person.num_keypoints > 12]:
        rest = results[:index] + results[index + 1 :]
        misses = find_misses(sample, rest, 0.5)
        assert [(m.kind, m.annotation) for m in misses] == [("missed", people[index].id)]
        again = find_misses(sample, [*results, {**results[index], "score": 0.8}], 0.5)
        assert [(m.kind, m.result) for m in again] == [("duplicate", len(results))]


def test_more_noise_finds_fewer_and_every_person_has_one_outcome(sample: Annotations) -> None:
    rng = np.random.default_rng(0)
    counts = []
    for noise_px in (0, 10, 40):
        misses = find_misses(sample, noisy(perfect(sample), noise_px, rng), 0.5)
        persons = Counter(m.annotation for m in misses if m.kind in KINDS[:4])
        assert max(persons.values(), default=0) <= 1
        counts.append(count_misses(sample, misses))
    found = [count["found"] for count in counts]
    assert found == sorted(found, reverse=True) and found[0] == 27 and found[2] < 14
    assert counts[2]["jitter"] and counts[2]["misplaced"]


def test_found_agrees_with_the_recall_of_the_scorer(sample: Annotations) -> None:
    """Persons found at OKS .5 are those whom the scorer matches."""
    rng = np.random.default_rng(1)
    results = [{**r, "score": float(rng.random())} for r in noisy(perfect(sample), 14, rng)]
    recall = Scorer(sample, results).stats("keypoint_ap")["AR_50"]
    found = count_misses(sample, find_misses(sample, results, 0.0))["found"]
    assert found == pytest.approx(27 * recall, abs=0.01) and 5 < found < 25


def test_breakdown_counts_and_scores_each_group(sample: Annotations) -> None:
    results = perfect(sample)
    crowded = {885, 448076, 507015}  # the images of five and more
    for result in results:
        if result["image_id"] in crowded:
            result["keypoints"] = [0.0] * 51
    groups = breakdown(sample, results)
    persons = {
        name: (groups[f"persons_{name}"]["pictures"], groups[f"persons_{name}"]["persons"])
        for name in ("1", "2-4", "5-9", "10+")
    }
    assert persons == {"1": (0, 0), "2-4": (5, 13), "5-9": (3, 20), "10+": (0, 0)}
    assert groups["persons_2-4"]["keypoint_ap"] == pytest.approx(1, abs=1e-3)
    assert groups["persons_5-9"]["keypoint_ap"] == 0
    assert groups["persons_5-9"]["mask_ap_full"] == pytest.approx(1, abs=1e-3)
    assert groups["persons_1"]["keypoint_ap"] == -1
    for kind in ("persons", "overlap"):
        entries = [entry for name, entry in groups.items() if name.startswith(kind)]
        assert (
            sum(e["pictures"] for e in entries) == 8 and sum(e["persons"] for e in entries) == 33
        )
    assert sum(groups[f"size_{n}"]["persons"] for n in ("small", "medium", "large")) == 33
    whole = score(sample, results)
    assert groups["size_large"]["keypoint_ap"] == whole["keypoint_ap_large"]
    assert groups["size_small"] == {"pictures": 2, "persons": 6, "mask_ap_full": 1.0}


@pytest.mark.parametrize(("apart", "name"), [(79, "none"), (60, "some"), (30, "heavy")])
def test_overlap_is_the_largest_iou_of_two_boxes(apart: float, name: str) -> None:
    crowd = truth(3, 20, iscrowd=1, **NO_KEYPOINTS)
    people = annotated(truth(1, 20), truth(2, 20 + apart), crowd)
    groups = breakdown(people, [found(20)])
    counts = {n: groups[f"overlap_{n}"]["pictures"] for n in ("none", "some", "heavy")}
    assert counts == {"none": 0, "some": 0, "heavy": 0, name: 1}
    assert groups[f"overlap_{name}"]["persons"] == 2


def test_a_miss_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Miss(1, "false", None, 0, 0.5).kind = "swap"  # type: ignore[misc]
