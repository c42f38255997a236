"""The whole way learns: it overfits eight images, through the real commands (`make test-slow`)."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SHARED

DATA = SHARED / "data" / "coco_person"
SETTINGS = [
    "train.train=[posenet,segnet]",
    "train.steps=260",
    "train.warmup_steps=20",
    "train.ema=0.95",
    "train.crop=384",
    "train.longer_side=[384,384]",
    "train.flip=0",
    "train.color=0",
    "train.rate=2e-3",
    "train.rate_posenet=1e-3",
    "train.weight_instance=1.0",
    "train.weight_mid=1.0",
    "decode.pyramid=[1]",
    "predict.longer_side=384",
]


def kdc(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kdc_core", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.overfit
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/coco_person")
def test_eight_images_of_large_people_are_overfitted(tmp_path: Path) -> None:
    content = json.loads(gzip.decompress((DATA / "train.json.gz").read_bytes()))
    people: dict[int, list[dict[str, float]]] = {}
    for entry in content["annotations"]:
        people.setdefault(entry["image_id"], []).append(entry)
    large = [
        image
        for image in content["images"]
        if all(
            a["area"] > 96**2 and a["num_keypoints"] >= 10 and not a["iscrowd"]
            for a in people[image["id"]]
        )
    ][:8]
    keep = {image["id"] for image in large}
    assert len(keep) == 8
    chosen = [a for a in content["annotations"] if a["image_id"] in keep]
    few = {**content, "images": large, "annotations": chosen}
    (tmp_path / "few.json").write_text(json.dumps(few))
    (tmp_path / "few.tar").symlink_to(DATA / "train.tar")
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    kdc(
        "train",
        "kdc_light",
        "--data",
        tmp_path / "few.json",
        "--output",
        tmp_path / "run",
        *changes,
    )
    kdc(
        "evaluate",
        "--annotations",
        tmp_path / "few.json",
        "--images",
        tmp_path / "few.tar",
        "--model",
        tmp_path / "run" / "model.safetensors",
        "--json",
        tmp_path / "ap.json",
    )
    figures = json.loads((tmp_path / "ap.json").read_text())
    print(figures)
    assert figures["keypoint_ap"] >= 0.90
    assert figures["mask_ap_full50"] >= 0.95
