"""Evaluation beyond one pass: mirrored, scaled, given poses, CrowdPose, ablations, tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_tools

from kdc_core.codec.encode import encode
from kdc_core.codec.grid import Grid, Letterbox, Level
from kdc_core.codec.skeleton import COCO17, CROWDPOSE14, Skeleton
from kdc_core.data.annotations import read_coco
from kdc_core.data.augment import warp
from kdc_core.data.images import Images
from kdc_core.evaluation.coco import score, score_crowdpose
from kdc_core.evaluation.testtime import TestTime, level_frame, mirror, mirror_fields
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.choice import find_model

from .conftest import make_people, make_person

LIGHT = find_model("kdc_light", (".safetensors",))


def kdc(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kdc_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env=None,
    )


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_fields_of_the_mirrored_picture_come_back_as_those_of_the_picture(offset: float) -> None:
    grid, edges, size = Grid(4, offset), COCO17.edges(("tree", "star")), (128, 160)
    people = make_people([make_person(30, 20, 45), make_person(90, 10, 40)], size)
    wanted, weights = encode(people, COCO17, grid, edges, 12.0)
    last = 2 * offset + 4 * (grid.size(size[1]) - 1)
    turned = warp(people, np.array([[-1.0, 0, last], [0, 1, 0]]), size, COCO17.flip)
    fields, turned_weights = encode(turned, COCO17, grid, edges, 12.0)
    back = mirror_fields(fields.map(torch.from_numpy), COCO17, edges)
    known = mirror_fields(turned_weights.map(torch.from_numpy), COCO17, edges)
    for name in ("heat", "short", "mid", "mask", "embedding"):
        both = (getattr(weights, name) > 0) & (np.abs(getattr(known, name).numpy()) > 0)
        assert both.mean() > 0.9 * (getattr(weights, name) > 0).mean(), name
        error = np.abs(getattr(back, name).numpy() - getattr(wanted, name)) * both
        # A cell at a disk's rim may fall to the other side by rounding.
        assert np.quantile(error, 0.999) < 1e-3, name


def test_mirroring_puts_cells_on_cells() -> None:
    picture = torch.arange(64.0).expand(1, 1, 4, 64)
    turned = mirror(picture, Grid(4, 0.0), 16)
    assert turned[0, 0, 0, ::4].tolist() == list(range(60, -1, -4))
    assert turned[0, 0, 0, 61:].tolist() == [0, 0, 0], "beyond the picture it is black"


@pytest.mark.parametrize("factor", [1.0, 1.43, 2.0])
def test_a_level_shows_a_point_where_it_says(factor: float) -> None:
    y, x = np.indices((300, 400))
    blob = 255 * np.exp(-((x - 200.0) ** 2 + (y - 100.0) ** 2) / (2 * 5.0**2))
    image = np.repeat(blob.astype(np.uint8)[..., None], 3, 2)
    letterbox = Letterbox.fit((300, 400), 320)
    level = Level.exact(Grid(4, 0.0), factor)
    frame = level_frame(image, letterbox, level, (32, 0))
    assert frame.shape[0] % 32 == frame.shape[1] % 32 == 0
    weight = frame[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    at = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    back = letterbox.to_image(level.to_picture(at))
    assert back == pytest.approx([200, 100], abs=0.1)


def test_one_plain_pass_finds_what_the_predictor_finds(samples: Path) -> None:
    predictor = Predictor.from_pretrained(str(LIGHT), confidence=0.5, keypoint=0.0)
    plain = TestTime(LIGHT)
    for picture in read_coco(samples / "annotations.json")[:2]:
        image = Images(samples).read(picture.file_name)
        wanted = predictor(image).persons
        found = plain(image, picture).persons
        assert len(wanted)
        for person in wanted:
            gaps = [np.abs(person.keypoints[:, :2] - f.keypoints[:, :2]).mean() for f in found]
            assert min(gaps) < 4, "the coarser level is warped otherwise, by half a pixel"


def test_given_keypoints_come_out_as_they_went_in(samples: Path) -> None:
    fed = TestTime(LIGHT, given=True)
    picture = read_coco(samples / "annotations.json")[0]
    image = Images(samples).read(picture.file_name)
    prediction = fed(image, picture)
    labelled = [p for p in picture.persons if (p.keypoints[:, 2] > 0).any() and not p.crowd]
    assert len(prediction) == len(labelled)
    for person in labelled:
        seen = person.keypoints[:, 2] > 0
        gaps = [
            np.abs(p.keypoints[seen, :2] - person.keypoints[seen, :2]).max()
            for p in prediction.persons
        ]
        assert min(gaps) < 0.01
    assert sum(p.area for p in prediction.persons) > 1000


def crowd_truth(indices: list[float]) -> dict[str, Any]:
    """One person in each of some pictures, its `area` far from its box's."""
    points = np.zeros((14, 3))
    points[:] = [(100 + 5 * k, 100 + 7 * k, 2) for k in range(14)]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": 300, "width": 300, "crowdIndex": c}
            for i, c in enumerate(indices)
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i,
                "category_id": 1,
                "bbox": [90, 90, 90, 110],
                "area": 9.0,
                "num_keypoints": 14,
                "keypoints": points.ravel().tolist(),
            }
            for i in range(len(indices))
        ],
        "categories": [{"id": 1, "name": "person"}],
    }


def found_in(truth: dict[str, Any], shift_px: dict[int, float]) -> list[dict[str, Any]]:
    results = []
    for entry in truth["annotations"]:
        points = np.array(entry["keypoints"]).reshape(14, 3)
        points[:, 0] += shift_px.get(entry["image_id"], 0)
        results.append(
            {
                "image_id": entry["image_id"],
                "category_id": 1,
                "score": 0.9,
                "keypoints": points.ravel().tolist(),
                "bbox": entry["bbox"],
            }
        )
    return results


def test_crowdpose_is_scored_by_crowd_index_and_the_box() -> None:
    truth = crowd_truth([0.05, 0.3, 0.9])
    perfect = score_crowdpose(truth, found_in(truth, {}), CROWDPOSE14.sigmas)
    assert [
        perfect[f"keypoint_ap{s}"] for s in ("", "_crowd_easy", "_crowd_medium", "_crowd_hard")
    ] == [1.0] * 4
    # Two pixels off are nothing beside the box's scale, and everything beside `area`.
    near = score_crowdpose(truth, found_in(truth, {0: 2, 1: 2, 2: 2}), CROWDPOSE14.sigmas)
    assert near["keypoint_ap"] > 0.95
    hard = score_crowdpose(truth, found_in(truth, {2: 80}), CROWDPOSE14.sigmas)
    assert hard["keypoint_ap_crowd_hard"] == 0 and hard["keypoint_ap_crowd_easy"] == 1
    assert 0 < hard["keypoint_ap"] < 1


@pytest.mark.parametrize("skeleton", [COCO17, CROWDPOSE14])
def test_skeletons_hang_together(skeleton: Skeleton) -> None:
    count = skeleton.num_keypoints
    assert len(skeleton.flip) == len(skeleton.sigmas) == count
    assert [skeleton.flip[i] for i in skeleton.flip] == list(range(count)), "mirrored twice"
    for index, name in enumerate(skeleton.keypoints):
        twin = skeleton.keypoints[skeleton.flip[index]]
        assert twin.replace("right_", "left_") == name.replace("right_", "left_")
    depth = skeleton.hops(skeleton.edges(("tree",)))[2]
    assert (depth[:count, :count] >= 0).all(), "the tree joins all keypoints"


def test_the_subset_leaves_out_pictures_without_labelled_people(
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
    done = kdc("evaluate", *part, "--subset", "coco_persons", "--json", out)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["pictures"] == len(content["images"]) - 1
    # The table scores the subset from one pass over all pictures.
    table = tmp_path / "table.json"
    done = kdc("paper", "table1", "--model", "kdc_light", *part, "--json", table)
    assert done.returncode == 0, done.stderr
    heading, published = (
        next(line.split() for line in done.stdout.splitlines() if text in line)
        for text in ("APL", "KDC RN-152")
    )
    assert heading[-2] == "AR" and published[-2] == "0.706", "as the paper prints it"
    scored = json.loads(table.read_text())["kdc_light"]
    assert 0 < scored["all"]["mask_ap_full"] < scored["all"]["mask_ap_full_recall"] < 1
    assert all(figures[name] == value for name, value in scored["coco_persons"].items())
    assert scored["all"]["mask_ap_full"] < scored["coco_persons"]["mask_ap_full"]


def test_centroids_are_compared_on_one_pass_of_the_network(samples: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "ablation.json", tmp_path / "plot.png"
    done = kdc(
        "ablate",
        "centroids",
        "--model",
        "kdc_light",
        "--annotations",
        samples / "annotations.json",
        "--images",
        samples,
        "--json",
        out,
        "--plot",
        plot,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    names = ("static", "dynamic", "dynamic_multi", "personlab")
    values = [figures[f"mask_ap_{name}"] for name in names]
    assert all(0.1 < value < 1 for value in values) and len(set(values)) > 2
    assert plot.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("name", "rows"), [("edges", 3), ("stride", 4), ("noise", 16)])
def test_the_representation_is_compared_on_ground_truth_maps(
    name: str, rows: int, data_set: Path, tmp_path: Path
) -> None:
    content = json.loads(data_set.read_text())
    keep = {image["id"] for image in content["images"][:2]}
    content["images"] = content["images"][:2]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in keep]
    data_set.write_text(json.dumps(content))
    out = tmp_path / "ablation.json"
    done = kdc(
        "ablate",
        name,
        "--annotations",
        data_set,
        "--images",
        data_set.with_name("few"),
        "--json",
        out,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())["rows"]
    assert len(figures) == rows
    if name == "stride":
        fine, coarse = (figures[f"{s} px"]["mask_ap_full"] for s in (4, 16))
        assert fine > coarse + 0.1
    if name == "noise":
        clean, noisy = (figures[f"static, {s} px"]["keypoint_ap"] for s in ("0.0", "8.0"))
        assert clean > noisy + 0.1


def test_an_ablation_the_model_has_no_maps_for_is_refused(samples: Path) -> None:
    done = kdc(
        "ablate",
        "edges",
        "--model",
        "kdc_light",
        "--annotations",
        samples / "annotations.json",
        "--images",
        samples,
    )
    assert done.returncode == 2 and "needs a model with tree and star" in done.stderr
    done = kdc(
        "ablate", "colour", "--annotations", samples / "annotations.json", "--images", samples
    )
    assert done.returncode == 2 and "expected one of radius" in done.stderr


def test_the_papers_tables_stand_beside_ours(samples: Path, tmp_path: Path) -> None:
    where = ("--annotations", samples / "annotations.json", "--images", samples)
    done = kdc("paper", "table3", "--model", "kdc_light", *where, "--json", tmp_path / "3.json")
    assert done.returncode == 0, done.stderr
    assert "0.583" in done.stdout and "published" in done.stdout
    figures = json.loads((tmp_path / "3.json").read_text())["kdc_light"]
    assert figures["given_keypoints"]["keypoint_ap"] > 0.99 > figures["end_to_end"]["keypoint_ap"]
    assert f"{figures['end_to_end']['mask_ap_full']:.3f}" in done.stdout
    done = kdc("paper", "figure4", "--model", "kdc_light", *where, "--output", tmp_path / "4.png")
    assert done.returncode == 0 and (tmp_path / "4.png").is_file()


def test_test_dev_gives_the_files_to_hand_in(samples: Path, tmp_path: Path) -> None:
    content = json.loads((samples / "annotations.json").read_text())
    info = tmp_path / "image_info_test-dev2017.json"
    info.write_text(json.dumps({"images": content["images"][:2]}))
    done = kdc(
        "paper",
        "table2",
        "--model",
        "kdc_light",
        "--annotations",
        info,
        "--images",
        samples,
        "--output",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out" / "detections_test-dev2017_kdc_light_results.json"
    people = json.loads(path.read_text())
    assert people and set(people[0]) == {"image_id", "category_id", "score", "segmentation"}
    assert {p["image_id"] for p in people} <= {i["id"] for i in content["images"][:2]}


def test_what_the_reader_does_without_the_scorer_does_without() -> None:
    points = make_person(20, 20, 60)
    bare = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 200, "width": 200}],
        "annotations": [
            {"image_id": 1, "bbox": [20, 20, 60, 120], "keypoints": points.ravel().tolist()}
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "score": 0.9, "keypoints": points.ravel().tolist()}]
    assert score(bare, found)["keypoint_ap"] == 1
    assert "id" not in bare["annotations"][0], "the caller's content stays as it is"


def test_a_result_is_sized_by_its_mask_not_by_its_box() -> None:
    """A thin false mask in a large box is a small one, and no miss among the medium."""
    square = [[10, 10, 70, 10, 70, 70, 10, 70]]
    truth = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 200, "width": 200}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 3600,
                "bbox": [10, 10, 60, 60],
                "segmentation": square,
                "num_keypoints": 1,
                "keypoints": [20, 20, 2] + [0] * 48,
            }
        ],
        "categories": [{"id": 1, "name": "person"}],
    }

    def result(mask: np.ndarray, value: float) -> dict[str, Any]:
        rle = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        rows, columns = np.nonzero(mask)
        box = [
            int(columns.min()),
            int(rows.min()),
            int(np.ptp(columns)) + 1,
            int(np.ptp(rows)) + 1,
        ]
        return {
            "image_id": 1,
            "category_id": 1,
            "score": value,
            "bbox": box,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            "keypoints": [0.0] * 51,
        }

    right, thin = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    right[10:70, 10:70] = True
    thin[100, 100:184] = thin[100:180, 100] = True
    figures = score(truth, [result(thin, 0.9), result(right, 0.8)])
    assert figures["mask_ap_full"] == pytest.approx(0.5, abs=0.01)
    assert figures["mask_ap_full_medium"] == 1
