"""Every command, as a user calls it."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kdc_core.cli import spread


def kdc(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kdc_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=cwd,
    )


def test_predict_goes_on_past_files_it_cannot_read(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(samples / "000000409475.jpg", folder / "a.jpg")
    data = (samples / "000000283520.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(b"not a picture")
    (folder / "c.jpg").write_bytes(b"")
    (folder / "d.jpg").write_bytes(data)
    done = kdc("predict", folder, "--output", tmp_path / "out", "--json", tmp_path / "p.json")
    assert done.returncode == 1, done.stderr
    assert "b.jpg' cannot be read as a picture" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "d.jpg"]
    people = json.loads((tmp_path / "p.json").read_text())
    assert len(people["keypoints"]) == 17
    assert [Path(i["source"]).name for i in people["images"]] == [f"{n}.jpg" for n in "abcd"]
    first = people["images"][0]
    assert len(first["persons"]) >= 2 and len(first["persons"][0]["keypoints"]) == 17
    assert "error" in people["images"][1]


def test_predict_writes_a_video_for_a_video(samples: Path, tmp_path: Path) -> None:
    done = kdc("predict", samples / "people.mp4", "--output", tmp_path / "out", "--frames", 6)
    assert done.returncode == 0, done.stderr
    video = cv2.VideoCapture(str(tmp_path / "out" / "people.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["people.mp4"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: p / "nothing.jpg", "does not exist"),
        (lambda p: (p / "empty").mkdir() or p / "empty", "no pictures or videos"),
        (lambda p: (p / "a.txt").write_text("x") and p / "a.txt", "neither a picture nor a video"),
    ],
)
def test_predict_refuses_what_is_no_source(make, text: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = kdc("predict", make(tmp_path), cwd=tmp_path)
    assert done.returncode == 2 and text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_video_is_an_error_not_an_end(samples: Path, tmp_path: Path) -> None:
    data = (samples / "people.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:2000])
    done = kdc("predict", tmp_path / "cut.mp4", "--output", tmp_path / "out")
    assert done.returncode == 1 and "cut.mp4" in done.stderr


def test_evaluate_gives_the_figures_of_an_independent_pycocotools(
    samples: Path, tmp_path: Path
) -> None:
    annotations = tmp_path / "few.json.gz"
    annotations.write_bytes(gzip.compress((samples / "annotations.json").read_bytes()))
    done = kdc(
        "evaluate",
        "--annotations",
        annotations,
        "--images",
        samples,
        "--results",
        tmp_path / "r.json",
        "--json",
        tmp_path / "f.json",
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "f.json").read_text())
    content = json.loads((samples / "annotations.json").read_text())
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(content))
    assert figures["keypoint_ap"] == independent(plain, tmp_path / "r.json", "keypoints")
    assert figures["mask_ap_full"] == independent(plain, tmp_path / "r.json", "segm")
    for entry in content["annotations"]:
        entry["iscrowd"] = int(entry["iscrowd"] or not entry["num_keypoints"])
    plain.write_text(json.dumps(content))
    masks = independent(plain, tmp_path / "r.json", "segm")
    assert figures["mask_ap_keypoint_persons"] == masks
    assert 0.2 < figures["keypoint_ap"] <= 1
    for name in ("keypoint_ap", "mask_ap_keypoint_persons", "mask_ap_full"):
        assert {name + s for s in ("50", "75", "_medium", "_large")} <= set(figures)


def independent(annotations: Path, results: Path, kind: str) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 4)


def test_evaluate_from_a_tar_with_a_picture_missing(samples: Path, tmp_path: Path) -> None:
    import tarfile

    content = json.loads((samples / "annotations.json").read_text())
    keep = {i["id"] for i in content["images"][:2]}
    for key, field in (("images", "id"), ("annotations", "image_id")):
        content[key] = [entry for entry in content[key] if entry[field] in keep]
    (tmp_path / "two.json").write_text(json.dumps(content))
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        tar.add(samples / content["images"][0]["file_name"], content["images"][0]["file_name"])
    done = kdc(
        "evaluate",
        "--annotations",
        tmp_path / "two.json",
        "--images",
        tmp_path / "two.tar",
        "--json",
        tmp_path / "f.json",
    )
    assert done.returncode == 1
    assert "is not in" in done.stderr
    assert json.loads((tmp_path / "f.json").read_text())["failed"] == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a complete JSON"),
        ("[1, 2]", "not a COCO annotation file"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1]}]}', "annotation 0"),
        ('{"images": [{"id": 1}], "annotations": []}', "image 0"),
    ],
)
def test_evaluate_refuses_foreign_annotations(
    text: str, reason: str, samples: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(text)
    done = kdc("evaluate", "--annotations", tmp_path / "a.json", "--images", samples)
    assert done.returncode == 2 and reason in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_oracle_on_the_sample_pictures(samples: Path, tmp_path: Path) -> None:
    done = kdc(
        "evaluate",
        "--oracle",
        "--annotations",
        samples / "annotations.json",
        "--images",
        samples,
        "--json",
        tmp_path / "f.json",
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["keypoint_ap"] > 0.97 and figures["mask_ap_keypoint_persons"] > 0.80


def test_doctor_says_what_runs() -> None:
    done = kdc("doctor")
    assert done.returncode == 0
    assert "runtime onnxruntime" in done.stdout and "works on cpu" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["predict"],
        ["evaluate"],
        ["train"],
        ["export"],
        ["bench"],
        ["bench", "predictor"],
        ["bench", "node"],
        ["doctor"],
    ],
)
def test_help_of_every_command(command: list[str]) -> None:
    done = kdc(*command, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout


@pytest.mark.slow
def test_bench_predictor_reports_its_ratios(tmp_path: Path) -> None:
    done = kdc("bench", "predictor", "--rounds", 3, "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "b.json").read_text())
    assert figures["found_1"] == 1 and figures["found_30"] >= 20
    for name in (
        "network_ms",
        "decode_over_network",
        "people_30_over_1",
        "end_to_end_over_network",
        "frames_per_second",
    ):
        assert np.isfinite(figures[name])


def test_a_broken_model_is_one_line_not_a_traceback(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing of ours")
    done = kdc("predict", samples / "000000000885.jpg", "--model", tmp_path / "m.onnx")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("train p --data a b --set x=1 y=2", "train p --data a --data b --set x=1 --set y=2"),
        ("train --data a p", "train --data a p"),
        ("predict --model m one.jpg two.jpg", "predict --model m one.jpg two.jpg"),
        ("paper table1 --model a b --json f", "paper table1 --model a --model b --json f"),
    ],
)
def test_options_with_several_values(given: str, meant: str) -> None:
    assert spread(given.split()) == meant.split()
