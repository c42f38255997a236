"""The network: structure, padding, the published weights, and its files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdc_core.config import ConfigError
from kdc_core.config_file import load_preset
from kdc_core.data.images import Images
from kdc_core.inference.model_files import find_model
from kdc_core.network.kdc import KDC
from kdc_core.network.movenet import MoveNet, SameConv
from kdc_core.network.resnet import DilatedResNet
from kdc_core.network.segnet import SegNet
from kdc_core.network.weights import (
    ModelFileError,
    load_model,
    read_tensors,
    save_model,
    start_from,
)

from .conftest import SHARED

GOOGLE = SHARED / "weights" / "movenet_multipose.safetensors"
CHECK = SHARED / "weights" / "check.safetensors"
CONFIG = load_preset("kdc_light")


@pytest.mark.parametrize(("detail", "edges"), [(0, 0), (4, 3)])
def test_the_heads_of_segnet_are_its_layers_in_pixels(detail: int, edges: int) -> None:
    torch.manual_seed(0)
    segnet = SegNet((8, 8), 6, 5, 8, 8, 1, detail, edges).eval()
    tower = torch.randn(2, 8, 6, 4)
    with torch.no_grad():
        for value in segnet.parameters():  # those that refine begin with nothing
            torch.nn.init.normal_(value)
        found = segnet._heads(tower)
        expected = [segnet.mask(tower), 32 * segnet.embedding(tower)]
        if segnet.refine is not None:
            heat, short, mid = segnet.refine(tower).split((5, 10, 6), 1)
            expected += [heat, 8 * short, 32 * mid]
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_stride_two_pads_below_and_to_the_right_only() -> None:
    conv = SameConv(1, 1, 3, stride=2)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 0, 0] = 1
        conv.bias.zero_()  # type: ignore[union-attr]
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(conv(image)[0, 0], image[0, 0, ::2, ::2])


@pytest.mark.parametrize("size", [(32, 64), (96, 160)])
def test_fields_lie_on_the_grid_of_any_size(size: tuple[int, int]) -> None:
    network = KDC(CONFIG).eval()
    with torch.no_grad():
        fields = network(torch.zeros(2, 3, *size))
    h, w = (network.codec.grid.count(side) for side in size)
    assert fields.heat.shape == (2, 18, h, w)
    assert fields.short.shape == (2, 18, 2, h, w)
    assert fields.mid.shape == (2, len(network.codec.edges), 2, h, w)
    assert fields.mask.shape == (2, 1, 2 * h, 2 * w), "from the finer map"
    assert fields.embedding.shape == (2, 18, 2, h, w)


@pytest.mark.skipif(not GOOGLE.is_file(), reason="needs ../shared/weights")
def test_movenet_gives_what_the_published_graph_gave() -> None:
    posenet = start_from(CONFIG, GOOGLE).posenet.eval()
    assert isinstance(posenet, MoveNet)
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
    assert provenance["made"] == "by a test" and provenance["keypoints"][0] == "nose"
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


def resnet101_weights(path: Path) -> Path:
    """A file with the names and shapes of torchvision's and timm's ResNet-101."""
    state = {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in DilatedResNet("resnet101", 18, 32).state_dict().items()
        if not key.startswith(("heat.", "short.", "mid.", "reduce."))
    }
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    assert len([k for k in state if k.endswith("conv3.weight")]) == 3 + 4 + 23 + 3
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    return path


def test_the_papers_model_starts_from_imagenet_and_lies_on_its_lattice(tmp_path: Path) -> None:
    config = load_preset("paper_resnet101")
    network = start_from(config, resnet101_weights(tmp_path / "imagenet.safetensors")).eval()
    known = load_file(tmp_path / "imagenet.safetensors")
    name = "layer3.22.conv2.weight"
    assert torch.equal(network.posenet.state_dict()[name].half(), known[name])
    with torch.no_grad():
        fields = network(torch.zeros(1, 3, 129, 161))
    assert fields.heat.shape == (1, 18, 17, 21), "8 n + 1 pixels to n + 1 cells"
    assert fields.mid.shape[1] == 32 and fields.embedding.shape == (1, 18, 2, 17, 21)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    state = load_file(resnet101_weights(tmp_path / "imagenet.safetensors"))
    del state["layer4.2.bn3.running_var"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(ModelFileError, match=r"layer4\.2\.bn3\.running_var.*got none"):
        start_from(load_preset("paper_resnet101"), tmp_path / "cut.safetensors")
    with pytest.raises(ModelFileError, match="cannot start 'paper_resnet152'"):
        start_from(load_preset("paper_resnet152"), tmp_path / "imagenet.safetensors")


def test_a_head_that_moves_offsets_is_missed_by_name(tmp_path: Path) -> None:
    save_file({"heads.kpt_offset.out.bias": torch.zeros(34)}, tmp_path / "cut.safetensors")
    missing = "not MoveNet's weights: expected 'heads.kpt_offset.out.weight', which is missing"
    with pytest.raises(ModelFileError, match=missing):
        start_from(CONFIG, tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("preset", "change", "reason"),
    [
        ("paper_resnet101", "fields.stride=4", "maps of stride 8"),
        ("paper_resnet101", "decode.pyramid=[1, 2]", "no pyramid"),
        ("kdc_light", "decode.pyramid=[2]", r"expected 1, and then coarser levels.*\[2\]"),
        ("kdc_light", "decode.pyramid=[2, 1]", "expected 1, and then coarser levels"),
        ("kdc_light", "decode.pyramid=[1, 1]", "each once"),
        ("kdc_light", "fields.edges=[tree]", "star_out"),
        ("kdc_light", "fields.skeleton=crowdpose14", "coco17"),
    ],
)
def test_fields_that_a_backbone_cannot_give_are_refused(
    preset: str, change: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        KDC(load_preset(preset, [change]))


THUNDER = SHARED / "weights" / "movenet_thunder.safetensors"


@pytest.mark.skipif(not THUNDER.is_file(), reason="needs ../shared/weights")
def test_thunder_fits_its_own_backbone_alone() -> None:
    thunder = load_preset("kdc_light", ["network.backbone=movenet_thunder"])
    network = start_from(thunder, THUNDER).eval()
    with torch.no_grad():
        fields = network(torch.zeros(1, 3, 64, 96))
    assert fields.heat.shape == (1, 18, 16, 24)
    with pytest.raises(ModelFileError, match="cannot start 'kdc_light'"):
        start_from(CONFIG, THUNDER)


def test_towers_start_from_shallower_and_deeper_ones(samples: Path, tmp_path: Path) -> None:
    shipped = find_model("kdc_light", (".safetensors",))
    light, _ = load_model(shipped)
    depth = len(light.segnet.tower) + 2
    deeper = start_from(
        load_preset("kdc_light", [f"network.segnet_depth={depth}"]), shipped
    ).eval()
    assert len(deeper.segnet.tower) == depth
    image = Images(samples).read("000000000885.jpg")[:384, :384]
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        one, other = light(batch), deeper(batch)
        assert torch.equal(light.posenet(batch).heat, deeper.posenet(batch).heat)
    same = (one.mask > 0) == (other.mask > 0)
    assert 0.97 < same.float().mean() and (one.mask != other.mask).any()
    shallower = start_from(load_preset("kdc_light", ["network.segnet_depth=1"]), shipped)
    assert len(shallower.segnet.tower) == 1
    kept = "segnet.tower.0.pointwise.weight"
    assert torch.equal(shallower.state_dict()[kept], light.state_dict()[kept])
    with pytest.raises(ModelFileError, match="segnet.tower.0.pointwise"):
        start_from(load_preset("kdc_light", ["network.segnet_tower=64"]), shipped)
    state, metadata = read_tensors(shipped)
    del state["segnet.tower.0.norm.running_mean"]
    damaged = tmp_path / "damaged.safetensors"
    save_file(state, damaged, metadata)
    with pytest.raises(ModelFileError, match="segnet.tower.0.norm.running_mean"):
        start_from(load_preset("kdc_light"), damaged)


PLAIN = ["network.detail=false", "network.refine=false"]
REFINED = ["network.detail=true", "network.refine=true"]


def test_a_plain_network_does_not_start_from_a_refined_one() -> None:
    with pytest.raises(ModelFileError, match="segnet.mask.weight"):
        start_from(load_preset("kdc_light", PLAIN), find_model("kdc_light", (".safetensors",)))


def test_a_refined_network_starts_from_a_plain_one_as_what_it_was(
    samples: Path, tmp_path: Path
) -> None:
    """The finer map and the refinement add nothing at first; the person map is repeated."""
    plain = KDC(load_preset("kdc_light", PLAIN)).eval()
    save_model(plain, tmp_path / "plain.safetensors", {})
    plain, refined = (
        start_from(load_preset("kdc_light", changes), tmp_path / "plain.safetensors").eval()
        for changes in (PLAIN, REFINED)
    )
    source = Images(samples)
    frame = torch.from_numpy(source.read("000000000885.jpg")[:320, :320].copy())
    image = frame.permute(2, 0, 1)[None].float()
    with torch.no_grad():
        before, after = dict(plain(image).items()), dict(refined(image).items())
    repeated = before.pop("mask").repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(after.pop("mask"), repeated, atol=1e-4)
    for name, value in before.items():
        assert torch.allclose(after[name], value, atol=1e-3), name


def test_what_refines_posenet_changes_its_maps() -> None:
    network = KDC(load_preset("kdc_light", REFINED)).eval()
    assert network.segnet.refine is not None and network.segnet.refine.bias is not None
    image = torch.zeros(1, 3, 64, 96)
    with torch.no_grad():
        before = network(image)
        network.segnet.refine.bias[:] = torch.arange(18 + 36 + 34.0)
        after = network(image)
    heat, short, mid = (getattr(after, n) - getattr(before, n) for n in ("heat", "short", "mid"))
    assert torch.allclose(heat[0, :, 3, 5], torch.arange(18.0), atol=1e-4)
    assert torch.allclose(short[0, :, :, 3, 5].flatten(), 8 * torch.arange(18.0, 54), atol=1e-3)
    assert torch.allclose(mid[0, :, :, 3, 5].flatten(), 32 * torch.arange(54.0, 88), atol=1e-3)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("paper_resnet101", []),
        ("kdc_light", ["decode.upsample=3"]),
        ("kdc_light", ["decode.upsample=1"]),
    ],
)
def test_a_finer_person_map_asks_for_what_can_give_it(preset: str, changes: list[str]) -> None:
    with pytest.raises(ConfigError, match="half the stride"):
        KDC(load_preset(preset, ["network.detail=true", *changes]))


@pytest.mark.skipif(not GOOGLE.is_file(), reason="needs ../shared/weights")
def test_the_refined_weights_open() -> None:
    network, _ = load_model(GOOGLE.with_name("kdc_refined.safetensors"))
    with torch.no_grad():
        fields = network(torch.zeros(1, 3, 64, 96))
    assert fields.mask.shape == (1, 1, 32, 48) and fields.mask_fineness == 2


def test_a_model_of_another_skeleton_says_what_its_keypoints_are(tmp_path: Path) -> None:
    path, other = tmp_path / "own.safetensors", tmp_path / "other.safetensors"
    save_model(KDC(CONFIG), path, {})
    tensors, metadata = read_tensors(path)
    metadata["config"] = metadata["config"].replace("coco17", "hand21")
    save_file(tensors, other, metadata)
    with pytest.raises(
        ModelFileError, match="'hand21', known are .*Its keypoints: nose, left_eye"
    ):
        load_model(other)
    for provenance in ("not json", "5", "[]", '{"keypoints": 5}'):
        save_file(tensors, other, {**metadata, "provenance": provenance})
        with pytest.raises(ModelFileError, match="'hand21', known are .*as CONTRIBUTING.md says"):
            load_model(other)


def test_damage_that_only_the_weights_or_their_origin_have_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(KDC(CONFIG), path, {})
    tensors, metadata = read_tensors(path)
    for provenance, text in (
        ("[1, 2]", "expected an object as provenance"),
        ("not json", "its provenance is not JSON"),
        (f'{{"a": {"9" * 5000}}}', "its provenance is not JSON: Exceeds the limit"),
    ):
        save_file(tensors, path, {**metadata, "provenance": provenance})
        with pytest.raises(ModelFileError, match=text):
            load_model(path)
    name = next(n for n, values in tensors.items() if values.is_floating_point())
    tensors[name].flatten()[0] = float("nan")
    save_file(tensors, path, metadata)
    with pytest.raises(ModelFileError, match=f"'{name}' has weights that are NaN or infinite"):
        load_model(path)
