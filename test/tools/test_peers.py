"""tools/peers.py: the comparison with MoveNet and BodyPix, and BodyPix's decode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bodypix
import numpy as np
import peers
import pytest
import sizes
from core.conftest import SAMPLES, make_person

from kdc_core.codec.grid import Letterbox, SideRule
from kdc_core.data.annotations import Annotations
from kdc_core.data.images import Images
from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import FIGURES

BODYPIX = peers.WEIGHTS / f"{peers.BODYPIX}.safetensors"
needs_weights = pytest.mark.skipif(
    not BODYPIX.is_file() or not (peers.WEIGHTS / f"{peers.MOVENET}.safetensors").is_file(),
    reason="needs ../shared/weights",
)


@needs_weights
@pytest.mark.all
def test_bodypix_finds_people_in_real_images() -> None:
    run = bodypix.open_bodypix(1, BODYPIX)
    source = Images(SAMPLES)
    for name in ("000000409475.jpg", "000000283520.jpg"):
        image = source.read(name)
        prediction = run(image)
        person = prediction.persons[0]
        seen = person.keypoints[person.keypoints[:, 2] > 0.3, :2]
        assert person.score > 0.3 and len(seen) >= 5
        assert (seen >= -20).all() and (seen <= np.array(image.shape[1::-1]) + 20).all()
        assert person.area > 500
        x0, y0, x1, y1 = person.box
        inside = (seen > (x0 - 20, y0 - 20)) & (seen < (x1 + 20, y1 + 20))
        assert inside.all(1).mean() > 0.6, "mask and keypoints are of one person"
        masks = [p.full_mask(prediction.size) for p in prediction.persons]
        assert np.sum(masks, 0).max() == 1, "a pixel is one person's"


def body_maps(people: list[np.ndarray]) -> list[np.ndarray]:
    """Maps of BodyPix, 21 x 31 cells, that are true for people side by side."""
    h, w = 21, 31
    cells = 16.0 * np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1)
    owner = np.array([[abs(p[:, 0].mean() - cells[0, x, 0]) for x in range(w)] for p in people])
    chosen = np.stack(people)[owner.argmin(0)][None, :, :, :2]  # (1, w, 17, 2)
    gap = chosen - cells[:, :, None]
    heat = np.where(np.abs(gap).max(-1) <= 8, 4.0 - np.abs(gap).sum(-1) / 16, -6.0)
    edges = np.array(bodypix.EDGES)
    bone = chosen[:, :, edges[:, 1]] - chosen[:, :, edges[:, 0]] + np.zeros((h, 1, 1, 1))

    def channels(value: np.ndarray) -> np.ndarray:
        """(h, w, n, 2) x, y to channels: all y, then all x."""
        return np.concatenate((value[..., 1], value[..., 0]), -1).transpose(2, 0, 1)

    box = [(p[:, :2].min(0), p[:, :2].max(0)) for p in people]
    body = np.any([((cells >= a) & (cells <= b)).all(-1) for a, b in box], 0)
    maps = [
        heat.transpose(2, 0, 1),
        channels(gap),
        channels(bone),
        channels(-bone),
        np.where(body, 5.0, -5.0)[None],
        channels(gap),
    ]
    return [m.astype(np.float32) for m in maps]


def test_bodypix_decodes_true_maps_exactly() -> None:
    people = [make_person(40, 20, 140), make_person(290, 30, 140)]
    letterbox = Letterbox.fit((321, 481), 481, SideRule(16, 1))
    prediction = bodypix.decode(body_maps(people), letterbox, (321, 481))
    assert len(prediction) == 2
    for person in prediction.persons:
        gaps = [np.abs(person.keypoints[:, :2] - p[:, :2]).max() for p in people]
        assert min(gaps) < 0.1
        truth = people[int(np.argmin(gaps))]
        x0, y0, x1, y1 = person.box
        assert np.abs((x0, x1) - np.array([truth[:, 0].min(), truth[:, 0].max()])).max() < 16
        assert np.abs((y0, y1) - np.array([truth[:, 1].min(), truth[:, 1].max()])).max() < 16


def test_bodypix_finds_nobody_in_empty_maps() -> None:
    maps = [np.full((c, 3, 4), -9, np.float32) for c in bodypix.HEADS.values()]
    prediction = bodypix.decode(maps, Letterbox.fit((33, 49), 49, SideRule(16, 1)), (33, 49))
    assert len(prediction) == 0 and not prediction.labels.any()


def test_two_models_of_one_name_are_not_mixed() -> None:
    nobody = Annotations(Path("none.json"), ())
    twice = ["kdc_light", "kdc_light"]
    with pytest.raises(KdcError, match="'kdc_light' is the second kdc_light fp32"):
        sizes.precision_by_size(nobody, Images(SAMPLES), twice, {}, [128], 1)


def on_two_samples(*words: str) -> subprocess.CompletedProcess[str]:
    """The script on two sample images, ended well."""
    script = (sys.executable, str(Path(peers.__file__)), "--limit", "2")
    data = ("--annotations", str(SAMPLES / "annotations.json"), "--images", str(SAMPLES))
    done = subprocess.run([*script, *data, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


@needs_weights
@pytest.mark.all
@pytest.mark.timed  # our network is timed in a call of its own
def test_the_script_writes_all_figures(tmp_path: Path) -> None:
    done = on_two_samples("--json", str(tmp_path / "peers.json"))
    assert done.stdout.startswith("2 images, ") and "keypoint_ap50" in done.stdout
    written = json.loads((tmp_path / "peers.json").read_text())
    assert written["pictures"] == 2 and written["threads"] >= 1
    assert list(written["models"]) == ["kdc_light", peers.MOVENET, peers.BODYPIX]
    for name, figures in written["models"].items():
        measures = "keypoint_ap" if name == peers.MOVENET else ("keypoint_ap", "mask_ap")
        precision = {figure for figure in FIGURES if figure.startswith(measures)}
        times = {"network_ms", "whole_ms", "whole_over_ours", "longer_side"}
        assert set(figures) == precision | times
        assert figures["keypoint_ap50"] > 0.1 and 0 < figures["network_ms"] < figures["whole_ms"]
    assert written["models"]["kdc_light"]["whole_over_ours"] == 1


def test_missing_weights_and_images_are_named(tmp_path: Path) -> None:
    annotations = SAMPLES / "annotations.json"
    with pytest.raises(KdcError, match=r"no 'movenet_multipose.safetensors'.*--weights"):
        peers.compare(annotations, SAMPLES, tmp_path, "kdc_light", 1)
    with pytest.raises(KdcError, match=r"no images at.*--images"):
        peers.compare(annotations, tmp_path / "none", peers.WEIGHTS, "kdc_light", 1)


@needs_weights
@pytest.mark.all
@pytest.mark.timed  # smaller pictures take less time
def test_sizes_are_compared_in_precision_and_time(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="compares with OpenVINO")
    given = ("--json", str(tmp_path / "sizes.json"), "--plot", str(tmp_path / "sizes.png"))
    done = on_two_samples("--sides", "128,320", "--rounds", "1", *given)
    written = json.loads((tmp_path / "sizes.json").read_text())
    ours = written["precision"]["kdc_light fp32"]
    assert ours["320"]["keypoint_ap"] > ours["128"]["keypoint_ap"]
    assert set(written["time"]) == {
        "kdc_light fp32, onnxruntime",
        "kdc_light fp32, openvino",
        peers.MOVENET,
        peers.BODYPIX,
    }
    for by_side in written["time"].values():
        assert 0 < by_side["128"] < by_side["320"]
    assert (tmp_path / "sizes.png").stat().st_size > 5000
    assert len(done.stdout.splitlines()) == 2 + 2 * len(written["time"])
