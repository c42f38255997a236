"""What `kdc data check` finds, and how the command ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kdc_core.codec.skeleton import COCO17, CROWDPOSE14
from kdc_core.data.faults import KINDS
from kdc_core.datacheck.sheet import write_sheet

from .commands import assert_refused, kdc, kdc_process
from .conftest import Content, change, check, person, rle


def sets(**changes: Any) -> Callable[[Content], object]:
    """Change the first person."""
    return lambda content: person(content).update(changes)


def moves_keypoint(x: float, y: float, v: float = 2) -> Callable[[Content], object]:
    def edit(content: Content) -> None:
        person(content)["keypoints"][:3] = x, y, v

    return edit


def image(**changes: Any) -> Callable[[Content], object]:
    return lambda content: content["images"][0].update(changes)


def again(key: str) -> Callable[[Content], object]:
    return lambda content: content[key].append(content[key][0])


def category(content: Content) -> dict[str, Any]:
    return content["categories"][0]


ID = "'000000000885.jpg', annotation 0 (id 439117): "
CASES: list[tuple[str, Callable[[Content], object], str]] = [
    ("categories", lambda c: c.pop("categories"), "the category of persons, 1, names no keypoint"),
    ("categories", lambda c: category(c).pop("keypoints"), "names no keypoints"),
    ("categories", lambda c: category(c)["keypoints"].__setitem__(1, "nose"), "expected 17"),
    ("bad_image", lambda c: c["images"].append({"id": 5}), "image 8: file_name: Field required"),
    (
        "bad_image",
        lambda c: c["images"].append(None),
        "image 8: entry: Input should be a valid di",
    ),
    (
        "bad_image",
        lambda c: c["images"].append({"id": 5, "file_name": "a", "height": 0, "width": 3}),
        "height: Input should be greater than or equal to 1, got 0",
    ),
    ("bad_annotation", sets(bbox=[1, 2, 3]), ID + "bbox: List should have at least 4"),
    ("bad_annotation", sets(bbox=[1, 2, float("nan"), 3]), ID + "bbox.2: Input should"),
    ("bad_annotation", sets(keypoints=[1, 2, 2]), ID + "expected x, y and v of 17"),
    ("bad_annotation", lambda c: person(c).pop("bbox"), ID + "bbox: Field required"),
    ("bad_annotation", lambda c: c["annotations"].append(7), "expected an object, got a int"),
    ("duplicate_id", again("images"), "'000000000885.jpg': image 8 has the id 885 of '0000"),
    ("unlisted", sets(image_id=1), "annotation 0 (id 439117): no image has the id 1"),
    ("bad_annotation", sets(image_id=[885]), "annotation 0 (id 439117): image_id.int: Input"),
    ("missing", image(file_name="none.jpg"), "'none.jpg': cannot read"),
    ("missing", image(file_name="../few.json"), "leads out of the folder"),
    ("missing", image(file_name="a\0\ud800.jpg"), r"'a\x00\ud800.jpg': "),
    ("broken", image(file_name="broken.jpg"), "'broken.jpg': 'broken.jpg' cannot be read"),
    ("broken", image(file_name="cut.jpg"), "'cut.jpg': 'cut.jpg' cannot be read"),
    ("other_size", image(width=641), "annotated as 641x427, stored as 640x427, shown as 640x427"),
    (
        "box",
        sets(bbox=[600, 10, 45, 50], segmentation=None, keypoints=None, num_keypoints=0),
        ID + "reaches 5 pixels out of the image",
    ),
    (
        "box",
        sets(bbox=[-9, 10, 45, 50], segmentation=None, keypoints=None, num_keypoints=0),
        ID + "reaches 9 pixels out of the image",
    ),
    (
        "box",
        sets(bbox=[277, 190, 0, 208], segmentation=None, keypoints=None, num_keypoints=0),
        ID + "0x208 pixels",
    ),
    (
        "box",
        sets(bbox=[277, 190, 9, -2], segmentation=None, keypoints=None, num_keypoints=0),
        ID + "9x-2 pixels",
    ),
    ("keypoint_outside", moves_keypoint(640.5, 216), ID + "nose at (640.5, 216)"),
    ("keypoint_outside", moves_keypoint(300, -3, 1), ID + "nose at (300, -3)"),
    ("keypoint_far", moves_keypoint(10, 216), ID + "nose at (10, 216)"),
    ("keypoint_flag", moves_keypoint(374, 216, 3), ID + "nose has 3"),
    ("num_keypoints", sets(num_keypoints=0), ID + "num_keypoints is 0, 16 are labelled"),
    ("num_keypoints", moves_keypoint(0, 0, 0), ID + "num_keypoints is 16, 15 are labelled"),
    ("mask", sets(segmentation=rle(np.s_[:0, :0])), ID + "has no pixel"),
    ("mask", sets(segmentation=[[300, 200, 310, 200]]), ID + "has no pixel"),
    ("mask", sets(segmentation=[[300, 200, 310, 200, 305, 210, 4]]), ID + "expected an x and"),
    ("mask", sets(segmentation=[300, 200, 310, 200, 305, 210]), ID + "expected polygons"),
    ("mask", sets(segmentation={"size": [427, 640], "counts": [5, 9]}), ID + "RLE of 14 pixels"),
    (
        "mask",
        sets(segmentation={**rle(np.s_[:, :]), "counts": "0n0"}),
        "RLE of 30 pixels, expected the 273280 of the",
    ),
    ("mask", sets(segmentation={"size": [427, 640]}), ID + "an RLE's counts are"),
    (
        "mask_size",
        sets(segmentation=rle(np.s_[190:398, 277:417], (640, 640))),
        ID + "RLE of height and width [640, 640], expected those of the image, [427, 640]",
    ),
    (
        "mask_outside",
        sets(segmentation=[[277, 190, 417, 190, 417, 450, 277, 450]]),
        ID + "reaches 23 pixels out of the image",
    ),
    (
        "mask_box",
        sets(segmentation=rle(np.s_[10:200, 10:100])),
        ID + "IoU of the mask's box and the box is 0.00",
    ),
    (
        "mask_box",
        sets(segmentation=[[277, 190, 417, 190, 417, 230, 277, 230]]),
        ID + "IoU of the mask's box and the box is 0.19",
    ),
]


def test_every_kind_of_fault_has_a_case() -> None:
    assert {kind for kind, _, _ in CASES} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "edit", "text"), CASES, ids=[f"{i}-{kind}" for i, (kind, _, _) in enumerate(CASES)]
)
def test_a_fault_is_found_and_named(
    kind: str, edit: Callable[[Content], object], text: str, data_set: Path, tmp_path: Path
) -> None:
    data = (tmp_path / "few" / "000000000885.jpg").read_bytes()
    (tmp_path / "few" / "broken.jpg").write_bytes(b"not an image")
    (tmp_path / "few" / "cut.jpg").write_bytes(data[: len(data) // 2])
    change(data_set, edit)
    found = check(data_set).faults
    assert [fault.kind for fault in found] == [kind], [str(fault) for fault in found]
    assert text in str(found[0])


def test_faults_do_not_hide_each_other(data_set: Path, tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        moves_keypoint(-20, 5)(content)
        sets(num_keypoints=3, segmentation={"size": [3, 4], "counts": "x"})(content)
        content["annotations"][1]["bbox"] = None
        content["images"][1]["file_name"] = "none.jpg"

    change(data_set, edit)
    kinds = [fault.kind for fault in check(data_set).faults]
    assert kinds == ["bad_annotation", "missing", "keypoint_outside", "num_keypoints", "mask_size"]
    # What can be used is still drawn.
    assert write_sheet(tmp_path / "s.png", check(data_set), COCO17, 24) == 7


def test_a_set_without_keypoints_says_so(data_set: Path) -> None:
    def edit(content: Content) -> None:
        for entry in content["annotations"]:
            entry.update(keypoints=[0] * 51, num_keypoints=0)

    change(data_set, edit)
    assert [str(f) for f in check(data_set).faults] == ["no person has a labelled keypoint"]


def test_coordinates_on_the_border_are_no_fault(data_set: Path) -> None:
    def edit(content: Content) -> None:
        moves_keypoint(640, 427)(content)
        sets(bbox=[-0.5, -0.5, 641, 428], segmentation=rle(np.s_[:, :]))(content)

    change(data_set, edit)
    assert check(data_set).faults == ()


def test_other_categories_are_not_looked_at(data_set: Path) -> None:
    dog = {"id": 1, "category_id": 18, "image_id": 885, "bbox": [0, 0, -5, 0]}

    def edit(content: Content) -> None:
        content["annotations"].append(dog)
        content["categories"].append({"id": 18, "name": "dog"})

    change(data_set, edit)
    found = check(data_set)
    assert found.faults == () and found.counts["persons"] == check(data_set).counts["persons"]


def test_counts_are_those_of_the_file(data_set: Path) -> None:
    content = json.loads(data_set.read_text())
    people = [a for a in content["annotations"] if not a["iscrowd"]]
    found = check(data_set)
    assert found.counts["pictures"] == 8 and found.counts["pictures_without_persons"] == 0
    assert found.counts["persons"] == found.counts["persons_with_masks"] == len(people)
    assert found.counts["persons_with_keypoints"] == sum(a["num_keypoints"] > 0 for a in people)
    assert found.counts["crowd_regions"] == len(content["annotations"]) - len(people)
    assert found.counts["small"] == sum(a["area"] < 1024 for a in people)
    assert found.counts["large"] == sum(a["area"] >= 9216 for a in people)
    assert sum(found.counts[n] for n in ("small", "medium", "large")) == len(people)
    for index, name in enumerate(COCO17.keypoints):
        assert found.keypoints[name] == sum(a["keypoints"][3 * index + 2] > 0 for a in people)


def test_crowdpose_does_not_count_head_and_neck(tmp_path: Path, samples: Path) -> None:
    name = "000000000885.jpg"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / name).write_bytes((samples / name).read_bytes())
    keypoints = [300.0, 300.0, 2] * 14
    entry = {
        "id": 1,
        "image_id": 885,
        "category_id": 1,
        "bbox": [280, 200, 100, 200],
        "keypoints": keypoints,
        "num_keypoints": 12,
    }
    content = {
        "images": [{"id": 885, "file_name": name, "height": 427, "width": 640, "crowdIndex": 0}],
        "annotations": [entry, {**entry, "id": 2, "num_keypoints": 13}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE14.keypoints)}],
    }
    (tmp_path / "crowdpose_test.json").write_text(json.dumps(content))
    where = ("data", "check", tmp_path, "--split", "test", "--skeleton", "crowdpose14")
    done = kdc(*where, "--sheet", tmp_path / "s.png")
    assert done.returncode == 1, done.stderr
    assert "annotation 1 (id 2): num_keypoints is 13, 14 are labelled" in done.stdout
    assert "1 fault\n" in done.stdout and "'000000000885.jpg', annotation 0" not in done.stdout
    assert (tmp_path / "s.png").is_file()


def test_a_clean_set_ends_with_0_and_a_sheet(data_set: Path, tmp_path: Path) -> None:
    out = ("--sheet", tmp_path / "s.jpg", "--json", tmp_path / "c.json")
    done = kdc_process("data", "check", data_set, *out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing wrong" in done.stdout and "left shoulder" in done.stdout
    assert "8 images in" in done.stdout
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["faults"] == [] and found["counts"]["pictures"] == 8
    sheet = cv2.imread(str(tmp_path / "s.jpg"))
    assert sheet is not None
    height, width = sheet.shape[:2]
    assert width > height > 400
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {"s.jpg", "c.json", data_set.name}


def test_many_faults_of_a_kind_are_cut_off(data_set: Path, tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        for index in range(23):
            content["annotations"].append({**person(content), "id": -index, "num_keypoints": 5})

    change(data_set, edit)
    done = kdc("data", "check", data_set, "--json", tmp_path / "c.json")
    assert done.returncode == 1, done.stderr
    assert "num_keypoints that disagrees with the keypoints: 23" in done.stdout
    assert done.stdout.count("num_keypoints is 5") == 20 and "and 3 more" in done.stdout
    faults = json.loads((tmp_path / "c.json").read_text())["faults"]
    assert len(faults) == 23
    assert faults[0] == {
        "kind": "num_keypoints",
        "text": "num_keypoints is 5, 16 are labelled",
        "picture": "000000000885.jpg",
        "index": faults[0]["index"],
        "id": 0,
    }


@pytest.mark.parametrize("name", ["\ud800\x1b[2J.jpg", "\x1b[2J.jpg", "\0.jpg"])
def test_strange_names_do_not_end_the_command(name: str, data_set: Path, tmp_path: Path) -> None:
    change(data_set, image(file_name=name))
    out = ("--json", tmp_path / "c.json", "--sheet", tmp_path / "s.png")
    done = kdc("data", "check", data_set, *out)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "\x1b[2J" not in done.stdout and "7 images in" in done.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a complete JSON"),
        ("[1, 2]", "not a COCO annotation file"),
        ('{"images": {}, "annotations": []}', "not a COCO annotation file"),
    ],
)
def test_what_cannot_be_read_ends_with_2(text: str, reason: str, data_set: Path) -> None:
    data_set.write_text(text)
    done = kdc("data", "check", data_set)
    assert_refused(done, reason)


def test_a_folder_of_nothing_ends_with_2(tmp_path: Path) -> None:
    done = kdc("data", "check", tmp_path)
    assert_refused(done, "no annotations in")


def test_an_empty_set_is_wrong_and_has_no_sheet(data_set: Path, tmp_path: Path) -> None:
    data_set.write_text('{"images": [], "annotations": []}')
    done = kdc("data", "check", data_set, "--sheet", tmp_path / "s.png")
    assert done.returncode == 1 and "no person has a labelled keypoint" in done.stdout
    assert "no sheet" in done.stdout and not (tmp_path / "s.png").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--split", "all"), ("--skeleton", "coco"), ("--sheet", "s.gif")]
)
def test_options_are_checked_first(option: str, value: str, data_set: Path) -> None:
    done = kdc("data", "check", data_set, option, value)
    assert_refused(done, "expected")


def test_a_sheet_that_cannot_be_written_is_said(data_set: Path, tmp_path: Path) -> None:
    done = kdc("data", "check", data_set, "--sheet", tmp_path / "none" / "s.png")
    assert_refused(done, "s.png")
