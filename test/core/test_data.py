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
from kdc_core.data.annotations import AnnotatedImage, AnnotatedPerson, AnnotationError, Annotations
from kdc_core.data.datasets import LAYOUTS, find_data, keypoint_persons, open_data
from kdc_core.data.images import ImageError, Images
from kdc_core.data.reading import read_annotations
from kdc_core.data.sample import make_sample
from kdc_core.evaluation.run import read_truth

from .conftest import SAMPLES, make_person

PLACES = [(layout, place) for layout, places in LAYOUTS for place in places]


def contents(images: slice = slice(None)) -> dict[str, Any]:
    """Some of the sample images, as COCO's file has them."""
    content = json.loads((SAMPLES / "annotations.json").read_text())
    content["images"] = content["images"][images]
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


def put(content: dict[str, Any], annotations: Path, images: Path) -> None:
    annotations.parent.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(content))
    for image in content["images"]:
        shutil.copy(SAMPLES / image["file_name"], images)


def opens(path: Path, split: str, skeleton: Skeleton, content: dict[str, Any]) -> None:
    """Is what was put there what is opened, image by image?"""
    annotations, store = open_data(path, split, skeleton)
    assert [a.file_name for a in annotations.images] == [i["file_name"] for i in content["images"]]
    for annotated in annotations.images:
        image = store.read(annotated.file_name)
        sample = make_sample(image, annotated, skeleton.num_keypoints)
        assert sample.image.shape[:2] == annotated.size
        mine = [a for a in content["annotations"] if a["image_id"] == annotated.id]
        assert [p.keypoints.ravel().tolist() for p in annotated.annotations] == [
            pytest.approx(a["keypoints"]) for a in mine
        ]
        masks = ["segmentation" in a for a in mine]
        assert sample.masks.any((1, 2)).tolist() == masks
        assert sample.unmasked.any() == (not all(masks))


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
        annotations, images = find_data(tmp_path, split)
        assert annotations == tmp_path / layout.format(split=split)
        assert images == tmp_path / place.format(split=split)
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


def test_persons_out_of_their_image_are_counted(
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
    assert len(read_truth(data_set, COCO17).images) == 8
    assert "out of their image: 2, first in '" in caplog.text


def test_what_has_nobody_to_score_is_refused(data_set: Path) -> None:
    content = json.loads(data_set.read_text())
    for entry in content["annotations"]:
        entry["category_id"] = 2
    data_set.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match="no person to score"):
        read_truth(data_set, COCO17)


def no_images(folder: Path) -> Path:
    put(contents(slice(1)), folder / "annotations/person_keypoints_val2017.json", folder / "x")
    return folder


def alone(folder: Path) -> Path:
    (folder / "a.json").write_text("{}")
    return folder / "a.json"


def fourteen(folder: Path) -> Path:
    put(crowdpose(contents(slice(1))), folder / "annotations.json", folder)
    return folder


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: folder / "none", "none' does not exist"),
        (lambda folder: folder / "none.json", "none.json' does not exist"),
        (lambda folder: folder, r"expected one of annotations/person_keypoints_val2017\.json, "),
        (no_images, r"expected '.*/val2017' or '.*/images/val2017'"),
        (alone, r"expected '.*/a' or '.*/a\.tar'"),
        (
            fourteen,
            r"14 keypoints \(left_shoulder, .*, expected 17 .*; the skeleton crowdpose14",
        ),
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


@pytest.mark.parametrize("size", [-512, -1, 2**80])
def test_a_tar_of_impossible_sizes_is_refused(size: int, tmp_path: Path) -> None:
    """From a size below 0 tarfile would go back, and read the same entry for ever."""
    entry = tarfile.TarInfo("a.jpg")
    entry.size = size
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(ImageError, match="uncompressed tar"):
        Images(tmp_path / "a.tar")


def test_keypoint_persons_leaves_out_images_and_turns_others_into_crowd() -> None:
    def person(labelled: bool, mask: Any, crowd: bool = False) -> AnnotatedPerson:
        keypoints = make_person(5, 5, 20) * labelled
        box = np.array([5, 5, 25, 45], np.float32)
        return AnnotatedPerson(1, keypoints, box, mask, crowd, 300.0, 17 * labelled)

    mask = [[5, 5, 25, 5, 25, 45]]
    one = (person(True, mask), person(False, mask), person(False, None))
    crowd, labelled_crowd = (person(labelled, mask, True) for labelled in (False, True))
    persons = (one, (person(False, mask),), (), (person(True, mask), crowd), (labelled_crowd,))
    images = tuple(AnnotatedImage(i, f"{i}", (60, 60), p) for i, p in enumerate(persons, 1))
    kept = keypoint_persons(Annotations(Path("a.json"), images)).images
    assert [image.id for image in kept] == [1, 4]
    # Without a mask a crowd region would be background.
    assert [p.crowd for p in kept[0].annotations] == [False, True, False]
    assert [p.crowd for p in kept[1].annotations] == [False, True]
    assert not any(p.crowd for p in one), "the input is unchanged"


def test_the_subset_is_what_open_data_gives(data_set: Path) -> None:
    everybody, _ = open_data(data_set, "train", COCO17)
    some, _ = open_data(data_set, "train", COCO17, "coco_persons")
    persons = [person for image in everybody.images for person in image.annotations]
    labelled = sum(person.labelled.any() for person in persons)
    assert len(everybody.people) > len(some.people) == labelled


def test_annotations_of_some_images_are_those_images_and_their_persons(data_set: Path) -> None:
    whole = read_annotations(data_set)
    ids = [image.id for image in whole.images[1:3]]
    some = whole.of(ids)
    assert some.images == whole.images[1:3] and some.skeleton == whole.skeleton
    assert some.people == [person for image in whole.images[1:3] for person in image.people]
    assert whole.of([]).images == () and not whole.of([]).people


def test_what_a_file_leaves_out_is_filled_in(data_set: Path) -> None:
    """Ids by place, area by the box where there is no mask, keypoints counted."""
    content = json.loads(data_set.read_text())
    for entry in content["annotations"]:
        for key in ("id", "area", "num_keypoints", "iscrowd", "category_id", "segmentation"):
            del entry[key]
    data_set.write_text(json.dumps(content))
    persons = [p for image in read_annotations(data_set).images for p in image.annotations]
    assert sorted(p.id for p in persons) == list(range(1, len(content["annotations"]) + 1))
    for person in persons:
        width, height = person.box[2:] - person.box[:2]
        assert person.area == pytest.approx(0.53 * width * height, rel=1e-5)
        assert person.num_keypoints == person.labelled.sum() and not person.crowd


def test_names_that_lead_out_of_the_folder_are_refused(data_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="leads out"):
        Images(tmp_path / "few").read("../few.json")


def test_an_image_of_another_size_than_annotated_is_no_sample(samples: Path) -> None:
    annotated = read_annotations(samples / "annotations.json").images[0]
    height, width = annotated.size
    with pytest.raises(AnnotationError, match="annotated as"):
        make_sample(np.zeros((height // 2, width // 2, 3), np.uint8), annotated, 17)
