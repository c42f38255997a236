"""Settings of decode are searched on some images and judged on others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdc_core.codec.skeleton import COCO17
from kdc_core.config_file import load_preset
from kdc_core.data.annotations import AnnotationError
from kdc_core.data.datasets import open_data
from kdc_core.evaluation import tune as tuning
from kdc_core.evaluation.tune import RANGES, draw_slices, goal, value_of, with_values
from kdc_core.inference.quantize import training_frames
from kdc_core.network.weights import load_model

from .commands import assert_refused, kdc


def test_the_shipped_models_settings_lie_where_they_are_searched() -> None:
    config = load_preset("kdc_light")
    for part in RANGES:
        assert part.low <= value_of(config, part.key) <= part.high, part.key
        assert value_of(with_values(config, {part.key: part.high}), part.key) == part.high


def test_slices_share_no_image_and_half_of_each_has_masks(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations, _ = open_data(samples, "train", COCO17)
    monkeypatch.setattr(tuning, "IMAGES", 3)
    first, second = draw_slices(annotations)
    assert len(first) == len(second) == 3 and not set(first) & set(second)
    assert (first, second) == draw_slices(annotations)
    with pytest.raises(AnnotationError, match="two images or more"):
        draw_slices(annotations.of(first[:1]))


@pytest.mark.parametrize(
    ("masked", "bare", "each"),
    [(1, 1, None), (1, 3, 1), (3, 1, 1), (1, 7, 3), (4, 4, 4), (2, 0, 1)],
)
def test_slices_are_alike_in_how_many_have_masks(
    masked: int, bare: int, each: int | None, data_set: Path
) -> None:
    content = json.loads(data_set.read_text())
    seen = {a["image_id"] for a in content["annotations"] if a["num_keypoints"]}
    ids = sorted(seen)[: masked + bare]
    content["images"] = [image for image in content["images"] if image["id"] in ids]
    content["annotations"] = [
        {**a, "segmentation": a["segmentation"] if a["image_id"] in ids[:masked] else []}
        for a in content["annotations"]
        if a["image_id"] in ids
    ]
    data_set.write_text(json.dumps(content))
    annotations, _ = open_data(data_set, "train", COCO17)
    if each is None:
        with pytest.raises(AnnotationError, match="got 1 with and 1 without"):
            draw_slices(annotations)
        return
    slices = draw_slices(annotations)
    assert [len(part) for part in slices] == [each, each]
    first, second = (len(set(part) & set(ids[:masked])) for part in slices)
    assert first == second


def test_the_goal_is_the_mean_of_the_figures_there_are() -> None:
    assert goal({"keypoint_ap": 0.4, "mask_ap_full": 0.2, "other": 9.0}) == pytest.approx(0.3)
    assert goal({"keypoint_ap": 0.4, "mask_ap_full": -1.0}) == 0.4


@pytest.mark.all
def test_a_tuned_model_is_written_with_what_each_setting_is_worth(
    samples: Path, tmp_path: Path
) -> None:
    output, told = tmp_path / "tuned.safetensors", tmp_path / "tuned.json"
    where = ("--data", samples, "--output", output, "--json", told)
    printed = kdc("tune", "kdc_light", *where, "--trials", "3").stdout
    network, provenance = load_model(output)
    found = json.loads(told.read_text())
    assert found["trials"] == provenance["tuned"]["trials"] == 3
    assert {row["key"] for row in found["worth"]} == {part.key for part in RANGES}
    for key, value in provenance["tuned"]["settings"].items():
        assert value_of(network.config, key) == value
    assert goal(found["after"]) >= goal(found["before"]) - 1e-3, "the model's own are tried first"
    assert "decode.sigma_scale" in printed and "others, after" in printed


def test_images_of_another_size_than_annotated_are_refused_before_the_model(
    data_set: Path, tmp_path: Path
) -> None:
    content = json.loads(data_set.read_text())
    for image in content["images"]:
        image["height"], image["width"] = image["width"] + 1, image["height"]
    data_set.write_text(json.dumps(content))
    output = tmp_path / "tuned.safetensors"
    done = kdc("tune", "kdc_light", "--data", data_set, "--output", output)
    assert done.returncode == 2 and "is not of the images in" in done.stderr
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_refused_first(samples: Path, tmp_path: Path) -> None:
    output = tmp_path / "none" / "tuned.safetensors"
    done = kdc("tune", "kdc_light", "--data", samples, "--output", output)
    assert_refused(done, "there is no folder")


def test_a_set_of_nobody_to_score_is_refused_before_the_trials(
    data_set: Path, tmp_path: Path
) -> None:
    """Labelled keypoints that num_keypoints does not count, and no masks."""
    content = json.loads(data_set.read_text())
    for entry in content["annotations"]:
        entry |= {"num_keypoints": 0, "segmentation": []}
    data_set.write_text(json.dumps(content))
    output = tmp_path / "tuned.safetensors"
    done = kdc("tune", "kdc_light", "--data", data_set, "--output", output)
    assert done.returncode == 2 and "nobody in it can be scored" in done.stderr
    assert not output.exists()


def test_the_category_that_is_asked_for_can_be_given(data_set: Path, tmp_path: Path) -> None:
    """To tune, and to export in 8 bits."""
    content, keypoints = json.loads(data_set.read_text()), list(COCO17.keypoints)
    content["categories"] = [
        {"id": 1, "name": "worker", "keypoints": keypoints},
        {"id": 2, "name": "guest", "keypoints": keypoints},
    ]
    data_set.write_text(json.dumps(content))
    options = ("--data", data_set, "--output", tmp_path / "t.safetensors")
    assert_refused(kdc("tune", "kdc_light", *options), "give --category")
    done = kdc("tune", "kdc_light", *options, "--category", "guest")
    assert done.returncode == 2 and "two images or more" in done.stderr, "nobody of it is there"
    config = load_preset("kdc_light")
    with pytest.raises(AnnotationError, match="give --category"):
        next(training_frames(data_set, config))
    assert next(training_frames(data_set, config, category="worker")).shape[2] == 3
    int8 = ("--precision", "int8-cpu", "--calibrate", data_set, "--output", tmp_path / "m.onnx")
    done = kdc("export", "kdc_light", *int8, "--category", "nobody")
    assert_refused(done, "no one category 'nobody'")
