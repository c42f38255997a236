"""Annotation files of every kind through `kdc data check`, `evaluate` and `train`."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdc_core.data.annotations import AnnotationError
from kdc_core.data.datasets import find_data
from kdc_core.data.images import Images
from kdc_core.evaluation.coco import score
from kdc_core.evaluation.run import predict_all, read_truth
from kdc_core.inference.predictor import Predictor
from kdc_core.training.samples import TrainingSamples

from .cases import NOTED, REFUSED, SILENT, halve, make_case, turn
from .commands import Done, assert_refused, kdc, kdc_process
from .conftest import SHARED, change
from .runs import PRESET, make_start, small

CASES = SHARED / "cases" / "annotations"
GIB = 1 << 30

NUMBERS = "numbers written as text or of another type, read as what they say: "
IDS = "annotation ids that are missing, 0, repeated or no whole numbers; numbered anew: "
NULL = "null, read as if nothing were given: 10, first annotation 0 (id 453991)"
AREA = "no area, computed from the mask, else .53 of the box: 10, first annotation 0 (id 453991)"
SKELETON = (
    "its persons have 5 keypoints (nose, left_shoulder, right_shoulder, left_hip, right_hip)"
)
NEAR = "expected finite coordinates, at most one side outside an image of 361x480"
TURNED = "'000000000036.jpg': annotated as 480x361, stored as 480x361, shown as 361x480 for EXIF"
NO_MASK = "1 of 10 persons have no mask"

# Exit status of `data check`, `evaluate` and `train`, and words that each of them says; those of
# `train` where they are others.
SHARED_CASES: dict[str, tuple[int, int, int, str, str]] = {
    "all_iscrowd_1": (1, 2, 2, "", "no person with keypoints"),
    "annotation_id_0": (0, 0, 0, IDS + "1, first annotation 0 (id 0)", ""),
    "annotation_ids_all_same": (0, 0, 0, IDS + "9, first annotation 1 (id 7)", ""),
    "area_0": (0, 0, 0, AREA, ""),
    "area_null": (0, 0, 0, AREA, ""),
    "bbox_strings": (0, 0, 0, NUMBERS + "10, first annotation 0 (id 453991)", ""),
    "exif6_width_height_swapped": (1, 2, 2, TURNED, "have another size than annotated"),
    "exports/cvat": (1, 2, 2, SKELETON, ""),
    "exports/generic": (1, 2, 2, SKELETON, ""),
    "exports/own": (1, 2, 2, SKELETON, ""),
    "exports/roboflow": (1, 2, 2, SKELETON, ""),
    "id_null": (0, 0, 0, IDS + "10, first annotation 0 (id None)", ""),
    "id_string": (0, 0, 0, IDS + "10, first annotation 0 (id 'ann-453991')", ""),
    "image_id_twice": (1, 2, 2, "image 1 has the id 36 of '000000000036.jpg'", ""),
    "iscrowd_null": (0, 0, 0, NULL, ""),
    "iscrowd_string_0": (0, 0, 0, NUMBERS + "10, first annotation 0 (id 453991)", ""),
    "keypoints_nested_pairs": (0, 0, 0, "points in lists of their own, read as one row: 10", ""),
    "keypoints_strings": (0, 0, 0, NUMBERS + "10, first annotation 0 (id 453991)", ""),
    "nan_polygon_one_oom": (
        1,
        2,
        2,
        f"annotation 0 (id 453991): a polygon has a point at (nan, 165.51): {NEAR}",
        "",
    ),
    "no_area": (0, 0, 0, AREA, ""),
    "num_keypoints_null": (0, 0, 0, NULL, ""),
    "other_category_annotation_without_bbox": (
        0,
        0,
        0,
        "a category that is not listed; left out: 1, first annotation 10 (id 99999)",
        "",
    ),
    "person_is_category_0": (0, 0, 0, "", ""),
    "person_is_category_2_alone": (0, 0, 0, "", ""),
    "pictures_half_size": (
        1,
        2,
        2,
        "annotated as 361x480, stored as 180x240, shown as 180x240",
        "have another size than annotated",
    ),
    "polygon_4_numbers_one": (1, 0, 0, "polygons of fewer than three points, left out: 1", ""),
    "rle_bytesrepr_6pics_hangs": (1, 2, 2, "write `counts.decode()` instead of", ""),
    "rle_short_hangs": (1, 2, 2, "RLE of 171831 pixels, expected the 173280 of the image", ""),
    "rle_swapsize": (1, 2, 2, "RLE of height and width [361, 480], expected those of", ""),
    "segmentation_empty_all": (0, 0, 2, "", "no person with masks"),
    "segmentation_empty_one": (0, 0, 0, "", ""),
    "segmentation_empty_polygon_one": (1, 0, 0, "polygons of fewer than three points, left", ""),
    "string_image_ids_both": (0, 0, 0, NUMBERS + "16, first image 0 (id '36')", ""),
    "width_height_strings": (0, 0, 0, NUMBERS + "6, first image 0 (id 36)", ""),
}


def said(done: Done) -> str:
    return " ".join((done.stdout + done.stderr).split())


def train(start: Path, data: Path, output: Path, *more: object) -> Done:
    preset = output.with_suffix(".yaml")
    preset.write_text(PRESET)
    given = ("--data", data, "--output", output, "--start", start, "--set", "train.steps=1")
    return kdc("train", preset, *given, "--threads", "1", *more)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_by_every_command(
    name: str, start: Path, tmp_path: Path
) -> None:
    edit, words = REFUSED[name]
    path = make_case(tmp_path / "case", edit)
    checked = kdc("data", "check", path.parent)
    assert checked.returncode == 1 and words in said(checked), said(checked)
    assert_refused(kdc("evaluate", "--annotations", path, "--images", path.parent), words)
    assert_refused(train(start, path.parent, tmp_path / "run"), words)
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("name", [*NOTED, *SILENT])
def test_what_is_only_written_otherwise_is_no_fault(name: str, tmp_path: Path) -> None:
    edit = NOTED[name][0] if name in NOTED else SILENT[name]
    done = kdc("data", "check", make_case(tmp_path / "case", edit).parent)
    if name == "image_of_nobody":
        assert done.returncode == 1 and "no image has the id 5" in said(done)
    else:
        assert done.returncode == 0 and "nothing wrong" in done.stdout, done.stdout


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nan_polygon_one_oom"),
        pytest.param("huge_polygon", marks=pytest.mark.all),
        pytest.param("endless_polygon", marks=pytest.mark.all),
        pytest.param("rle_short_hangs", marks=pytest.mark.all),
    ],
)
def test_masks_that_take_all_memory_are_refused_within_5_s_and_1_gb(
    name: str, tmp_path: Path
) -> None:
    path = make_case(tmp_path / name, REFUSED[name][0], 1)
    # getrusage would count the parent's memory, too.
    code = (
        "import sys\n"
        "from kdc_core.cli import run\n"
        "status = run(sys.argv[1:])\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "sys.exit(status)"
    )
    given = ["evaluate", "--annotations", str(path), "--images", str(path.parent)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert_refused(done, REFUSED[name][1])
    assert int(done.stdout.split()[-1]) * 1024 < GIB


# Images of another size, in training


def test_training_ends_where_more_than_a_hundredth_has_another_size(
    start: Path, tmp_path: Path
) -> None:
    path = make_case(tmp_path / "case", SILENT["clean"])
    turn(path.parent / "000000000885.jpg")
    done = train(start, path.parent, tmp_path / "run", "--set", "train.batch=8")
    assert_refused(done, "1 of 8 training images, so far, have another size than annotated")
    assert "Traceback" not in done.stdout


@pytest.mark.all
def test_training_ends_so_where_other_processes_read(start: Path, tmp_path: Path) -> None:
    path = make_case(tmp_path / "case", SILENT["clean"])
    for image in path.parent.glob("*.jpg"):
        halve(image)
    (tmp_path / "small.yaml").write_text(PRESET)
    done = kdc_process(
        "train",
        tmp_path / "small.yaml",
        "--data",
        path.parent,
        "--start",
        start,
        "--output",
        tmp_path / "run",
        "--set",
        "train.workers=2",
        "--threads",
        "1",
    )
    assert_refused(done, "of 8 training images, so far, have another size than annotated")
    assert "stored as 320x240, shown as 320x240" in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "worker" not in done.stderr


def test_images_to_evaluate_on_are_looked_at_before_the_first_step(
    start: Path, tmp_path: Path
) -> None:
    good, wrong = (make_case(tmp_path / name, SILENT["clean"]) for name in ("good", "wrong"))
    turn(wrong.parent / "000000000885.jpg")
    done = train(start, good.parent, tmp_path / "run", "--val", wrong.parent)
    assert_refused(done, "shown as 427x640 for EXIF orientation 6")
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_a_few_images_of_another_size_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_case(tmp_path / "case", SILENT["clean"])

    def repeat(content: dict[str, list[dict[str, object]]]) -> None:
        images, people = content["images"], content["annotations"]
        content["images"] = [
            {**image, "id": 1000 * n + place}
            for n in range(13)
            for place, image in enumerate(images)
        ]
        places = {image["id"]: place for place, image in enumerate(images)}
        content["annotations"] = [
            {**a, "id": 1 + 1000 * n + k, "image_id": 1000 * n + places[a["image_id"]]}
            for n in range(13)
            for k, a in enumerate(people)
        ]
        content["images"][5]["width"] = 700

    change(path, repeat)
    samples = TrainingSamples([str(path.parent)], small())
    assert samples.num_images == 104
    wrong = [samples._entries[place].image.size[1] for place in range(104)].index(700)
    for _ in range(2):
        assert samples.read(wrong)[1].image.shape[:2] == samples._entries[wrong + 1].image.size
    assert samples.left_out.count_nonzero() == 1
    text = "annotated as 700x480, stored as 640x480, shown as 640x480"
    assert caplog.text.count("left out of training: ") == 1 and text in caplog.text
    samples.left_out[wrong + 1] = samples.left_out[wrong]
    with pytest.raises(AnnotationError, match="2 of 104 training images, so far"):
        samples.check_sizes()


def test_images_of_each_data_set_may_be_named(start: Path, tmp_path: Path) -> None:
    path = make_case(tmp_path / "case", SILENT["clean"])
    file = path.rename(tmp_path / "mine.json")
    change(file, lambda c: c["categories"].append({"id": 2, "name": "person"}))
    refused = train(start, file, tmp_path / "run")
    assert_refused(refused, "--images (of --val, --val-images), that names another folder or tar")
    where = ("--images", path.parent, "--val", file, "--val-images", path.parent)
    assert_refused(
        train(start, file, tmp_path / "run", *where, *where[:2]), "expected one for each"
    )
    done = train(start, file, tmp_path / "run", *where, "--category", "person")
    assert_refused(done, "no one category 'person'")


@pytest.mark.all
def test_images_and_category_that_are_named_are_trained_on(start: Path, tmp_path: Path) -> None:
    path = make_case(tmp_path / "case", SILENT["clean"])
    file = path.rename(tmp_path / "mine.json")
    change(file, lambda c: c["categories"].append({"id": 2, "name": "person"}))
    where = ("--images", path.parent, "--val", file, "--val-images", path.parent)
    done = train(start, file, tmp_path / "run", *where, "--category", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "best.safetensors").is_file()
    assert json.loads((tmp_path / "run" / "inputs.json").read_text())["category"] == "1"


# ../shared


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Figures of the six images with annotations as COCO has them."""
    if not CASES.is_dir():
        pytest.skip("no ../shared")
    folder = tmp_path_factory.mktemp("clean")
    change_ids = json.loads((CASES / "id_string" / "annotations.json").read_text())
    for number, entry in enumerate(change_ids["annotations"], 1):
        entry["id"] = number
    (folder / "annotations.json").write_text(json.dumps(change_ids))
    return evaluated(folder / "annotations.json", CASES / "id_string", folder)[1]


def evaluated(annotations: Path, images: Path, folder: Path) -> tuple[Done, dict[str, float]]:
    out = folder / "figures.json"
    where = ("--annotations", annotations, "--images", images)
    done = kdc("evaluate", *where, "--runtime", "onnxruntime", "--json", out)
    read = json.loads(out.read_text()) if out.exists() else {}
    return done, {name: value for name, value in read.items() if "_ap" in name}


@pytest.mark.all
@pytest.mark.parametrize("name", SHARED_CASES)
def test_every_case_ends_as_it_should(
    name: str, start: Path, tmp_path: Path, clean: dict[str, float]
) -> None:
    check_status, evaluate_status, train_status, words, train_words = SHARED_CASES[name]
    folder = CASES / name
    checked = kdc("data", "check", folder)
    begun = time.monotonic()
    scored, figures = evaluated(*find_data(folder, "train"), tmp_path)
    trained = train(start, folder, tmp_path / "run")
    statuses = (checked.returncode, scored.returncode, trained.returncode)
    assert statuses == (check_status, evaluate_status, train_status), said(trained)
    for done in (checked, scored, trained):
        assert "Traceback" not in done.stderr
    assert words in said(checked)
    if evaluate_status == 2:
        assert name == "all_iscrowd_1" or words in said(scored)
    if train_status == 2:
        assert (train_words or words) in said(trained)
        assert not (tmp_path / "run" / "model.safetensors").exists()
    if evaluate_status == 0 and not name.startswith(("area", "no_area", "seg", "polygon")):
        assert figures == pytest.approx(clean, abs=1e-4)
    assert time.monotonic() - begun < 60


@pytest.mark.all
def test_areas_that_are_not_given_give_the_same_figures(
    tmp_path: Path, clean: dict[str, float]
) -> None:
    names = ("no_area", "area_null", "area_0")
    all_figures = [evaluated(*find_data(CASES / name, "train"), tmp_path)[1] for name in names]
    assert all_figures[0] == all_figures[1] == all_figures[2] == pytest.approx(clean, abs=0.02)


@pytest.mark.all
@pytest.mark.slow
def test_without_areas_the_figures_stay_close(tmp_path: Path) -> None:
    data = SHARED / "data" / "coco_person"
    if not data.is_dir():
        pytest.skip("no ../shared")
    truth, images = read_truth(data / "val.json.gz"), Images(data / "val.tar")
    predictor = Predictor.from_pretrained("kdc_light", "onnxruntime", confidence=0, keypoint=0)
    results, failed = predict_all(
        truth, lambda image: predictor(images.read(image.file_name)), lambda items, _: items
    )
    assert not failed
    content = json.loads(gzip.decompress((data / "val.json.gz").read_bytes()))
    for entry in content["annotations"]:
        del entry["area"]
    (tmp_path / "val.json").write_text(json.dumps(content))
    figures = score(truth, results), score(read_truth(tmp_path / "val.json"), results)
    with_areas, without = (both["keypoint_ap"] for both in figures)
    assert without == pytest.approx(with_areas, abs=0.005)
