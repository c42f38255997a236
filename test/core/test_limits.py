"""The truth in the place of one map: only there, and it tells what limits a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kdc_core.codec.fields import Fields
from kdc_core.codec.person_map import near_edge
from kdc_core.evaluation.limits import ORACLE, TRUTHS, Truth, with_truth

from .commands import assert_refused, kdc


def fields(value: float, types: int = 3) -> Fields[torch.Tensor]:
    pairs = torch.full((1, types, 2, 8, 8), value)
    heat, mask = torch.full((1, types, 8, 8), value), torch.full((1, 1, 8, 8), value)
    return Fields(heat, pairs, pairs.clone(), mask, pairs.clone())


EVERYWHERE = fields(0.1)  # weights of a truth that is known of every cell


@pytest.mark.parametrize("part", TRUTHS, ids=lambda part: part.label)
def test_the_truth_stands_in_the_named_maps_alone(part: Truth) -> None:
    for name, value in with_truth(part, fields(0.0), fields(7.0), EVERYWHERE).items():
        if name not in part.maps:
            assert not value.any()
        elif part.center_only:
            assert not value[:, :-1].any() and (value[:, -1] == 7).all()
        elif part.edge_cells is None:
            assert (value == 7).all()


@pytest.mark.parametrize("cells", [1, 2])
def test_cells_near_an_edge(cells: int) -> None:
    mask = torch.zeros(1, 1, 9, 12, dtype=torch.bool)
    mask[..., 6:] = True
    near = near_edge(mask, cells)[0, 0]
    assert (near == near[0]).all()
    assert near[0].nonzero().flatten().tolist() == list(range(6 - cells, 6 + cells))
    part = Truth("", ("mask",), edge_cells=cells)
    truth = fields(-5.0)
    truth.mask[..., 4:] = 5
    changed = with_truth(part, fields(0.0), truth, EVERYWHERE).mask[0, 0, 0] != 0
    assert changed.nonzero().flatten().tolist() == list(range(4 - cells, 4 + cells))


def test_the_truth_stands_only_where_it_is_known() -> None:
    known = fields(0.0)
    known.embedding = known.embedding[:, :, :1]  # weights of offsets are of x and y in one
    known.embedding[:, 0, :, 2:5] = 0.01
    known.heat[:, -1, :, 3:] = 1
    embedding = with_truth(Truth("", ("embedding",)), fields(0.0), fields(7.0), known).embedding
    assert (embedding[:, 0, :, 2:5] == 7).all()
    assert not embedding[:, 1:].any() and not embedding[:, 0, :, :2].any()
    center = with_truth(
        Truth("", ("heat",), center_only=True), fields(0.0), fields(7.0), known
    ).heat
    assert (center[:, -1, :, 3:] == 7).all()
    assert not center[:, :-1].any() and not center[:, -1, :, :3].any()


@pytest.mark.all
def test_what_limits_the_shipped_model(data_set: Path, tmp_path: Path) -> None:
    content = json.loads(data_set.read_text())
    data_set.write_text(json.dumps({**content, "images": content["images"][:3]}))
    out, plot = tmp_path / "limits.json", tmp_path / "limits.png"
    few = ("--annotations", data_set, "--images", data_set.with_name("few"))
    printed = kdc("limits", "kdc_light", *few, "--json", out, "--plot", plot).stdout
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == [*(part.label for part in TRUTHS), ORACLE]
    assert ORACLE in printed and plot.read_bytes()[:4] == b"\x89PNG"
    masks = {label: row["mask_ap_keypoint_persons"] for label, row in rows.items()}
    points = {label: row["keypoint_ap"] for label, row in rows.items()}
    assert points["poses"] > 0.95 and points[ORACLE] > 0.95
    assert points["heatmaps and short-range offsets"] > points["none"] + 0.1
    assert masks["person map and embedding"] > masks["person map"] > masks["none"] + 0.1


def test_images_of_another_size_are_refused_before_the_first(data_set: Path) -> None:
    content = json.loads(data_set.read_text())
    content["images"][-1]["height"] += 1
    for entry in content["annotations"]:
        entry.pop("segmentation")
    data_set.write_text(json.dumps(content))
    few = ("--annotations", data_set, "--images", data_set.with_name("few"))
    assert_refused(kdc("limits", "kdc_light", *few), content["images"][-1]["file_name"])


def test_the_truth_of_an_image_listed_twice_is_that_of_each_entry(
    data_set: Path, tmp_path: Path
) -> None:
    """Each entry lacks the people of the other."""
    content = json.loads(data_set.read_text())
    image = next(
        i
        for i in content["images"]
        if sum(a["num_keypoints"] > 0 and a["image_id"] == i["id"] for a in content["annotations"])
        > 1
    )
    people = [a for a in content["annotations"] if a["image_id"] == image["id"]]
    labelled = [a for a in people if a["num_keypoints"]]
    labelled[0]["image_id"] = 999_999
    content |= {"images": [image, {**image, "id": 999_999}], "annotations": people}
    data_set.write_text(json.dumps(content))
    out = tmp_path / "limits.json"
    few = ("--annotations", data_set, "--images", data_set.with_name("few"))
    done = kdc("limits", "kdc_light", *few, "--json", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["rows"]["poses"]["keypoint_ap"] > 0.95
