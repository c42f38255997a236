"""The network: structure, padding, the published weights, and its files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdc_core.config import load_preset
from kdc_core.network.kdc import KDC
from kdc_core.network.movenet import MoveNet, SameConv
from kdc_core.network.weights import ModelFileError, load_model, save_model, start_from
from kdc_core.runtimes.base import find_model

from .conftest import SHARED

GOOGLE = SHARED / "weights" / "movenet_multipose.safetensors"
CHECK = SHARED / "weights" / "check.safetensors"
CONFIG = load_preset("kdc_light")


def test_stride_two_pads_below_and_to_the_right_only() -> None:
    conv = SameConv(1, 1, 3, stride=2)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 0, 0] = 1
        conv.bias.zero_()  # type: ignore[union-attr]
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(conv(picture)[0, 0], picture[0, 0, ::2, ::2])


@pytest.mark.parametrize("size", [(32, 64), (96, 160)])
def test_fields_lie_on_the_grid_of_any_size(size: tuple[int, int]) -> None:
    network = KDC(CONFIG).eval()
    with torch.no_grad():
        fields = network(torch.zeros(2, 3, *size))
    h, w = (network.grid.size(side) for side in size)
    assert fields.heat.shape == (2, 18, h, w)
    assert fields.short.shape == (2, 18, 2, h, w)
    assert fields.mid.shape == (2, len(network.edges), 2, h, w)
    assert fields.mask.shape == (2, 1, h, w)
    assert fields.embedding.shape == (2, 18, 2, h, w)


@pytest.mark.skipif(not GOOGLE.is_file(), reason="needs ../shared/weights")
def test_movenet_gives_what_the_published_graph_gave() -> None:
    posenet = start_from(CONFIG, GOOGLE).posenet.eval()
    check = load_file(CHECK)
    frame = check["image_uint8_hwc_rgb"].permute(2, 0, 1)[None].float()
    with torch.no_grad():
        _, features, heads = posenet.published(frame * 0.007843017578125 - 1)
    assert (features - check["movenet_multipose.features"]).abs().max() < 1e-4
    for name in ("center", "kpt_heatmap"):
        assert (heads[name] - check[f"movenet_multipose.{name}"]).abs().max() < 1e-3
    for name in ("kpt_offset", "kpt_regress"):
        ours = heads[name].reshape(1, 17, 2, 64, 64).flip(2).reshape(1, 34, 64, 64) / 4
        assert (ours - check[f"movenet_multipose.{name}"]).abs().max() < 1e-3


def test_a_model_file_comes_back_as_fp16_values(tmp_path: Path) -> None:
    network = KDC(CONFIG)
    save_model(network, tmp_path / "m.safetensors", {"made": "by a test"})
    loaded, provenance = load_model(tmp_path / "m.safetensors")
    assert provenance == {"made": "by a test"}
    assert loaded.config == CONFIG
    for (name, ours), theirs in zip(
        network.state_dict().items(), loaded.state_dict().values(), strict=True
    ):
        expected = ours.half().float() if ours.is_floating_point() else ours
        assert torch.equal(theirs, expected), name
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_training_starts_from_a_model_of_ours(tmp_path: Path) -> None:
    network = KDC(CONFIG)
    save_model(network, tmp_path / "m.safetensors", {})
    again = start_from(CONFIG, tmp_path / "m.safetensors")
    assert torch.equal(again.segnet.mask.weight, network.segnet.mask.weight.half().float())


def broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = find_model("kdc_light", (".safetensors",)).read_bytes()
    files = {
        "truncated": (whole[: len(whole) // 2], "not a complete safetensors file"),
        "empty": (b"", "not a complete safetensors file"),
        "text": (b"hello, world " * 50, "not a complete safetensors file"),
        "pickled": (pickle.dumps({"weights": [1, 2, 3]}), "pickled, which is never loaded"),
        "zip of torch.save": (b"PK\x03\x04" + bytes(200), "pickled, which is never loaded"),
    }
    made = {}
    for name, (data, text) in files.items():
        path = folder / f"{name}.safetensors"
        path.write_bytes(data)
        made[name] = (path, text)
    foreign = folder / "foreign.safetensors"
    save_file({"a": torch.zeros(3)}, foreign)
    made["foreign"] = (foreign, "not a KDC model")
    return made


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "text", "pickled", "zip of torch.save", "foreign"]
)
def test_broken_weights_are_refused_with_a_reason(kind: str, tmp_path: Path) -> None:
    path, text = broken_files(tmp_path)[kind]
    with pytest.raises(ModelFileError, match=text):
        load_model(path)
    with pytest.raises(ModelFileError):
        start_from(CONFIG, path)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    network = KDC(CONFIG)
    path = tmp_path / "m.safetensors"
    save_model(network, path, {})
    wider = CONFIG.model_copy(
        update={"network": CONFIG.network.model_copy(update={"segnet_tower": 128})}
    )
    with pytest.raises(ModelFileError, match="cannot start"):
        start_from(wider, path)


def test_movenet_has_the_published_number_of_parameters() -> None:
    boxes = 2 * (24 * 9 + 24 * 96 + 96 + 96 * 2 + 2)  # the two box heads that are dropped
    assert sum(p.numel() for p in MoveNet().parameters()) == 4_723_346 - boxes
