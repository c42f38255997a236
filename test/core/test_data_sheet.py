"""What the sheet of `kdc data check` shows."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from kdc_core.codec.skeleton import COCO17
from kdc_core.data.images import decode_image
from kdc_core.datacheck.sheet import write_sheet

from .conftest import Content, change, check, person, rle


def read(path: Path) -> np.ndarray:
    return decode_image(path.read_bytes(), path.name)


def test_the_sheet_shows_what_is_annotated(data_set: Path, tmp_path: Path) -> None:
    """One image: its person is tinted, the hatched region has its outline, else as it is."""
    region = {
        "id": 9,
        "image_id": 885,
        "category_id": 1,
        "iscrowd": 1,
        "num_keypoints": 0,
        "keypoints": [0] * 51,
        "bbox": [20, 250, 200, 150],
        "area": 30000,
        "segmentation": rle(np.s_[250:400, 20:220]),
    }

    def edit(content: Content) -> None:
        content["images"] = content["images"][:1]
        content["annotations"] = [person(content), region]

    change(data_set, edit)
    assert write_sheet(tmp_path / "s.png", check(data_set), COCO17, 24) == 1
    sheet = read(tmp_path / "s.png").astype(int)
    source = read(tmp_path / "few" / "000000000885.jpg")
    scale = 444 / 640
    small = cv2.resize(source, (444, round(427 * scale)), interpolation=cv2.INTER_AREA)
    top, left = (448 - small.shape[0]) // 2, 2
    shown = sheet[top : top + small.shape[0], left : left + 444]
    changed = np.abs(shown - small).max(-1) > 0
    box = np.round(np.array([277, 190, 417, 398]) * scale).astype(int)
    assert 0.2 < changed[box[1] : box[3], box[0] : box[2]].mean() < 0.9
    crowd = np.round(np.array([20, 250, 220, 400]) * scale).astype(int)
    hatched = changed[crowd[1] : crowd[3], crowd[0] : crowd[2]]
    assert 0.1 < hatched.mean() < 0.25
    assert (shown[crowd[1], crowd[0] : crowd[2]] == 255).all(), "outline"
    elsewhere = changed.copy()
    elsewhere[box[1] - 20 : box[3] + 4, box[0] - 4 : box[2] + 4] = False
    elsewhere[crowd[1] - 1 : crowd[3] + 1, crowd[0] - 1 : crowd[2] + 1] = False
    assert not elsewhere.any()
    assert (sheet[448:] > 150).any(), "the file's name"


def test_samples_are_spread_and_the_same_each_time(data_set: Path, tmp_path: Path) -> None:
    found = check(data_set)
    for name in ("a.png", "b.png"):
        assert write_sheet(tmp_path / name, found, COCO17, 3) == 3
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    three = read(tmp_path / "a.png")
    assert write_sheet(tmp_path / "all.png", found, COCO17, 24) == 8
    everything = read(tmp_path / "all.png")
    assert (three[:468, :448] == everything[:468, :448]).all(), "the first"
    assert (three[468:, :448] == everything[468:936, 3 * 448 :]).all(), "and the last"
