"""Data sets in every layout."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdc_core.codec.skeleton import COCO17, CROWDPOSE14, Skeleton
from kdc_core.data.annotations import (
    AnnotatedImage,
    Annotation,
    AnnotationError,
    decode_mask,
    read_coco,
)
from kdc_core.data.datasets import LAYOUTS, find_data, keypoint_persons, open_data
from kdc_core.data.images import ImageError, Images
from kdc_core.data.sample import make_sample
from kdc_core.evaluation.misses import find_misses
from kdc_core.evaluation.report import write_report
from kdc_core.evaluation.run import read_truth

from .conftest import SAMPLES, make_person

PLACES = [(layout, place) for layout, places in LAYOUTS for place in places]


def contents(pictures: slice = slice(None)) -> dict[str, Any]:
    """Some of the sample pictures, as COCO's file has them."""
    content = json.loads((SAMPLES / "annotations.json").read_text())
    content["images"] = content["images"][pictures]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    return content


def crowdpose(content: dict[str, Any]) -> dict[str, Any]:
    """The same as CrowdPose has it: 14 keypoints, crowd index, neither masks nor areas."""
    for image in content["images"]:
        image["crowdIndex"] = 0.5
    for entry in content["annotations"]:
        points = np.reshape(entry["keypoints"], (17, 3))
        neck = np.r_[points[5:7, :2].mean(0), points[5:7, 2].min()]
        entry["keypoints"] = np.r_[points[5:], points[:1], neck[None]].ravel().tolist()
        del entry["segmentation"], entry["area"]
    content["categories"][0]["keypoints"] = list(CROWDPOSE14.keypoints)
    return content


def put(content: dict[str, Any], annotations: Path, pictures: Path) -> None:
    annotations.parent.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(content))
    for image in content["images"]:
        shutil.copy(SAMPLES / image["file_name"], pictures)


def opens(path: Path, split: str, skeleton: Skeleton, content: dict[str, Any]) -> None:
    """Is what was put there what is opened, picture by picture?"""
    pictures, source = open_data(path, split, skeleton)
    assert [p.file_name for p in pictures] == [i["file_name"] for i in content["images"]]
    for picture in pictures:
        sample = make_sample(source.read(picture.file_name), picture, skeleton.num_keypoints)
        assert sample.image.shape[:2] == picture.size
        mine = [a for a in content["annotations"] if a["image_id"] == picture.id]
        assert [p.keypoints.ravel().tolist() for p in picture.persons] == [
            pytest.approx(a["keypoints"]) for a in mine
        ]
        assert sample.has_masks == all("segmentation" in a for a in mine)
        assert sample.masks.any((1, 2)).all() == sample.has_masks


@pytest.mark.parametrize(("layout", "place"), PLACES)
def test_a_folder_of_every_layout_opens(layout: str, place: str, tmp_path: Path) -> None:
    splits = {"train": slice(3), "val": slice(3, 6)} if "{split}" in layout else {"val": slice(4)}
    is_crowdpose = "crowdpose" in layout
    for split, part in splits.items():
        content = contents(part)
        content = crowdpose(content) if is_crowdpose else content
        put(content, tmp_path / layout.format(split=split), tmp_path / place.format(split=split))
    skeleton = CROWDPOSE14 if is_crowdpose else COCO17
    for split, part in splits.items():
        annotations, pictures = find_data(tmp_path, split)
        assert annotations == tmp_path / layout.format(split=split)
        assert pictures == tmp_path / place.format(split=split)
        content = contents(part)
        opens(tmp_path, split, skeleton, crowdpose(content) if is_crowdpose else content)


def test_an_annotation_file_opens_with_the_folder_beside_it(data_set: Path) -> None:
    opens(data_set, "train", COCO17, contents())


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_gzipped_file_opens_with_the_tar_beside_it(prefix: str, tmp_path: Path) -> None:
    content = contents(slice(2))
    (tmp_path / "val.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    with tarfile.open(tmp_path / "val.tar", "w") as tar:
        for image in content["images"]:
            tar.add(SAMPLES / image["file_name"], prefix + image["file_name"])
    opens(tmp_path / "val.json.gz", "val", COCO17, content)
    opens(tmp_path, "val", COCO17, content)


def test_persons_out_of_their_picture_are_counted(
    data_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_truth(data_set, COCO17)
    assert not caplog.text
    content = json.loads(data_set.read_text())
    person = next(a for a in content["annotations"] if a["num_keypoints"])
    person["keypoints"][:3] = [5000, 5000, 2]
    other = next(a for a in content["annotations"] if a["image_id"] != person["image_id"])
    other["bbox"], other["iscrowd"] = [5000, 10, 90, 20], 0
    data_set.write_text(json.dumps(content))
    assert len(read_truth(data_set, COCO17)) == 8
    assert "out of their picture: 2, first in '" in caplog.text


def test_what_has_nobody_to_score_is_refused_and_what_has_no_keypoints_is_told(
    data_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads(data_set.read_text())
    for entry in content["annotations"]:
        entry["keypoints"], entry["num_keypoints"] = [], 0
    data_set.write_text(json.dumps(content))
    assert len(read_truth(data_set, COCO17)) == 8
    assert "no person has a labelled keypoint" in caplog.text
    for entry in content["annotations"]:
        entry["category_id"] = 2
    data_set.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match="no person to score"):
        read_truth(data_set, COCO17)


def test_misses_and_report_take_14_keypoints_without_areas(tmp_path: Path) -> None:
    content = crowdpose(contents(slice(1)))
    people = [a for a in content["annotations"] if a["num_keypoints"]]
    results = [
        {k: p[k] for k in ("image_id", "bbox", "keypoints")} | {"score": 0.9} for p in people[1:]
    ]
    misses = find_misses(content, results, 0.5, CROWDPOSE14)
    assert [(miss.kind, miss.annotation) for miss in misses] == [("missed", people[0]["id"])]
    write_report(
        tmp_path,
        content,
        Images(SAMPLES),
        results,
        0.5,
        {"keypoint_ap": 0.5},
        {},
        skeleton=CROWDPOSE14,
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "missed-01.jpg"]


def no_pictures(folder: Path) -> Path:
    put(contents(slice(1)), folder / "annotations/person_keypoints_val2017.json", folder / "x")
    return folder


def alone(folder: Path) -> Path:
    (folder / "a.json").write_text("{}")
    return folder / "a.json"


def without_keypoints(folder: Path) -> Path:
    content = contents(slice(1))
    for entry in content["annotations"]:
        del entry["keypoints"]
    put(content, folder / "annotations.json", folder)
    return folder


def fourteen(folder: Path) -> Path:
    put(crowdpose(contents(slice(1))), folder / "annotations.json", folder)
    return folder


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: folder / "none", "none' does not exist"),
        (lambda folder: folder / "none.json", "none.json' does not exist"),
        (lambda folder: folder, r"expected one of annotations/person_keypoints_val2017\.json, "),
        (no_pictures, r"expected '.*/val2017' or '.*/images/val2017'"),
        (alone, r"expected '.*/a' or '.*/a\.tar'"),
        (without_keypoints, "expected a keypoint file such as person_keypoints_train2017.json"),
        (fourteen, "14 keypoints, expected 17; the skeleton crowdpose14 has as many"),
    ],
)
def test_what_cannot_be_opened_says_what_was_expected(
    make: Any, text: str, tmp_path: Path
) -> None:
    with pytest.raises(AnnotationError, match=text):
        open_data(make(tmp_path), "val", COCO17)


def test_another_split_of_a_folder_is_not_found(tmp_path: Path) -> None:
    put(contents(slice(1)), tmp_path / "crowdpose_val.json", tmp_path / "images")
    with pytest.raises(AnnotationError, match="crowdpose_test.json"):
        find_data(tmp_path, "test")


def test_a_tar_that_is_none_is_refused(data_set: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "few")
    (tmp_path / "few.tar").write_bytes(b"no tar at all")
    with pytest.raises(ImageError, match="uncompressed tar"):
        open_data(data_set, "train", COCO17)


def test_keypoint_persons_leaves_out_pictures_and_turns_others_into_crowd() -> None:
    def person(labelled: bool, mask: Any, crowd: bool = False) -> Annotation:
        keypoints = make_person(5, 5, 20) * labelled
        return Annotation(keypoints, np.array([5, 5, 25, 45], np.float32), mask, crowd)

    mask = [[5, 5, 25, 5, 25, 45]]
    one = AnnotatedImage(
        1, "a", (60, 60), (person(True, mask), person(False, mask), person(False, None)), False
    )
    nobody = AnnotatedImage(2, "b", (60, 60), (person(False, mask),), True)
    empty = AnnotatedImage(3, "c", (60, 60), (), True)
    region = AnnotatedImage(4, "d", (60, 60), (person(True, mask), person(False, mask, True)), 1)
    kept = keypoint_persons([one, nobody, empty, region])
    assert [p.id for p in kept] == [1, 4]
    # Without a mask a crowd region would be background.
    assert [p.crowd for p in kept[0].persons] == [False, True, False]
    assert [p.crowd for p in kept[1].persons] == [False, True]
    assert not any(p.crowd for p in one.persons), "the input is unchanged"


def test_the_subset_is_what_open_data_gives(data_set: Path) -> None:
    everybody, _ = open_data(data_set, "train", COCO17)
    some, _ = open_data(data_set, "train", COCO17, "coco_persons")
    counts = [
        sum(not person.crowd for picture in pictures for person in picture.persons)
        for pictures in (everybody, some)
    ]
    labelled = sum((p.keypoints[:, 2] > 0).any() for picture in everybody for p in picture.persons)
    assert counts[0] > counts[1] == labelled


def test_names_that_lead_out_of_the_folder_are_refused(data_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="leads out"):
        Images(tmp_path / "few").read("../few.json")


@pytest.mark.parametrize("segmentation", [[1, 1, 5, 1, 5, 5], {"size": [4, 4]}, "polygon", 7])
def test_malformed_segmentations_are_value_errors(segmentation: object) -> None:
    with pytest.raises(ValueError, match="segmentation"):
        decode_mask(segmentation, (10, 10))


def test_a_picture_of_another_size_than_annotated_is_no_sample(samples: Path) -> None:
    picture = read_coco(samples / "annotations.json")[0]
    height, width = picture.size
    with pytest.raises(ValueError, match="annotated as"):
        make_sample(np.zeros((height // 2, width // 2, 3), np.uint8), picture)
