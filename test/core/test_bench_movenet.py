"""MoveNet MultiPose whole, the measure of `over_movenet`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from kdc_core.bench import movenet
from kdc_core.bench.peer import Peer
from kdc_core.codec.grid import Letterbox, SideRule
from kdc_core.codec.results import Prediction
from kdc_core.data.images import Images
from kdc_core.network.weights import ModelFileError

from .conftest import SAMPLES, make_person

CHECK = movenet.WEIGHTS.with_name("check.safetensors")
needs_weights = pytest.mark.skipif(
    not movenet.WEIGHTS.is_file() or not CHECK.is_file(), reason="needs ../shared/weights"
)


def movenet_maps(people: list[np.ndarray], rows: int, columns: int) -> list[np.ndarray]:
    """Maps of MultiPose that are true for people (17, 3), in pixels of the frame."""
    center = np.full((1, rows, columns), -6.0, np.float32)
    heat = np.full((17, rows, columns), -6.0, np.float32)
    offset, regress = np.zeros((2, 34, rows, columns), np.float32)
    box_scale, box_offset = np.zeros((2, 2, rows, columns), np.float32)
    for points in people:
        low, high = points[:, :2].min(0) / 4, points[:, :2].max(0) / 4
        x, y = np.rint((low + high) / 2).astype(int)
        center[0, y, x] = 4.0
        regress[:, y, x] = (points[:, :2] - (4 * x, 4 * y)).ravel()
        box_scale[:, y, x] = (high - low)[::-1] + 2
        for index, (px, py) in enumerate(points[:, :2]):
            kx, ky = round(float(px) / 4), round(float(py) / 4)
            heat[index, ky, kx] = 4.0
            offset[2 * index : 2 * index + 2, ky, kx] = px - 4 * kx, py - 4 * ky
    return [center, heat, offset, regress, box_scale, box_offset]


def test_decode_finds_the_people_of_true_maps_exactly() -> None:
    people = [make_person(20, 20, 60), make_person(101, 31, 50)]
    letterbox = Letterbox.fit((320, 384), 192, SideRule(32))  # an image of twice the frame's sides
    prediction = movenet.decode(movenet_maps(people, 40, 48), letterbox, (320, 384))
    assert prediction.size == (320, 384) and len(prediction) == movenet.PEOPLE
    found = prediction.persons[:2]
    for truth in people:
        gaps = [np.abs(p.keypoints[:, :2] - (2 * truth[:, :2] + 0.5)).max() for p in found]
        assert min(gaps) < 0.01
    assert all(person.score > 0.9 and not person.area for person in found)
    assert all(person.score < 0.01 for person in prediction.persons[2:])


def test_a_peer_gives_its_decode_the_maps_of_the_letterboxed_frame() -> None:
    def network(frame: np.ndarray) -> list[np.ndarray]:
        assert frame.dtype == np.uint8
        return [np.array(frame.shape)]

    def decode(maps: list[np.ndarray], letterbox: Letterbox, size: tuple[int, int]) -> Prediction:
        assert maps[0].tolist() == [*letterbox.size, 3] == [385, 513, 3]
        return Prediction(size, ())

    prediction = Peer(network, 512, SideRule(32, 1), decode)(np.zeros((480, 640, 3), np.uint8))
    assert prediction.size == (480, 640)
    assert list(prediction.timings_ms) == ["letterbox", "model", "assembly"]


def test_random_weights_are_always_the_same_and_give_six_people() -> None:
    one, other = movenet.random_multipose(), movenet.random_multipose()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    with torch.inference_mode():
        maps = [value.numpy() for value in one(torch.zeros(96, 128, 3, dtype=torch.uint8))]
    prediction = movenet.decode(maps, Letterbox.fit((96, 128), 128, SideRule(32)), (96, 128))
    assert len(prediction) == 6
    assert all(np.isfinite(person.keypoints).all() for person in prediction.persons)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    save_file({"heads.center.out.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match="'.*other.safetensors' is not MoveNet MultiPose"):
        movenet.load_multipose(tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match="no model file"):
        movenet.open_movenet(1, tmp_path / "absent.safetensors")


@needs_weights
@pytest.mark.all
def test_the_published_network_in_onnx_runtime_gives_what_the_published_graph_gave() -> None:
    peer = movenet.open_movenet(1)
    check = load_file(CHECK)
    maps = peer.network(check["image_uint8_hwc_rgb"])
    names = ("center", "kpt_heatmap", "kpt_offset", "kpt_regress", "box_scale", "box_offset")
    for name, ours in zip(names, maps, strict=True):
        if name.startswith("kpt_") and name != "kpt_heatmap":  # ours are x, y in pixels
            ours = ours.reshape(17, 2, 64, 64)[:, ::-1].reshape(34, 64, 64) / 4
        assert np.abs(ours - check[f"movenet_multipose.{name}"][0]).max() < 1e-3, name

    source = Images(SAMPLES)
    for name in ("000000409475.jpg", "000000283520.jpg"):
        image = source.read(name)
        person = peer(image).persons[0]
        seen = person.keypoints[person.keypoints[:, 2] > 0.3, :2]
        assert person.score > 0.3 and len(seen) >= 5
        assert (seen >= -20).all() and (seen <= np.array(image.shape[1::-1]) + 20).all()
