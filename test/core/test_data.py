"""Data sets in every layout, and what augmentation keeps together."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.data.augment import warp
from kdc_core.data.coco import (
    AnnotatedPicture,
    Annotation,
    AnnotationError,
    decode_mask,
    read_coco,
)
from kdc_core.data.datasets import LAYOUTS, find_data, keypoint_persons, open_data
from kdc_core.data.paste import LEAST_VISIBLE, paste
from kdc_core.data.pictures import PictureError, Pictures
from kdc_core.data.sample import Sample, make_sample
from kdc_core.evaluation.misses import find_misses
from kdc_core.evaluation.report import write_report
from kdc_core.skeleton import COCO17, CROWDPOSE14, Skeleton

from .conftest import SAMPLES, make_people, make_person

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
    (tmp_path / "two.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        for image in content["images"]:
            tar.add(SAMPLES / image["file_name"], prefix + image["file_name"])
    opens(tmp_path / "two.json.gz", "val", COCO17, content)


def test_misses_and_report_take_14_keypoints_without_areas(tmp_path: Path) -> None:
    content = crowdpose(contents(slice(1)))
    people = [a for a in content["annotations"] if a["num_keypoints"]]
    results = [
        {k: p[k] for k in ("image_id", "bbox", "keypoints")} | {"score": 0.9} for p in people[1:]
    ]
    misses = find_misses(content, results, 0.5, CROWDPOSE14)
    assert [(miss.kind, miss.annotation) for miss in misses] == [("missed", people[0]["id"])]
    write_report(tmp_path, content, Pictures(SAMPLES), results, 0.5, {"keypoint_ap": 0.5}, {},
                 skeleton=CROWDPOSE14)  # fmt: skip
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
        (no_pictures, r"expected the folder '.*/val2017' or '.*/images/val2017'"),
        (alone, r"expected the folder 'a' or 'a\.tar' beside it"),
        (without_keypoints, "expected a keypoint file such as person_keypoints_train2017.json"),
        (fourteen, "17 keypoints"),
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
    with pytest.raises(PictureError, match="uncompressed tar"):
        open_data(data_set, "train", COCO17)


def test_keypoint_persons_leaves_out_pictures_and_turns_others_into_crowd() -> None:
    def person(labelled: bool, mask: Any, crowd: bool = False) -> Annotation:
        keypoints = make_person(5, 5, 20) * labelled
        return Annotation(keypoints, np.array([5, 5, 25, 45], np.float32), mask, crowd)

    mask = [[5, 5, 25, 5, 25, 45]]
    one = AnnotatedPicture(
        1, "a", (60, 60), (person(True, mask), person(False, mask), person(False, None)), False
    )
    nobody = AnnotatedPicture(2, "b", (60, 60), (person(False, mask),), True)
    empty = AnnotatedPicture(3, "c", (60, 60), (), True)
    region = AnnotatedPicture(4, "d", (60, 60), (person(True, mask), person(False, mask, True)), 1)
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


SIZE = (240, 320)


def below() -> Sample:
    """Two persons, the smaller one in the middle of the larger; half the picture is crowd."""
    sample = make_people([make_person(110, 20, 100), make_person(150, 110, 16)], SIZE)
    sample.keypoints[0, 9] = 0
    sample.crowd[:, 160:] = True
    return sample


def donor(scale: float = 60) -> Sample:
    """A person whose mask is its box; red is lit around its nose, green is everywhere."""
    sample = make_people([make_person(100, 50, scale)], SIZE)
    x, y = np.round(sample.keypoints[0, 0, :2]).astype(int)
    sample.keypoints[0, 0] = x, y, 2
    sample.keypoints[0, 1] = 0
    sample.image[..., 1] = 255
    sample.image[y - 3 : y + 4, x - 3 : x + 4, 0] = 255
    return sample


def pastes(seeds: Iterator[int] | range = range(300)) -> Iterator[tuple[Sample, Sample]]:
    """Samples and what pasting makes of them."""
    for seed in seeds:
        sample = below()
        after = paste(sample, donor(), np.random.default_rng(seed))
        if after is not sample:
            yield sample, after


@given(st.integers(0, 2**32 - 1), st.sampled_from([40, 60, 90]))
@settings(max_examples=60, deadline=None)
def test_pasting_keeps_picture_mask_and_keypoints_together(seed: int, scale: float) -> None:
    sample, given_ = below(), donor(scale)
    after = paste(sample, given_, np.random.default_rng(seed))
    if after is sample:
        return
    mask, keypoints = after.masks[-1], after.keypoints[-1]
    assert (mask == (after.image[..., 1] >= 128)).all(), "the pixels of the mask are the person's"
    assert keypoints[1, 2] == 0, "what was not labelled still is not"
    height, width = SIZE
    for (x, y, v), (_, _, before) in zip(keypoints, given_.keypoints[0], strict=True):
        if v:
            assert v == before
            assert mask[min(round(y), height - 1), min(round(x), width - 1)]
    x, y, v = keypoints[0]
    if v and 12 < x < width - 12 and 12 < y < height - 12:
        light = after.image[..., 0].astype(float)
        to = np.array(
            [(light.sum(0) * np.arange(width)).sum(), (light.sum(1) * np.arange(height)).sum()]
        )
        assert to / light.sum() == pytest.approx((x, y), abs=0.35)
    rows, columns = np.nonzero(mask)
    box = (columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5)
    assert after.boxes[-1] == pytest.approx(box)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_what_is_covered_is_hidden_and_all_else_stays(seed: int) -> None:
    sample = below()
    after = paste(sample, donor(), np.random.default_rng(seed))
    if after is sample:
        return
    covered = after.masks[-1]
    left = sample.masks & ~covered
    stays = left.sum((1, 2)) >= LEAST_VISIBLE * sample.masks.sum((1, 2))
    assert (after.masks[:-1] == left[stays]).all() and len(after.masks) == stays.sum() + 1
    assert (after.boxes[:-1] == sample.boxes[stays]).all()
    assert (after.crowd == (sample.crowd & ~covered)).all()
    assert (after.keypoints[:-1, :, :2] == sample.keypoints[stays][..., :2]).all()
    for before, now in zip(sample.keypoints[stays], after.keypoints[:-1], strict=True):
        for (x, y, v), (_, _, flag) in zip(before, now, strict=True):
            assert flag == (1 if v and covered[round(y), round(x)] else v)


def test_someone_wholly_covered_is_dropped() -> None:
    dropped = [(s, a) for s, a in pastes() if len(a.boxes) == 2]
    assert len(dropped) > 10
    for sample, after in dropped:
        left = (sample.masks & ~after.masks[-1]).sum((1, 2))
        gone = left < LEAST_VISIBLE * sample.masks.sum((1, 2))
        assert gone.sum() == 1
        assert (after.boxes[0] == sample.boxes[~gone][0]).all()


def test_pasting_leaves_both_inputs_alone() -> None:
    for seed in range(20):
        sample, other = below(), donor()
        before = copy.deepcopy((sample, other))
        after = paste(sample, other, np.random.default_rng(seed))
        for old, now in zip(before, (sample, other), strict=True):
            for field in fields(Sample):
                assert np.array_equal(getattr(old, field.name), getattr(now, field.name))
        after.keypoints[:], after.boxes[:], after.image[:] = -1, -1, 77
        if after is not sample:
            assert (sample.keypoints == before[0].keypoints).all()
            assert (sample.image == before[0].image).all()


def test_nothing_is_pasted_without_a_whole_donor_or_somebody_to_cover() -> None:
    def same(sample: Sample, other: Sample) -> bool:
        return paste(sample, other, np.random.default_rng(0)) is sample

    assert not same(below(), donor())
    maskless, few, small = donor(), donor(), donor(10)
    maskless.has_masks = False
    few.keypoints[0, 4:] = 0
    assert small.boxes[0, 2] - small.boxes[0, 0] < 32
    assert same(below(), maskless) and same(below(), few) and same(below(), small)
    assert same(make_people([], SIZE), donor()) and same(below(), make_people([], SIZE))


def test_pictures_without_masks_get_no_mask() -> None:
    sample = below()
    sample.has_masks = False
    sample.masks[:] = False
    after = paste(sample, donor(), np.random.default_rng(1))
    assert len(after.boxes) == 3 and not after.masks.any() and not after.has_masks
    assert after.keypoints[-1].any() and after.image.any()


def test_a_donor_pasted_much_smaller_is_not_aliased() -> None:
    striped = donor(110)
    striped.image[:] = 0
    striped.image[:, ::2] = 255
    sample = make_people([make_person(150, 100, 14)], SIZE)
    for seed in range(10):
        after = paste(sample, striped, np.random.default_rng(seed))
        inside = after.masks[-1]
        inside[1:-1, 1:-1] &= inside[2:, 1:-1] & inside[:-2, 1:-1]
        inside[1:-1, 1:-1] &= inside[1:-1, 2:] & inside[1:-1, :-2]
        assert np.abs(after.image[inside].astype(int) - 128).max() < 45


@given(st.floats(0.1, 0.45), st.floats(-180, 180), st.booleans())
@settings(max_examples=40, deadline=None)
def test_shrinking_much_keeps_light_keypoint_mask_and_crowd_together(
    scale: float, degrees: float, mirror: bool
) -> None:
    sample = make_people([make_person(120, 30, 90)], SIZE)
    patch = np.s_[80:121, 140:181]  # its middle is (160, 100)
    sample.keypoints[0, 9] = 160, 100, 1
    sample.image[patch] = 255
    sample.masks[:] = False
    sample.masks[0][patch] = True
    sample.crowd[patch] = True
    turn = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if mirror:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    to = np.array([81.3, 77.6])
    shift = to - matrix @ (160, 100)
    moved = warp(sample, np.c_[matrix, shift], (160, 170), COCO17.flip if mirror else None)
    place = COCO17.flip[9] if mirror else 9
    assert moved.keypoints[0, place] == pytest.approx((*to, 1), abs=1e-3)
    light = moved.image[..., 0].astype(float)
    for weights in (light, moved.masks[0], moved.crowd):
        total = weights.sum()
        middle = [(weights.sum(0) * np.arange(170)).sum(), (weights.sum(1) * np.arange(160)).sum()]
        assert np.array(middle) / total == pytest.approx(to, abs=0.6)
    assert (light >= 128)[moved.masks[0]].mean() > 0.7
    assert 0.75 < (light.sum() / 255) / (41 * scale) ** 2 < 1.25


def test_persons_that_leave_the_crop_are_dropped() -> None:
    sample = make_people([make_person(20, 20, 40), make_person(220, 20, 40)], SIZE)
    right = np.array([[1.0, 0, -160], [0, 1, 0]])
    moved = warp(sample, right, (240, 160), None)
    assert len(moved.boxes) == len(moved.masks) == len(moved.keypoints) == 1
    assert (moved.masks[0] == sample.masks[1][:, 160:]).all()


def test_names_that_lead_out_of_the_folder_are_refused(data_set: Path, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="leads out"):
        Pictures(tmp_path / "few").read("../few.json")


@pytest.mark.parametrize("segmentation", [[1, 1, 5, 1, 5, 5], {"size": [4, 4]}, "polygon", 7])
def test_malformed_segmentations_are_value_errors(segmentation: object) -> None:
    with pytest.raises(ValueError, match="segmentation"):
        decode_mask(segmentation, (10, 10))


def test_a_picture_of_another_size_than_annotated_is_no_sample(samples: Path) -> None:
    picture = read_coco(samples / "annotations.json")[0]
    height, width = picture.size
    with pytest.raises(ValueError, match="annotated as"):
        make_sample(np.zeros((height // 2, width // 2, 3), np.uint8), picture)
