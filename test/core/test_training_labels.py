"""Keypoints and masks that training learns from, and data sets without them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kdc_core.data.annotations import AnnotationError
from kdc_core.training.samples import TrainingSamples

from .commands import assert_refused, kdc
from .conftest import SHARED
from .runs import small

CASES = SHARED / "cases" / "annotations"


@pytest.fixture
def bare(data_set: Path) -> Path:
    """The same without masks, as a second data set."""
    content = json.loads(data_set.read_text())
    for entry in content["annotations"]:
        entry["segmentation"] = []
    (data_set.parent / "bare.json").write_text(json.dumps(content))
    (data_set.parent / "bare").symlink_to(data_set.with_name("few"))
    return data_set.parent / "bare.json"


def test_people_are_counted_for_each_data_set_and_all_together(
    data_set: Path, bare: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    content = json.loads(data_set.read_text())
    people = [entry for entry in content["annotations"] if not entry["iscrowd"]]
    count, labelled = len(people), sum(entry["num_keypoints"] > 0 for entry in people)
    assert count > labelled > 0
    TrainingSamples([str(data_set), str(bare)], small())
    for text in (
        f"'{data_set}': {count} persons, {labelled} with keypoints, {count} with masks",
        f"'{bare}': {count} persons, {labelled} with keypoints, 0 with masks",
        f"'{bare}': nobody has masks, so none are learnt from it",
        f"together: {2 * count} persons, {2 * labelled} with keypoints, {count} with masks",
    ):
        assert text in caplog.text
    assert "WARNING" not in caplog.text


@pytest.mark.parametrize(
    ("change", "parts", "text"),
    [
        ({"segmentation": []}, "segnet", "no person with masks in '.*few.json'"),
        ({"segmentation": [[1, 2, 3, 4]]}, "posenet,segnet", "segnet learns from them"),
        ({"keypoints": [], "num_keypoints": 0}, "segnet", "no person with keypoints"),
        ({"keypoints": [], "num_keypoints": 0}, "posenet", "posenet learns from them"),
        ({"iscrowd": 1}, "segnet", r"no person with keypoints .* \(0 persons"),
        ({"segmentation": []}, "posenet", None),
    ],
)
def test_what_a_part_learns_from_must_be_there(
    change: dict[str, object], parts: str, text: str | None, data_set: Path
) -> None:
    content = json.loads(data_set.read_text())
    for entry in content["annotations"]:
        entry |= change
    data_set.write_text(json.dumps(content))
    config = small(f"train.train=[{parts}]")
    if text is None:
        assert TrainingSamples([str(data_set)], config).num_images == 8
        return
    with pytest.raises(AnnotationError, match=text):
        TrainingSamples([str(data_set)], config)


def test_few_masks_are_a_warning(data_set: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = json.loads(data_set.read_text())
    people = [entry for entry in content["annotations"] if not entry["iscrowd"]]
    for entry in people[3:]:
        entry["segmentation"] = []
    data_set.write_text(json.dumps(content))
    TrainingSamples([str(data_set)], small("train.train=[posenet,segnet]"))
    told = f"only 3 of {len(people)} persons have masks: segnet may learn little"
    assert told in caplog.text and "posenet may" not in caplog.text


def test_an_image_without_any_mask_teaches_no_background(data_set: Path) -> None:
    """Also where others of its data set have masks: it would be all that it teaches."""
    content = json.loads(data_set.read_text())
    bare = content["images"][0]["id"]
    for entry in content["annotations"]:
        if entry["image_id"] == bare:
            entry["segmentation"] = []
    data_set.write_text(json.dumps(content))
    samples = TrainingSamples([str(data_set)], small())
    learnt = {
        entry.image.id: samples.read(index)[1].unmasked.all()
        for index, entry in enumerate(samples._entries)
    }
    assert learnt.pop(bare) and not any(learnt.values())


def test_people_are_pasted_as_often_as_said_whatever_sets_have_no_masks(
    data_set: Path, bare: Path
) -> None:
    config = small("train.paste=0.5")
    samples = TrainingSamples([str(data_set), str(bare)], config)
    recipes = [samples.recipe(number, lambda index: index) for number in range(400)]
    assert 0.4 < np.mean([recipe.paste is not None for recipe in recipes]) < 0.6
    names = {samples._entries[r.donor].images.path.name for r in recipes if r.paste is not None}
    assert names == {"few"}
    nobody = TrainingSamples([str(bare)], small("train.paste=1.0", "train.train=[posenet]"))
    assert nobody.recipe(0, lambda index: index).paste is None


def test_images_without_masks_teach_none_whoever_is_pasted_into_them(
    data_set: Path, bare: Path
) -> None:
    """Nor does the padding around them."""
    config = small("train.paste=1.0", "train.longer_side=[64, 96]")
    samples = TrainingSamples([str(data_set), str(bare)], config)
    taught = {True: 0, False: 0}
    for number in range(40):
        recipe = samples.recipe(number, lambda index: index)
        with_masks = samples._entries[recipe.image].with_masks
        batch = samples[number]
        taught[with_masks] += int((batch.weights.mask > 0).sum())
    assert taught[True] > 0 and taught[False] == 0


def test_images_of_a_data_set_without_masks_take_no_loss_of_masks(
    data_set: Path, bare: Path
) -> None:
    samples = TrainingSamples([str(data_set), str(bare)], small())
    learnt = {
        entry.images.path.name: samples.read(index)[1].unmasked.all()
        for index, entry in enumerate(samples._entries)
    }
    assert learnt == {"few": False, "bare": True}


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases/annotations")
@pytest.mark.parametrize("case", ["segmentation_empty_all", "all_iscrowd_1"])
def test_a_run_that_could_learn_nothing_is_refused(case: str, tmp_path: Path) -> None:
    done = kdc("train", "kdc_light", "--data", CASES / case, "--output", tmp_path / "run")
    assert_refused(done, "no person with")
    assert not (tmp_path / "run" / "last.ckpt").exists()


@pytest.mark.parametrize(
    "mask", [[], [[]], [[10, 10, 20, 20]], [[10, 10, 10.1, 10, 10.1, 10.1]]], ids=str
)
def test_a_person_without_a_mask_costs_only_its_box(mask: list[object], data_set: Path) -> None:
    content = json.loads(data_set.read_text())
    entry = content["annotations"][0]
    entry["segmentation"] = mask
    data_set.write_text(json.dumps(content))
    samples = TrainingSamples([str(data_set)], small())
    unmasked = {
        taken.image.id: samples.read(index)[1].unmasked
        for index, taken in enumerate(samples._entries)
    }
    x, y, width, height = entry["bbox"]
    x0, y0, x1, y1 = (round(value) for value in (x, y, x + width, y + height))
    box = np.zeros_like(unmasked[entry["image_id"]])
    box[y0:y1, x0:x1] = True
    assert (unmasked.pop(entry["image_id"]) == box).all() and 0 < box.mean() < 1
    assert len(unmasked) == 7 and not any(region.any() for region in unmasked.values())
