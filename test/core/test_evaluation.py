"""Evaluation as a whole: subsets, images that fail, ablations, the tables of the paper."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from kdc_core.commands import paper
from kdc_core.config import CentroidRule, Config, ConfigError
from kdc_core.config_file import load_preset
from kdc_core.data.annotations import (
    AnnotatedImage,
)
from kdc_core.data.images import ImageError
from kdc_core.data.reading import read_annotations
from kdc_core.evaluation import plots
from kdc_core.evaluation.ablate import ablate
from kdc_core.evaluation.figures import MASK_AP
from kdc_core.evaluation.oracle import Oracle
from kdc_core.evaluation.run import (
    evaluate,
)
from kdc_core.inference.model_files import find_model

from .commands import kdc
from .conftest import untracked

LIGHT = find_model("kdc_light", (".safetensors",))


@pytest.mark.all
def test_the_subset_leaves_out_images_without_labelled_people(
    data_set: Path, tmp_path: Path
) -> None:
    content = json.loads(data_set.read_text())
    first = content["images"][0]["id"]
    for entry in content["annotations"]:
        if entry["image_id"] == first:
            entry |= {"num_keypoints": 0, "keypoints": [0] * 51}
    data_set.write_text(json.dumps(content))
    out = tmp_path / "figures.json"
    part = ("--annotations", data_set, "--images", data_set.with_name("few"))
    kdc("evaluate", *part, "--subset", "coco_persons", "--json", out)
    figures = json.loads(out.read_text())
    assert figures["pictures"] == len(content["images"]) - 1
    # The table scores the subset from one pass over all images.
    table = tmp_path / "table.json"
    printed = kdc("paper", "table1", "--model", "kdc_light", *part, "--json", table).stdout
    heading, published = (
        next(line.split() for line in printed.splitlines() if text in line)
        for text in ("APL", "KDC RN-152")
    )
    assert heading[-2] == "AR" and published[-2] == "0.706", "as the paper prints it"
    scored = json.loads(table.read_text())["kdc_light"]
    assert 0 < scored["all"]["mask_ap_full"] < scored["all"]["mask_ap_full_recall"] < 1
    assert all(figures[name] == value for name, value in scored["coco_persons"].items())
    assert scored["pose2seg"]["protocol"] == "pose2seg" and "scores alike" in printed
    assert 0 < scored["pose2seg"]["mask_ap_keypoint_persons"] < 1
    assert scored["all"]["mask_ap_full"] < scored["coco_persons"]["mask_ap_full"]


def test_images_that_cannot_be_read_are_told_and_mistakes_are_not(samples: Path) -> None:
    truth = read_annotations(samples / "annotations.json")
    first = truth.images[0]

    def missing(image: AnnotatedImage) -> Any:
        raise ImageError(f"'{image.file_name}' is gone")

    done = evaluate(truth, missing, untracked)
    assert len(done.failed) == 8 and f"'{first.file_name}' is gone" in done.failed[0]
    assert done.results == [] and done.figures["keypoint_ap"] == 0

    def mistaken(image: AnnotatedImage) -> Any:
        raise ValueError("a mistake of the program")

    with pytest.raises(ValueError, match="a mistake"):
        evaluate(truth, mistaken, untracked)


# Ablations and tables


@pytest.mark.slow
def test_centroids_are_compared_on_one_pass_of_the_network(
    few: tuple[str | Path, ...], tmp_path: Path
) -> None:
    out, plot = tmp_path / "ablation.json", tmp_path / "plot.png"
    kdc("ablate", "centroids", "--model", "kdc_light", *few, "--json", out, "--plot", plot)
    figures = json.loads(out.read_text())
    names = (*get_args(CentroidRule), "center too")
    values = [figures[f"mask_ap_{name}"] for name in names]
    assert all(0.1 < value < 1 for value in values) and len(set(values)) > 3
    assert plot.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("name", "rows"), [("edges", 3), ("stride", 4), ("noise", 4 * len(get_args(CentroidRule)))]
)
def test_the_representation_is_compared_on_ground_truth_maps(
    name: str, rows: int, data_set: Path, oracle_config: Config
) -> None:
    content = json.loads(data_set.read_text())
    content["images"] = content["images"][:1]
    data_set.write_text(json.dumps(content))
    found = ablate(name, data_set, data_set.with_name("few"), oracle_config, untracked)
    assert len(found.rows) == rows and not found.failed
    figures = {row.label: row.figures for row in found.rows}
    if name == "stride":
        fine, coarse = (figures[f"{s} px"]["mask_ap_full"] for s in (4, 16))
        assert fine > coarse + 0.1
    if name == "noise":
        clean, noisy = (figures[f"static, {s} px"]["keypoint_ap"] for s in ("0.0", "8.0"))
        assert clean > noisy + 0.1


def test_an_ablation_the_model_has_no_maps_for_is_refused(samples: Path) -> None:
    for name, text in (
        ("edges", "needs a model with tree and star"),
        ("color", "expected one of centroids"),
    ):
        with pytest.raises(ConfigError, match=text):
            ablate(name, samples / "annotations.json", samples, LIGHT, untracked)


@pytest.mark.slow
def test_the_papers_tables_stand_beside_ours(few: tuple[str | Path, ...], tmp_path: Path) -> None:
    out, plot = tmp_path / "3.json", tmp_path / "4.png"
    printed = kdc("paper", "table3", "--model", "kdc_light", *few, "--json", out).stdout
    assert "0.583" in printed and "published" in printed
    figures = json.loads(out.read_text())["kdc_light"]
    assert figures["given_keypoints"]["keypoint_ap"] > 0.99 > figures["end_to_end"]["keypoint_ap"]
    assert f"{figures['end_to_end']['mask_ap_full']:.3f}" in printed
    assert f"{figures['pose2seg']['mask_ap_keypoint_persons']:.3f}" in printed
    assert figures["pose2seg"]["protocol"] == "pose2seg"
    assert "protocol: coco, pose2seg" in " ".join(printed.split())
    printed = kdc("paper", "table4", "--model", "kdc_light", *few, "--json", out).stdout
    assert "protocol: coco" in " ".join(printed.split())
    every = json.loads(out.read_text())["kdc_light"].values()
    assert {each["protocol"] for each in every} == {"coco"}
    kdc("paper", "figure4", "--model", "kdc_light", *few, "--output", plot, "--json", out)
    assert json.loads(out.read_text())["kdc_light"]["protocol"] == "coco"
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_test_dev_gives_the_files_to_hand_in(samples: Path, tmp_path: Path) -> None:
    content = json.loads((samples / "annotations.json").read_text())
    info = tmp_path / "image_info_test-dev2017.json"
    info.write_text(json.dumps({"images": content["images"][:2]}))
    where = ("--annotations", info, "--images", samples, "--output", tmp_path / "out")
    kdc("paper", "table2", "--model", "kdc_light", *where)
    path = tmp_path / "out" / "detections_test-dev2017_kdc_light_results.json"
    people = json.loads(path.read_text())
    assert people and set(people[0]) == {"image_id", "category_id", "score", "segmentation"}
    assert {p["image_id"] for p in people} <= {i["id"] for i in content["images"][:2]}


def test_models_of_one_file_name_are_each_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, tuple[float, float]] = {}

    def scored(by: Any, name: str, *rest: object) -> SimpleNamespace:
        by.keywords["seconds"].append(0.1)
        return SimpleNamespace(
            figures={MASK_AP: 0.3}, protocol="coco", annotations=SimpleNamespace(images=[0])
        )

    monkeypatch.setattr(paper, "score", scored)
    monkeypatch.setattr(
        plots, "draw_points", lambda path, title, points, *axes: drawn.update(points)
    )
    models = [tmp_path / name / "model.safetensors" for name in ("a", "b")]
    words = [word for model in (*models, "kdc_light") for word in ("--model", model)]
    (tmp_path / "a.json").touch()
    where = ("--annotations", tmp_path / "a.json", "--images", tmp_path)
    kdc("paper", "figure4", *words, *where, "--output", tmp_path / "plot.png")
    assert set(drawn) == {*map(str, models), "kdc_light"}


def test_the_oracle_cuts_masks_where_the_configuration_says(samples: Path) -> None:
    annotated = read_annotations(samples / "annotations.json").images[0]
    areas = []
    for threshold in (0.1, 0.5, 0.9):
        config = load_preset("oracle", [f"predict.mask_threshold={threshold}"])
        areas.append(sum(person.area for person in Oracle(config)(annotated).persons))
    assert areas[0] > areas[1] > areas[2] > 0
