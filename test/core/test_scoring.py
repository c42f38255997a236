"""Scoring: COCO, CrowdPose, and the protocol of Pose2Seg."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import faster_coco_eval
import numpy as np
import pytest
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kdc_core.codec.skeleton import COCO17, CROWDPOSE14
from kdc_core.data.annotations import (
    AnnotatedPerson,
    AnnotationError,
    Annotations,
)
from kdc_core.data.images import Images
from kdc_core.data.masks import as_rle
from kdc_core.data.reading import read_annotations
from kdc_core.evaluation.coco import (
    COMMON12,
    COMMON_FIGURES,
    FIGURES,
    Result,
    protocol_of,
    score,
)
from kdc_core.evaluation.protocols import absent_rows, pose2seg_persons, score_pose2seg
from kdc_core.evaluation.run import (
    EvaluationResult,
    evaluate,
    evaluate_pose2seg,
    persons_without_mask,
    read_truth,
)
from kdc_core.inference.predictor import Predictor

from .commands import assert_refused, kdc
from .conftest import SHARED, make_person, untracked
from .test_misses import noisy, perfect, read


@pytest.fixture(scope="module")
def evaluated(samples: Path) -> EvaluationResult:
    """The shipped model on the package's images."""
    predictor = Predictor.from_pretrained("kdc_light", confidence=0.0, keypoint=0.0)
    source = Images(samples)
    truth = read_truth(samples / "annotations.json")
    return evaluate(truth, lambda image: predictor(source.read(image.file_name)), untracked)


def reference(
    annotations: Annotations, results: list[Result], kind: str, persons: bool = False
) -> list[float]:
    """COCOeval.stats by pycocotools itself."""
    entries = [
        {
            "image_id": image.id,
            "category_id": 1,
            "bbox": [*person.box[:2].tolist(), *(person.box[2:] - person.box[:2]).tolist()],
            "area": person.area,
            "iscrowd": int(person.crowd or (persons and not person.num_keypoints)),
            "num_keypoints": person.num_keypoints,
            "keypoints": person.keypoints.ravel().tolist(),
            "segmentation": as_rle(person.segmentation or [], image.size),
        }
        for image in annotations.images
        for person in image.annotations
    ]
    key = "segmentation" if kind == "segm" else "keypoints"
    own = ("image_id", "category_id", key)
    ranked = "mask_score" if kind == "segm" else "score"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [
                {"id": i.id, "height": i.size[0], "width": i.size[1]} for i in annotations.images
            ],
            "annotations": [{**entry, "id": number} for number, entry in enumerate(entries, 1)],
            "categories": [{"id": 1, "name": "person"}],
        }
        truth.createIndex()
        found = truth.loadRes(
            [
                {**{name: r[name] for name in own}, "score": r.get(ranked, r["score"])}
                for r in results
            ]
        )
        evaluation = COCOeval(truth, found, kind)
        evaluation.params.kpt_oks_sigmas = np.array(annotations.skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [round(float(value), 4) for value in evaluation.stats]


def test_figures_are_those_of_pycocotools(evaluated: EvaluationResult) -> None:
    rng = np.random.default_rng(0)
    # More detections than count, some of equal score.
    results = [*evaluated.results]
    for noise_px in (2, 5, 10, 20, 40):
        for result in noisy(perfect(evaluated.annotations), noise_px, rng):
            results.append({**result, "score": round(float(rng.random()), 1)})
    assert max(np.unique([r["image_id"] for r in results], return_counts=True)[1]) > 20
    for found in (evaluated.results, results):
        figures = score(evaluated.annotations, found)
        assert tuple(figures) == FIGURES
        wanted = {
            "keypoint_ap": reference(evaluated.annotations, found, "keypoints"),
            "mask_ap_keypoint_persons": reference(evaluated.annotations, found, "segm", True),
            "mask_ap_full": reference(evaluated.annotations, found, "segm"),
        }
        for name, stats in wanted.items():
            places = (0, 1, 2, 3, 4, 5) if name == "keypoint_ap" else (0, 1, 2, 4, 5, 8)
            ours = [figures[name + s] for s in ("", "50", "75", "_medium", "_large", "_recall")]
            assert ours == [stats[place] for place in places], name


def crowd_truth(indices: list[float]) -> Annotations:
    """One person in each of some images, its `area` far from its box's."""
    points = [(100 + 5 * k, 100 + 7 * k, 2) for k in range(14)]
    return read(
        {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "height": 300, "width": 300, "crowdIndex": c}
                for i, c in enumerate(indices)
            ],
            "annotations": [
                {
                    "id": i,
                    "image_id": i,
                    "bbox": [90, 90, 90, 110],
                    "area": 9.0,
                    "num_keypoints": 14,
                    "keypoints": np.ravel(points).tolist(),
                }
                for i in range(len(indices))
            ],
        },
        CROWDPOSE14,
    )


def found_in(truth: Annotations, shift_px: dict[int, float]) -> list[Result]:
    results = []
    for image in truth.images:
        points = image.annotations[0].keypoints + (shift_px.get(image.id, 0), 0, 0)
        result = {"image_id": image.id, "category_id": 1, "score": 0.9}
        results.append({**result, "keypoints": points.ravel().tolist()})
    return results


def test_crowdpose_is_scored_by_crowd_index_and_the_box() -> None:
    truth = crowd_truth([0.05, 0.3, 0.9])
    perfect = score(truth, found_in(truth, {}))
    assert [
        perfect[f"keypoint_ap{s}"] for s in ("", "_crowd_easy", "_crowd_medium", "_crowd_hard")
    ] == [1.0] * 4
    # Two pixels off are nothing beside the box's scale, and everything beside `area`.
    near = score(truth, found_in(truth, {0: 2, 1: 2, 2: 2}))
    assert near["keypoint_ap"] > 0.95
    hard = score(truth, found_in(truth, {2: 80}))
    assert hard["keypoint_ap_crowd_hard"] == 0 and hard["keypoint_ap_crowd_easy"] == 1
    assert 0 < hard["keypoint_ap"] < 1
    by_box = [
        replace(i, annotations=tuple(replace(p, area=0.53 * 90 * 110) for p in i.annotations))
        for i in truth.images
    ]
    moved = found_in(truth, {0: 2, 1: 9, 2: 30})
    stats = reference(replace(truth, images=tuple(by_box)), moved, "keypoints")
    assert [score(truth, moved)[f"keypoint_ap{s}"] for s in ("", "50", "75")] == stats[:3]


def crowded() -> dict[str, Any]:
    """A file of CrowdPose: images of each border of the groups, three people each."""
    rng = np.random.default_rng(3)
    content: dict[str, Any] = {"images": [], "annotations": []}
    names = list(CROWDPOSE14.keypoints)
    content["categories"] = [{"id": 1, "name": "person", "keypoints": names}]
    for number, index in enumerate((0.0, 0.1, 0.2, 0.79, 0.8, 1.31) * 2, 1):
        content["images"].append(
            {
                "id": number,
                "file_name": f"{number}.jpg",
                "height": 300,
                "width": 500,
                "crowdIndex": index,
            }
        )
        for place in range(3):
            points = rng.uniform(0, 110, (14, 3)) + (150 * place, 90, 0)
            points[:, 2] = rng.choice([0, 1, 2], 14, p=[0.2, 0.2, 0.6])
            points[:, 2] *= rng.random() < 0.8  # some have none
            points[12:, 2] = 2 * (number % 5 > 0)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [150 * place, 90, 110, 110],
                    "iscrowd": 0,
                    "num_keypoints": int((points[:12, 2] > 0).sum()),
                    "keypoints": points.ravel().tolist(),
                }
            )
    return content


def near(truth: Annotations, noise_px: float) -> list[Result]:
    """Each person found with noise, and somebody false in each image."""
    rng = np.random.default_rng(4)
    results = []
    for image in truth.images:
        for person in (*image.annotations, image.annotations[0]):
            points = person.keypoints + rng.normal(0, noise_px, person.keypoints.shape)
            results.append(
                {
                    "image_id": image.id,
                    "category_id": 1,
                    "score": float(rng.random()),
                    "keypoints": points.ravel().tolist(),
                }
            )
    return results


@pytest.mark.parametrize("noise_px", [2.0, 6.0, 10.0])
def test_crowdpose_is_scored_as_its_own_code_does(noise_px: float, tmp_path: Path) -> None:
    file = tmp_path / "crowdpose.json"
    file.write_text(json.dumps(crowded()))
    truth = read_annotations(file, CROWDPOSE14)
    found = near(truth, noise_px)
    theirs = faster_coco_eval.COCO(str(file))
    results = theirs.loadRes([dict(result) for result in found])
    sigmas = list(CROWDPOSE14.sigmas)
    wanted = faster_coco_eval.COCOeval_faster(
        theirs, results, "keypoints_crowd", kpt_oks_sigmas=sigmas, use_area=False
    )
    wanted.run()
    names = ("", "50", "75", "_recall", "_crowd_easy", "_crowd_medium", "_crowd_hard")
    figures, stats = score(truth, found), np.delete(wanted.all_stats, [4, 5])
    assert protocol_of(truth) == "crowdpose" and len(figures) == len(names)
    assert [figures[f"keypoint_ap{name}"] for name in names] == pytest.approx(stats, abs=1e-4)
    assert len(set(figures.values())) > 4 and min(figures.values()) > 0


def test_a_model_of_17_keypoints_is_scored_on_the_12_in_common(tmp_path: Path) -> None:
    file = tmp_path / "crowdpose.json"
    file.write_text(json.dumps(crowded()))
    truth = read_truth(file, COCO17)
    found = near(truth, 6.0)
    figures = score(truth, found)
    assert tuple(figures) == COMMON_FIGURES and protocol_of(truth) == COMMON12
    bodies = [
        replace(
            image,
            annotations=tuple(
                replace(
                    person,
                    keypoints=person.keypoints[:12],
                    num_keypoints=int((person.keypoints[:12, 2] > 0).sum()),
                    area=0.53 * 110 * 110,
                )
                for person in image.annotations
            ),
        )
        for image in read_annotations(file, CROWDPOSE14).images
    ]
    body = replace(CROWDPOSE14, sigmas=CROWDPOSE14.sigmas[:12])
    twelve = Annotations(file, tuple(bodies), body)
    cut = [{**result, "keypoints": result["keypoints"][15:]} for result in found]
    stats = reference(twelve, cut, "keypoints")
    assert list(figures.values()) == [stats[place] for place in (0, 1, 2, 5)]
    assert 0 < figures["keypoint_ap_common12"] < 1
    # What only COCO has does not count.
    faces = [{**r, "keypoints": [9e3] * 15 + r["keypoints"][15:]} for r in found]
    assert score(truth, faces) == figures


def test_pose2seg_leaves_out_who_lacks_keypoints_or_mask_and_scores_all_alike(
    samples: Path,
) -> None:
    truth = read_annotations(samples / "annotations.json")
    bare = replace(truth.images[1].people[0], segmentation=None)
    images = list(truth.images)
    images[1] = replace(images[1], annotations=(bare, *images[1].people[1:]))
    changed = replace(truth, images=tuple(images))
    few = pose2seg_persons(changed)
    assert {p.id for p in few.people} == {
        p.id for p in changed.people if p.labelled.any() and p is not bare
    }
    assert len(few.people) < len(truth.people) and bare.labelled.any()
    found = noisy(perfect(truth), 8, np.random.default_rng(2))
    alike = [{**result, "score": 1.0} for result in found]
    figures = score_pose2seg(few, alike)
    known = [r for r in alike if r["image_id"] in {image.id for image in few.images}]
    stats = reference(few, known, "segm")
    assert list(figures.values()) == [stats[place] for place in (0, 1, 2, 4, 5, 8)]
    assert all(name.startswith("mask_ap_keypoint_persons") for name in figures)
    assert figures["mask_ap_keypoint_persons"] < score(truth, found)["mask_ap_keypoint_persons"]
    nobody = replace(truth, images=(replace(images[1], annotations=(bare,)),))
    with pytest.raises(AnnotationError, match="no person with keypoints and a mask"):
        evaluate_pose2seg(nobody, lambda image: pytest.fail("predicted"), untracked)


OCHUMAN = SHARED / "data" / "other" / "ochuman"


@pytest.mark.all
@pytest.mark.skipif(not OCHUMAN.is_dir(), reason="needs ../shared/data/other/ochuman")
def test_three_images_of_ochuman_by_pose2segs_protocol(tmp_path: Path) -> None:
    part = ("--annotations", OCHUMAN / "annotations.json", "--images", OCHUMAN)
    out = tmp_path / "figures.json"
    kdc("paper", "table3", "--model", "kdc_light", *part, "--json", out)
    figures = json.loads(out.read_text())["kdc_light"]
    assert figures["given_keypoints"]["mask_ap_full"] == pytest.approx(0.145, abs=1e-3)
    ours = figures["pose2seg"]
    assert ours["protocol"] == "pose2seg"
    assert ours["mask_ap_keypoint_persons"] == pytest.approx(0.073, abs=5e-4)
    results = tmp_path / "results.json"
    printed = kdc(
        "evaluate", *part, "--protocol", "pose2seg", "--json", out, "--results", results
    ).stdout
    evaluated = json.loads(out.read_text())
    assert "protocol: pose2seg" in " ".join(printed.split())
    assert "no keypoint_ap: the keypoints are given" in printed
    assert all(evaluated[name] == value for name, value in ours.items())
    assert {result["score"] for result in json.loads(results.read_text())} == {1.0}


def test_pose2segs_protocol_takes_no_option_that_it_has_no_answer_for(
    few: tuple[str | Path, ...],
) -> None:
    done = kdc("evaluate", *few, "--protocol", "pose2seg", "--oracle")
    assert_refused(done, "--protocol pose2seg gives")


def without_mask(truth: Annotations, *gone: AnnotatedPerson) -> Annotations:
    """The same without the masks of some persons."""
    images = [
        replace(
            image,
            annotations=tuple(
                replace(p, segmentation=None) if any(p is one for one in gone) else p
                for p in image.annotations
            ),
        )
        for image in truth.images
    ]
    return replace(truth, images=tuple(images))


def test_a_person_without_a_mask_is_a_crowd_region_of_its_box(samples: Path) -> None:
    truth = read_annotations(samples / "annotations.json")
    known = [person for person in truth.people if person.labelled.any()]
    other = next(person for person in truth.people if not person.labelled.any())
    gone = (known[0], known[-1], other)
    changed = without_mask(truth, *gone)
    boxed = [
        replace(image, annotations=tuple(map(as_region, image.annotations)))
        for image in changed.images
    ]
    wanted = replace(changed, images=tuple(boxed))
    found = noisy(perfect(truth), 6, np.random.default_rng(5))[::2]
    figures, before = score(changed, found), score(truth, found)
    for name, persons in (("mask_ap_keypoint_persons", True), ("mask_ap_full", False)):
        stats = reference(wanted, found, "segm", persons)
        ours = [figures[name + s] for s in ("", "50", "75", "_medium", "_large", "_recall")]
        assert ours == [stats[place] for place in (0, 1, 2, 4, 5, 8)], name
        assert figures[name] != before[name]
    # Its keypoints count as before.
    assert figures["keypoint_ap"] == before["keypoint_ap"] > 0
    assert {person.id for _, person in persons_without_mask(changed)} == {p.id for p in gone}
    thin = replace(known[0], segmentation=[np.array([10.0, 10, 10.1, 10, 10.1, 10.1])])
    image = replace(truth.images[0], annotations=(thin,))
    assert persons_without_mask(replace(truth, images=(image,))), "it covers no pixel"


def as_region(person: AnnotatedPerson) -> AnnotatedPerson:
    """Who has no mask as the crowd region of the box."""
    if person.segmentation is not None:
        return person
    x0, y0, x1, y1 = person.box.astype(float)
    box = [np.array([x0, y0, x1, y0, x1, y1, x0, y1])]
    return replace(person, segmentation=box, crowd=True)


def test_a_missing_row_says_why_and_persons_without_a_mask_are_counted(
    few: tuple[str | Path, ...], data_set: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "figures.json"
    content = json.loads(data_set.read_text())
    ids = {image["id"] for image in content["images"]}
    mine = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    content["annotations"] = mine
    mine[0]["segmentation"] = []
    data_set.write_text(json.dumps(content))
    printed = kdc("evaluate", *few, "--oracle", "--json", out).stdout
    figures = json.loads(out.read_text())
    assert figures["persons_without_mask"] == 1 and figures["protocol"] == "coco"
    assert "protocol: coco" in " ".join(printed.split()) and "no mask" not in printed
    assert f"1 of {len(mine)} persons have no mask" in caplog.text
    assert figures["mask_ap_full"] > 0 and figures["mask_ap_keypoint_persons"] > 0
    for entry in mine:
        entry["segmentation"] = []
    data_set.write_text(json.dumps(content))
    printed = kdc("evaluate", *few, "--oracle", "--json", out).stdout
    figures = json.loads(out.read_text())
    assert figures["persons_without_mask"] == len(mine) and figures["keypoint_ap"] > 0
    assert f"no mask_ap_full: none of {len(mine)} persons has a mask" in printed
    assert "no mask_ap_keypoint_persons: none of" in printed and "no keypoint_ap:" not in printed
    assert not [name for name in figures if name.startswith("mask_ap")]


def test_rows_that_crowdpose_lacks_are_told(tmp_path: Path) -> None:
    content = crowded()
    content["images"] = content["images"][1:3]  # of .1 and .2
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    (tmp_path / "crowdpose.json").write_text(json.dumps(content))
    truth = read_annotations(tmp_path / "crowdpose.json", CROWDPOSE14)
    assert score(truth, near(truth, 2))["keypoint_ap_crowd_hard"] == -1
    assert absent_rows(truth, "crowdpose") == [
        "no AP of masks: CrowdPose scores keypoints alone",
        "no keypoint_ap_crowd_hard: no image has a crowd index from 0.8",
    ]
    assert absent_rows(truth, COMMON12) == ["no AP of masks: CrowdPose scores keypoints alone"]


def test_what_the_reader_does_without_the_scorer_does_without() -> None:
    points = make_person(20, 20, 60)
    bare = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 200, "width": 200}],
        "annotations": [
            {"image_id": 1, "bbox": [20, 20, 60, 120], "keypoints": points.ravel().tolist()}
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "score": 0.9, "keypoints": points.ravel().tolist()}]
    kept = json.dumps(found)
    assert score(read(bare), found)["keypoint_ap"] == 1
    assert json.dumps(found) == kept, "the caller's results stay as they are"


def test_an_id_of_0_is_an_id(samples: Path) -> None:
    truth = read_annotations(samples / "annotations.json")
    zero = [
        replace(i, annotations=tuple(replace(p, id=n) for n, p in enumerate(i.annotations)))
        for i in truth.images
    ]
    assert score(replace(truth, images=tuple(zero)), perfect(truth))["mask_ap_full"] == 1


def test_a_result_is_sized_by_its_mask_not_by_its_box() -> None:
    """A thin false mask in a large box is a small one, and no miss among the medium."""
    square = [[10, 10, 70, 10, 70, 70, 10, 70]]
    person = {
        "image_id": 1,
        "area": 3600,
        "bbox": [10, 10, 60, 60],
        "segmentation": square,
        "keypoints": [20, 20, 2] + [0] * 48,
    }
    image = {"id": 1, "file_name": "1.jpg", "height": 200, "width": 200}
    truth = read({"images": [image], "annotations": [person]})

    def result(mask: np.ndarray, value: float) -> Result:
        rle = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        rows, columns = np.nonzero(mask)
        box = [
            int(columns.min()),
            int(rows.min()),
            int(np.ptp(columns)) + 1,
            int(np.ptp(rows)) + 1,
        ]
        return {
            "image_id": 1,
            "category_id": 1,
            "score": value,
            "bbox": box,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            "keypoints": [0.0] * 51,
        }

    right, thin = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    right[10:70, 10:70] = True
    thin[100, 100:184] = thin[100:180, 100] = True
    figures = score(truth, [result(thin, 0.9), result(right, 0.8)])
    assert figures["mask_ap_full"] == pytest.approx(0.5, abs=0.01)
    assert figures["mask_ap_full_medium"] == 1


def test_a_box_of_a_negative_side_has_no_area(tmp_path: Path) -> None:
    """Else it forgave false detections: OKS divides by the area."""
    content = crowded()
    file = tmp_path / "crowdpose.json"
    file.write_text(json.dumps(content))
    before = read_annotations(file, CROWDPOSE14)
    found = near(before, 6.0)
    entry = {
        "id": 999,
        "image_id": 1,
        "category_id": 1,
        "bbox": [300, 200, -40, 100],
        "iscrowd": 0,
        "num_keypoints": 0,
        "keypoints": [0] * 42,
    }
    content["annotations"].append(entry)
    file.write_text(json.dumps(content))
    after = read_annotations(file, CROWDPOSE14)
    with np.errstate(over="raise"):
        assert score(after, found) == score(before, found)


def test_fourteen_keypoints_of_other_names_are_not_taken_for_crowdposes(tmp_path: Path) -> None:
    content = crowded()
    content["categories"][0]["keypoints"] = [f"joint {place}" for place in range(14)]
    file = tmp_path / "lsp.json"
    file.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match="its persons have 14 keypoints"):
        read_truth(file, COCO17)
    assert len(read_truth(file, CROWDPOSE14).people) == 36, "asked for, names may be other words"
