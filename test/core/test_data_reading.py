"""What is read of an annotation file as other tools write it, and what is refused."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kdc_core.codec.skeleton import COCO17, CROWDPOSE14
from kdc_core.config import ConfigError
from kdc_core.config_file import load_preset
from kdc_core.data.annotations import AnnotationError, Annotations
from kdc_core.data.headers import read_size
from kdc_core.data.images import decode_image
from kdc_core.data.masks import as_rle
from kdc_core.data.reading import read_annotations
from kdc_core.datacheck.check import check_data
from kdc_core.evaluation.coco import Result, score
from kdc_core.inference.manifest import KEY, Manifest, ManifestError, parse_manifest

from .cases import FIRST, IMAGE, NO_AREA, NOTED, REFUSED, SILENT, halve, make_case, turn
from .commands import assert_refused, kdc
from .conftest import SAMPLES, SHARED, Content, change, check


def found(annotations: Annotations) -> list[Result]:
    """People found a little beside those annotated."""
    results = []
    for image in annotations.images:
        for number, person in enumerate(image.people):
            keypoints = person.keypoints.copy()
            keypoints[:, :2] += 3 + number
            x0, y0, x1, y1 = person.box + 4
            mask = [np.array([x0, y0, x1, y0, x1, y1, x0, y1], np.float64)]
            results.append(
                {
                    "image_id": image.id,
                    "category_id": 1,
                    "score": 1 / (1 + number),
                    "keypoints": keypoints.ravel().tolist(),
                    "segmentation": as_rle(mask, image.size),
                }
            )
    return results


@pytest.fixture(scope="module")
def clean() -> tuple[list[Result], dict[str, float]]:
    """Results, and their figures on the file as COCO has it."""
    annotations = read_annotations(SAMPLES / "annotations.json")
    results = found(annotations)
    figures = score(annotations, results)
    assert 0.1 < figures["keypoint_ap"] < 0.95 and 0.01 < figures["mask_ap_full"] < 0.95
    return results, figures


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def case(folder: Path, content: Content) -> Path:
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


@pytest.mark.parametrize("name", NOTED)
def test_other_ways_of_writing_are_read_with_one_warning(
    name: str,
    clean: tuple[list[Result], dict[str, float]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    edit, words = NOTED[name]
    path = make_case(tmp_path / name, edit)
    annotations = read_annotations(path)
    (line,) = told(caplog)
    assert re.search(words, line) and f"'{path}': " in line, line
    if name != "image_of_nobody":
        results, figures = clean
        assert score(annotations, results) == pytest.approx(figures, abs=1e-4)


@pytest.mark.parametrize("name", SILENT)
def test_what_is_right_is_read_without_a_word(
    name: str,
    clean: tuple[list[Result], dict[str, float]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    annotations = read_annotations(make_case(tmp_path / name, SILENT[name]))
    assert not told(caplog)
    results, figures = clean
    assert score(annotations, results) == pytest.approx(figures, abs=1e-4)


@pytest.mark.parametrize("name", NO_AREA)
def test_an_area_that_is_not_given_is_that_of_the_mask(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = read_annotations(make_case(tmp_path / name, NO_AREA[name]))
    (line,) = told(caplog)
    assert (
        f"computed from the mask, else .53 of the box: 33, first annotation 0 (id {FIRST})" in line
    )
    given = read_annotations(SAMPLES / "annotations.json").people
    truth = {person.id: person.area for person in given}
    for person in annotations.people:  # COCO's own areas are of polygons, not of their pixels
        assert person.area == pytest.approx(truth[person.id], rel=0.12)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_file_id_and_reason(name: str, tmp_path: Path) -> None:
    edit, words = REFUSED[name]
    path = make_case(tmp_path / name, edit)
    with pytest.raises(AnnotationError) as refusal:
        read_annotations(path)
    text = str(refusal.value)
    assert words in text and f"'{path}' cannot be used" in text
    faults = [str(fault) for fault in check(path.parent).faults]
    assert any(words in fault for fault in faults), faults


def test_evaluation_refuses_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("kdc_core.inference.predictor.Predictor.from_pretrained", load)
    good = make_case(tmp_path / "good", SILENT["clean"])
    with pytest.raises(AssertionError, match="loaded"):
        kdc("evaluate", "--annotations", good, "--images", good.parent)
    wrong = make_case(tmp_path / "wrong", REFUSED["rle_short_hangs"][0])
    done = kdc("evaluate", "--annotations", wrong, "--images", wrong.parent)
    assert_refused(done, "RLE of 14 pixels")


def test_everything_is_listed_twenty_of_a_kind(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        for entry in content["annotations"][:23]:
            entry["bbox"] = None
        for entry in content["annotations"][23:25]:
            entry["segmentation"] = {"size": [3, 4], "counts": "0"}
        content["images"][7]["id"] = content["images"][0]["id"]

    path = make_case(tmp_path / "many", edit)
    done = kdc("evaluate", "--annotations", path, "--images", path.parent)
    assert_refused(done, "Entries of 'annotations' that cannot be used: 23")
    assert done.stderr.count("bbox: Field required") == 20 and "  and 3 more" in done.stderr
    assert "Masks of another size than the image: 2" in done.stderr
    assert "Ids of images used twice: 1" in done.stderr
    checked = kdc("data", "check", path.parent)
    assert checked.returncode == 1
    assert checked.stdout.count("bbox: Field required") == 20


def test_results_name_images_and_category_as_the_file_does(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        NOTED["string_image_ids_both"][0](content)
        content["categories"][0]["id"] = "p"
        for entry in content["annotations"]:
            entry["category_id"] = "p"

    annotations = read_annotations(make_case(tmp_path / "a", edit))
    results = annotations.in_file_ids(found(annotations))
    assert {r["category_id"] for r in results} == {"p"}
    assert {r["image_id"] for r in results} == {str(i.id) for i in annotations.images}


def test_images_may_be_named_by_words(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        for entry in content["images"]:
            entry["id"] = f"image {entry['id']}"
        for entry in content["annotations"]:
            entry["image_id"] = f"image {entry['image_id']}"

    path = make_case(tmp_path / "a", edit)
    annotations = read_annotations(path)
    assert [image.id for image in annotations.images] == list(range(1, 9))
    assert score(annotations, found(annotations))["keypoint_ap"] > 0.1
    names = {result["image_id"] for result in annotations.in_file_ids(found(annotations))}
    assert names == {entry["id"] for entry in json.loads(path.read_text())["images"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_is_read_in_whatever_encoding(encoding: str, pack: Any, tmp_path: Path) -> None:
    text = (SAMPLES / "annotations.json").read_text()
    (tmp_path / "a.json").write_bytes(pack(text.encode(encoding)))
    assert len(read_annotations(tmp_path / "a.json").people) == 33


def test_a_gzip_of_blanks_does_not_fill_the_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.json.gz", "wb") as file:
        for _ in range(20):
            file.write(b" " * 2**20)
    with pytest.raises(AnnotationError, match="over 100 times its size"):
        read_annotations(tmp_path / "a.json.gz")


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    for path in (tmp_path / "a.json", Path("/dev/zero"), tmp_path):
        with pytest.raises(AnnotationError, match="is no file: expected .json or .json.gz"):
            read_annotations(path)


def test_ids_below_0_are_scored(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        for entry in content["images"]:
            entry["id"] = -entry["id"]
        for entry in content["annotations"]:
            entry["image_id"] = -entry["image_id"]

    path = make_case(tmp_path / "a", edit)
    annotations = read_annotations(path)
    assert score(annotations, found(annotations))["keypoint_ap"] > 0.1
    names = {result["image_id"] for result in annotations.in_file_ids(found(annotations))}
    assert names == {entry["id"] for entry in json.loads(path.read_text())["images"]}


# Images of another size


def test_images_of_another_size_are_listed_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = make_case(tmp_path / "a", SILENT["clean"])
    for image in sorted(path.parent.glob("*.jpg"))[1:]:
        halve(image)
    turn(path.parent / IMAGE)
    where = ("--annotations", path, "--images", path.parent, "--model", "kdc_light")
    done = kdc("evaluate", *where, "--runtime", "nothing")
    assert_refused(done, "Images of another size than annotated: 8")
    assert (
        f"'{IMAGE}': annotated as 640x427, stored as 640x427, shown as 427x640 for EXIF "
        "orientation 6: annotate it as it is shown, or store it upright"
    ) in done.stderr
    assert done.stderr.count("annotated as 640x480, stored as 320x240, shown as 320x240") > 1
    checked = kdc("data", "check", path.parent)
    assert checked.returncode == 1 and "Images of another size than annotated: 8" in checked.stdout
    assert "shown as 427x640 for EXIF orientation 6" in checked.stdout


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_sizes_are_those_of_the_image_as_it_is_read(suffix: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), image)
    if suffix == ".jpg":
        turn(path, 8)
    size = read_size(path.read_bytes(), "a")
    assert size == decode_image(path.read_bytes(), "a").shape[:2]
    assert size == ((53, 37) if suffix == ".jpg" else (37, 53))


def test_images_that_cannot_be_read_are_no_reason_to_refuse(tmp_path: Path) -> None:
    path = make_case(tmp_path / "a", SILENT["clean"], 3)
    names = sorted(path.parent.glob("*.jpg"))
    names[0].unlink()
    names[1].write_bytes(names[1].read_bytes()[:3])
    done = kdc("evaluate", "--annotations", path, "--images", path.parent)
    assert done.returncode == 1 and done.stderr.count("error: ") == 2, done.stderr


# Which category is the person


def categories(*entries: dict[str, Any], used: object = 1) -> Content:
    content: Content = json.loads((SAMPLES / "annotations.json").read_text())
    content["categories"] = list(entries)
    for entry in content["annotations"]:
        entry["category_id"] = used
    return content


NAMES = list(COCO17.keypoints)
DOG = {"id": 18, "name": "dog"}


@pytest.mark.parametrize(
    ("entries", "used"),
    [
        ([{"id": 1, "name": "person", "keypoints": NAMES}], 1),
        ([DOG, {"id": 7, "name": " Person", "keypoints": NAMES}], 7),
        ([DOG, {"id": 7, "name": "worker", "keypoints": NAMES}], "7"),
        ([{"id": "7", "name": "worker"}], 7),
        ([{"id": 0, "name": "people"}, {"id": 3, "name": "x", "supercategory": "people"}], 3),
        (
            [
                {"id": 0, "name": "person", "supercategory": "none"},
                {"id": 1, "name": "person", "supercategory": "person", "keypoints": NAMES},
            ],
            1,
        ),
        ([], 5),
    ],
    ids=["named", "spelt", "with keypoints", "alone", "below a root", "root alike", "no list"],
)
def test_the_category_of_persons_is_found(
    entries: list[dict[str, Any]], used: object, tmp_path: Path
) -> None:
    annotations = read_annotations(case(tmp_path, categories(*entries, used=used)))
    assert len(annotations.people) == 33


def test_a_category_that_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    workers = {"id": 4, "name": "worker", "keypoints": NAMES}
    guests = {"id": 5, "name": "guest", "keypoints": NAMES}
    path = case(tmp_path, categories(workers, guests, used=5))
    reason = r"which category is the person: give --category .*4 'worker' \(0 .*5 'guest' \(33 ann"
    with pytest.raises(AnnotationError, match=reason):
        read_annotations(path)
    for wanted in ("5", "guest", "GUEST"):
        assert len(read_annotations(path, category=wanted).people) == 33
    assert not read_annotations(path, category="worker").people
    with pytest.raises(AnnotationError, match="no one category 'dog': give --category"):
        read_annotations(path, category="dog")
    path.rename(tmp_path / "annotations.json")
    for image in SAMPLES.glob("*.jpg"):
        (tmp_path / image.name).symlink_to(image)
    where = ("--annotations", tmp_path / "annotations.json", "--images", tmp_path)
    assert_refused(kdc("evaluate", *where), "give --category")
    assert_refused(kdc("ablate", "centroids", *where), "give --category")
    assert_refused(kdc("paper", "table4", "--model", "kdc_light", *where), "give --category")
    assert_refused(kdc("data", "check", tmp_path), "give --category")
    done = kdc("data", "check", tmp_path, "--category", "guest")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("person", "'categories': expected a list, got a str"),
        ([{"name": "person"}], "category 0: id: Field required"),
        ([7], "category 0: entry: Input should be a valid dict"),
    ],
)
def test_a_list_of_categories_that_is_none_is_refused(
    given: object, words: str, tmp_path: Path
) -> None:
    content = categories()
    content["categories"] = given
    with pytest.raises(AnnotationError, match=re.escape(words)):
        read_annotations(case(tmp_path, content))


# Another skeleton


def test_another_skeleton_is_one_fault_that_says_what_to_do(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        content["categories"][0]["keypoints"] = ["nose", "left_hip", "right_hip"]
        for entry in content["annotations"]:
            entry["keypoints"] = entry["keypoints"][:3] + entry["keypoints"][33:39]
            entry["num_keypoints"] = sum(v > 0 for v in entry["keypoints"][2::3])

    path = make_case(tmp_path / "a", edit)
    done = check(path.parent)
    (fault,) = done.faults
    assert done.counts["persons"] == 33 and list(done.keypoints) == [
        "nose",
        "left_hip",
        "right_hip",
    ]
    words = "have 3 keypoints (nose, left_hip, right_hip), expected 17 (nose, left_eye, "
    assert words in fault.text
    assert "Known skeletons: coco17 (17), crowdpose14 (14); another is added as a" in fault.text
    assert "CONTRIBUTING.md" in fault.text
    with pytest.raises(AnnotationError, match="have 3 keypoints"):
        read_annotations(path)
    sheet = kdc("data", "check", path.parent, "--sheet", tmp_path / "s.jpg")
    assert sheet.returncode == 1 and (tmp_path / "s.jpg").is_file(), sheet.stderr


def test_keypoints_in_another_order_are_refused(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        names = content["categories"][0]["keypoints"]
        names[1], names[2] = names[2], names[1]

    with pytest.raises(AnnotationError, match="in this order"):
        read_annotations(make_case(tmp_path / "a", edit))


POSETRACK = {1: "head_bottom", 2: "head_top"}
JRDB = {0: "head", 1: "right eye", 2: "left eye"}


@pytest.mark.parametrize("others", [POSETRACK, JRDB])
def test_another_skeleton_of_as_many_keypoints_is_refused(
    others: dict[int, str], tmp_path: Path
) -> None:
    def edit(content: Content) -> None:
        for index, name in others.items():
            content["categories"][0]["keypoints"][index] = name

    with pytest.raises(AnnotationError, match="in this order"):
        read_annotations(make_case(tmp_path / "a", edit))


def test_a_box_without_area_is_taken_of_mask_and_keypoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def edit(content: Content) -> None:
        content["annotations"][0]["bbox"] = [0, 0, 0, 0]

    before = read_annotations(SAMPLES / "annotations.json").people[0]
    after = read_annotations(make_case(tmp_path / "a", edit)).people[0]
    (line,) = told(caplog)
    assert "boxes without area, taken of mask and keypoints: 1" in line
    assert np.abs(after.box - before.box).max() < 4 and after.area == before.area


def test_an_image_that_is_listed_twice_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def edit(content: Content) -> None:
        content["images"].append({**content["images"][0], "id": 999_999_999})

    read_annotations(make_case(tmp_path / "a", edit))
    (line,) = told(caplog)
    assert "images listed twice" in line


def test_keypoints_may_be_spelt_in_other_ways(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        category = content["categories"][0]
        category["keypoints"] = [name.replace("_", " ").title() for name in category["keypoints"]]

    assert len(read_annotations(make_case(tmp_path / "a", edit)).people) == 33


def test_a_skeleton_that_has_as_many_is_named(tmp_path: Path) -> None:
    path = case(tmp_path, categories({"id": 1, "name": "person", "keypoints": NAMES}))
    with pytest.raises(AnnotationError, match="the skeleton coco17 has as many"):
        read_annotations(path, CROWDPOSE14)


def test_a_model_of_another_skeleton_says_what_is_known() -> None:
    content = Manifest(config=load_preset("oracle")).model_dump(mode="json")
    content["config"]["fields"]["skeleton"] = "hand21"
    words = "'m.onnx' has another skeleton: .*'hand21', known are coco17.*as CONTRIBUTING.md says"
    with pytest.raises(ManifestError, match=words):
        parse_manifest({KEY: json.dumps(content)}, "m.onnx")
    with pytest.raises(ConfigError, match="'hand21', known are coco17"):
        load_preset("oracle", ["fields.skeleton=hand21"])
    content["provenance"] = {"keypoints": ["wrist", "thumb_tip"]}
    with pytest.raises(ManifestError, match="Its keypoints: wrist, thumb_tip"):
        parse_manifest({KEY: json.dumps(content)}, "m.onnx")


# Folders as tools export them


@pytest.mark.parametrize(
    ("file", "folder", "split"),
    [
        ("annotations/person_keypoints_default.json", "images/default", "train"),
        ("annotations/person_keypoints_val.json", "images/val", "val"),
        ("train/_annotations.coco.json", "train", "train"),
        ("valid/_annotations.coco.json", "valid", "val"),
        ("test/_annotations.coco.json", "test", "test"),
        ("annotations/ochuman_coco_format_val_range_0.00_1.00.json", "images", "val"),
    ],
)
def test_exports_of_tools_are_found(file: str, folder: str, split: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text((SAMPLES / "annotations.json").read_text())
    for image in SAMPLES.glob("*.jpg"):
        (tmp_path / folder / image.name).symlink_to(image)
    done = check_data(tmp_path, split, COCO17, lambda items, total: items)
    assert done.faults == () and done.counts["pictures"] == 8


def test_a_list_of_images_in_a_folder_beside_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(SAMPLES)
    content = json.loads((SAMPLES / "annotations.json").read_text())
    for entry in content["images"]:
        entry["file_name"] = f"images/{entry['file_name']}"
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert check(tmp_path).faults == ()


def test_images_may_be_named_apart(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text((SAMPLES / "annotations.json").read_text())
    done = kdc("data", "check", tmp_path / "mine.json")
    assert_refused(done, "--images (of --val, --val-images), that names another folder")
    done = kdc("data", "check", tmp_path / "mine.json", "--images", SAMPLES)
    assert done.returncode == 0 and "nothing wrong" in done.stdout
    change(tmp_path / "mine.json", lambda content: content["images"].pop())
    few = kdc("data", "check", tmp_path / "mine.json", "--images", SAMPLES)
    assert few.returncode == 1 and "Annotations whose image is not listed: 6" in few.stdout


@pytest.mark.parametrize("name", ["cvat", "roboflow", "generic", "own"])
def test_real_exports_have_one_fault(name: str) -> None:
    folder = SHARED / "cases" / "annotations" / "exports" / name
    if not folder.is_dir():
        pytest.skip("no ../shared")
    done = check(folder)
    assert (done.counts["pictures"], done.counts["persons"]) == (6, 10)
    (fault,) = done.faults
    assert fault.kind == "categories" and "5 keypoints" in fault.text
