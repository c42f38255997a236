"""Training: samples, and small real runs."""

from __future__ import annotations

import json
import logging
import pickle
import signal
import subprocess
import sys
import unittest.mock
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kdc_core.cli import app
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import Config, ConfigError
from kdc_core.config_file import load_preset
from kdc_core.data.annotations import AnnotationError
from kdc_core.data.images import Images
from kdc_core.evaluation.run import evaluate, read_truth
from kdc_core.inference.export import export_onnx
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.torch import TorchRuntime
from kdc_core.network import resnet
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import load_model
from kdc_core.stopping import stop_by_signal
from kdc_core.training import run as training
from kdc_core.training.evaluation import Evaluation, EvaluationImages
from kdc_core.training.metrics import Metrics
from kdc_core.training.module import TrainingModule, young_average
from kdc_core.training.samples import TrainingSamples, collate

from .commands import assert_refused, kdc
from .conftest import SAMPLES, SHARED
from .runs import command, figures, make_start, rows, small, train

CASES = SHARED / "cases" / "annotations"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start"))


def test_a_run_changes_segnet_alone_and_says_how_it_was_made(start: Path, tmp_path: Path) -> None:
    output = train(start, tmp_path / "run")
    before, _ = load_model(start)
    after, provenance = load_model(output / "model.safetensors")
    for (name, old), new in zip(
        before.state_dict().items(), after.state_dict().values(), strict=True
    ):
        if name.startswith("posenet."):
            assert torch.equal(old, new), name
    assert not torch.equal(before.segnet.mask.weight, after.segnet.mask.weight)
    assert provenance["steps"] == 6 and provenance["data"] == ["samples"]
    assert provenance["start"] == "start.safetensors" and "torch" in provenance["versions"]
    assert int(rows(output)[-1]["step"]) == 6
    names = {path.name for path in output.iterdir()}
    assert names == {
        "config.json",
        "inputs.json",
        "last.ckpt",
        "lock",
        "metrics.csv",
        "model.safetensors",
        "seconds.json",
        "tensorboard",
    }
    # What is shipped is the average, not the weights of the last step.
    state = torch.load(output / "last.ckpt", weights_only=True)
    for key, same in (("state_dict", True), ("current_model_state", False)):
        weight = state[key]["network.segnet.mask.weight"].half().float()
        assert torch.equal(weight, after.segnet.mask.weight) == same, key
    (output / "model.safetensors").unlink()
    train(start, output)
    again, provenance = load_model(output / "model.safetensors")
    assert provenance["steps"] == 6, "a finished run stays finished"
    assert torch.equal(again.segnet.mask.weight, after.segnet.mask.weight)


def test_a_young_average_follows_closely_and_slows_down() -> None:
    update = young_average(0.9)
    for count, decay in ((1, 2 / 11), (10, 11 / 20), (1000, 0.9)):
        mean, batches = torch.zeros(1), torch.tensor(0)
        update([mean, batches], [torch.ones(1), torch.tensor(7)], torch.tensor(count))
        assert mean == pytest.approx(1 - decay) and batches == 7


def test_a_frozen_posenet_must_come_from_somewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --start"):
        train(None, tmp_path / "run")


def test_training_data_without_its_images_is_refused(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    data_set.with_name("few").rename(tmp_path / "elsewhere")
    with pytest.raises(AnnotationError, match="no (images|pictures) for"):
        train(start, tmp_path / "run", data=data_set)


def test_the_same_number_gives_the_same_sample() -> None:
    config = load_preset("kdc_light")
    first, second = (TrainingSamples([str(SAMPLES)], config) for _ in range(2))
    for number in (0, 5, 23):
        a, b = first[number], second[number]
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.targets.embedding, b.targets.embedding)
    again = first[first.num_images]
    assert not torch.equal(first[0].image, again.image), "another epoch, another crop"


def test_a_loader_process_that_is_not_forked_is_given_the_samples() -> None:
    samples = TrainingSamples([str(SAMPLES)], load_preset("kdc_light"))
    given = pickle.loads(ForkingPickler.dumps(samples))
    assert torch.equal(given[0].image, samples[0].image)
    samples.left_out[1] = 1
    assert given.left_out[1] == 1


class Process(EvaluationImages):
    """What a loader process does about SIGINT, and OpenCV's threads there."""

    def __getitem__(self, place: int) -> Any:
        return signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1), cv2.getNumThreads()


def test_loader_processes_of_an_evaluation_leave_signals_and_cores_to_training(
    tmp_path: Path,
) -> None:
    evaluation = Evaluation(str(SAMPLES), COCO17, tmp_path, unittest.mock.Mock(), {})
    evaluation.images = Process(evaluation.images.annotations, evaluation.images.images)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        with stop_by_signal():
            process = next(iter(evaluation.loader(1)))
    finally:
        cv2.setNumThreads(threads)
    assert process == (signal.SIG_IGN, -1, 1)


def test_samples_of_a_batch_are_stacked() -> None:
    samples = TrainingSamples([str(SAMPLES)], load_preset("kdc_light"))
    batch = collate([samples[0], samples[1]])
    assert batch.image.shape == (2, 3, 384, 384)
    assert batch.targets.heat.shape == batch.weights.heat.shape == (2, 18, 96, 96)
    assert batch.instances.cover.shape == (2, 8, 96, 96)
    assert batch.numbers == [0, 1]


def test_a_broken_image_is_left_out_of_training(
    data_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in sorted(data_set.with_name("few").iterdir())[:4]:
        path.write_bytes(b"broken")
    samples = TrainingSamples([str(data_set)], load_preset("kdc_light"))
    for number in range(samples.num_images):
        assert samples[number].image.shape == (1, 3, 384, 384)
    assert "left out of training" in caplog.text


def test_an_error_of_the_program_is_no_broken_image(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = TrainingSamples([str(SAMPLES)], load_preset("kdc_light"))

    def wrong(*_: object) -> None:
        raise ValueError("not the image's fault")

    monkeypatch.setattr("kdc_core.training.samples.read_sample", wrong)
    with pytest.raises(ValueError, match="fault"):
        samples[0]


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_does(start: Path, tmp_path: Path) -> None:
    change = "train.evaluate_every=3"
    one, two = train(start, tmp_path / "one", change, val=SAMPLES), tmp_path / "two"
    # Without the two dashes torchrun takes --start for an option of its own.
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run += ["-m", "--", "kdc_core", *command(tmp_path, start, two, "--val", str(SAMPLES))]
    run += ["--set", change]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert set(figures(one)) == set(figures(two)) == {3, 6}
    # What two processes scored together, one scores alike, of the same weights: those of the
    # checkpoint, for model files are rounded to fp16.
    for output in (one, two):
        network, provenance = load_model(output / "best.safetensors")
        found = provenance["figures"]
        (row,) = (row for row in rows(output) if int(row["step"]) == provenance["steps"])
        assert {key: float(row[key]) for key in found} == found
        state = torch.load(output / "last.ckpt", weights_only=True)["state_dict"]
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items()})
        last = {key: float(rows(output)[-1][key]) for key in found}
        assert last == pytest.approx(figures_of(network), abs=1e-3), output
    for name in ("loss", "mask", "dice", "embedding", "instance"):
        a, b = (float(rows(output)[-1][name]) for output in (one, two))
        assert a == pytest.approx(b, rel=2e-3), name
    first, second, begun = (
        load_model(path)[0].segnet.state_dict()
        for path in (one / "model.safetensors", two / "model.safetensors", start)
    )
    for name in ("mask.weight", "tower.0.norm.running_mean", "tower.0.norm.running_var"):
        moved = (first[name] - begun[name]).abs().max()
        assert moved > 0 and (first[name] - second[name]).abs().max() < 0.05 * moved, name


def figures_of(network: KDC) -> dict[str, float]:
    """Scores of a network by one process and one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    predictor = Predictor(TorchRuntime(network, {}, torch.device("cpu")))
    predictor.thresholds = replace(predictor.thresholds, confidence=0.0, keypoint=0.0)
    images = Images(SAMPLES)
    found = evaluate(
        read_truth(SAMPLES / "annotations.json"),
        lambda annotated: predictor(images.read(annotated.file_name)),
        lambda items, total: items,
    )
    torch.set_num_threads(threads)
    return {name: value for name, value in found.figures.items() if value >= 0}


def test_settings_of_the_command_line_and_the_best_model(start: Path, tmp_path: Path) -> None:
    arguments = command(tmp_path, start, tmp_path / "run", "--val", str(SAMPLES))
    for change in ("steps=2", "accumulate=2", "paste=1.0", "precision=bf16"):
        arguments += ["--set", f"train.{change}"]
    threads = torch.get_num_threads()
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    torch.set_num_threads(threads)
    network, provenance = load_model(tmp_path / "run" / "best.safetensors")
    assert network.config.train.steps == 2 and network.config.train.accumulate == 2
    assert provenance["steps"] == 2 and "keypoint_ap" in provenance["figures"]
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best["step"] == 2 and best["val"] == "annotations.json"
    # Weights of the losses, over both passes of a step.
    weights = network.config.train.model_dump()
    names = ("mask", "dice", "embedding", "instance")
    for row in rows(tmp_path / "run"):
        total = sum(weights[f"weight_{name}"] * float(row[name]) for name in names)
        assert float(row["loss"]) == pytest.approx(total, rel=1e-3)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    with pytest.raises(ConfigError, match="train.stepz"):
        CliRunner().invoke(app, [*arguments, "--set", "train.stepz=2"], catch_exceptions=False)


def test_a_mixture_draws_each_data_set_by_its_weight(data_set: Path, tmp_path: Path) -> None:
    two = tmp_path / "two.json"
    two.write_text(data_set.read_text())
    (tmp_path / "two").symlink_to(data_set.with_name("few"))
    config = load_preset("kdc_light", ["train.mixture=[3, 1]"])
    samples = TrainingSamples([str(data_set), str(two)], config)
    half = samples.num_images // 2
    first = sum(samples._place(number) < half for number in range(2000))
    assert 1400 < first < 1600
    with pytest.raises(ConfigError, match="2 weights for 1 data sets"):
        TrainingSamples([str(data_set)], config)


def test_steps_of_folded_weights_are_relative_to_their_channels() -> None:
    config = load_preset(
        "kdc_light", ["train.train=[posenet]", "train.rate_posenet=0.01", "train.warmup_steps=0"]
    )
    module = TrainingModule(KDC(config), 10, lambda numbers: [])
    weight, scale = module._scaled[0]
    with torch.no_grad():
        weight[0] *= 100
        module._scaled[0] = (weight, weight.square().mean((1, 2, 3), keepdim=True).sqrt())
    scale = module._scaled[0][1]
    before = weight.detach().clone()
    optimizer = module.configure_optimizers()[0][0]
    for parameter in module.network.posenet.parameters():
        parameter.grad = torch.ones_like(parameter)

    # Adam's first step has the size of the rate, whatever the gradient.
    with unittest.mock.patch.object(
        lightning.LightningModule, "optimizer_step", lambda *a, **k: optimizer.step()
    ):
        module.optimizer_step()
    assert torch.allclose((before - weight) / scale, torch.tensor(0.01), rtol=1e-3)


PAPER = [
    "train.crop=129",
    "train.longer_side=[129, 200]",
    "train.steps=2",
    "train.epochs=null",
    "train.batch=2",
    "train.workers=0",
    "network.segnet_width=16",
    "network.segnet_tower=16",
    "predict.longer_side=129",
    "decode.seeds=16",
    "decode.peaks=8",
    "decode.people=8",
    "decode.suppression_rounds=2",
    "train.evaluate_every=2",
]


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Config:
    """The paper's model with one block in each stage of its trunk, not 33 in all."""
    monkeypatch.setitem(resnet.BLOCKS, "resnet101", (1, 1, 1, 1))
    return load_preset("paper_resnet101", PAPER)


def test_the_papers_model_trains_and_evaluates(
    paper: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = train(None, tmp_path / "run", config=paper, val=SAMPLES)
    assert "from random weights" in caplog.text
    assert {"heat", "short", "mid", "mask", "embedding"} <= set(rows(output)[0])
    assert list(figures(output)) == [2]


@pytest.mark.all
def test_the_papers_model_answers_alike_when_exported(paper: Config, tmp_path: Path) -> None:
    model = train(None, tmp_path / "run", config=paper) / "model.safetensors"
    export_onnx(model, tmp_path / "paper.onnx")
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    one, two = (
        Predictor.from_pretrained(str(path), confidence=0.0, keypoint=0.0)
        for path in (model, tmp_path / "paper.onnx")
    )
    assert one.letterbox((90, 120)).size == (97, 129), "8 n + 1"
    a, b = one(image), two(image)
    assert len(a) == len(b)
    for person, same in zip(a.persons, b.persons, strict=True):
        assert person.score == pytest.approx(same.score, abs=1e-3)


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


def test_an_image_of_a_crowd_alone_is_left_out(
    data_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody on it can be seen, nor be pasted into another."""
    content = json.loads(data_set.read_text())
    crowded = content["images"][0]["id"]
    for entry in content["annotations"]:
        entry["iscrowd"] |= int(entry["image_id"] == crowded)
    data_set.write_text(json.dumps(content))
    caplog.set_level(logging.INFO)
    samples = TrainingSamples([str(data_set)], small("train.paste=1.0"))
    assert samples.num_images == 7 and "1 images without people" in caplog.text
    assert all(len(samples[number].image) == 1 for number in range(20))


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


@pytest.mark.parametrize("time", ["5x", "90", "", "-3m", "1h30m", "nan"])
def test_a_time_that_is_none_is_refused_at_once(time: str, tmp_path: Path) -> None:
    done = kdc("train", "none", "--data", "none", "--output", tmp_path / "x", "--max-time", time)
    assert_refused(done, "expected e.g. 90m, 2h or 45s")
    assert not (tmp_path / "x").exists()


def test_crops_and_sizes_that_the_network_cannot_take_are_refused(
    start: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="sides of 32 n, got 400"):
        train(start, tmp_path / "run", "train.crop=400")
    with pytest.raises(ConfigError, match="low, high"):
        TrainingSamples([str(SAMPLES)], small("train.longer_side=[760, 300]"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["train.precision=16"], "16 needs a GPU"),
        (["fields.skeleton=crowdpose14"], "a resnet learns"),
        (["train.train=[segnet, segnet]"], "expected each part once"),
    ],
)
def test_a_refused_run_leaves_no_folder(
    changes: list[str], reason: str, start: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        training.train(small(*changes), [str(SAMPLES)], tmp_path / "run", str(start), device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["train.longer_side=[760, 300]", "train.mixture=[3, 1]"])
def test_settings_are_refused_before_a_data_set_is_read(change: str) -> None:
    with pytest.raises(ConfigError, match=change.partition("=")[0]):
        TrainingSamples(["nowhere"], small(change))


CROWDPOSE = SHARED / "data" / "other" / "crowdpose"


@pytest.mark.skipif(not CROWDPOSE.is_dir(), reason="needs ../shared/data/other/crowdpose")
def test_crowdpose_trains_and_is_scored_by_its_own_protocol(paper: Config, tmp_path: Path) -> None:
    changes = [*PAPER, "fields.skeleton=crowdpose14"]
    with pytest.raises(AnnotationError, match="no person with masks"):
        TrainingSamples([str(CROWDPOSE)], load_preset("paper_resnet101", changes))
    config = load_preset("paper_resnet101", [*changes, "train.train=[posenet]"])
    output = train(None, tmp_path / "run", config=config, data=CROWDPOSE, val=CROWDPOSE)
    assert rows(output)[-1]["keypoint_ap_crowd_medium"]
    arguments = ["--annotations", CROWDPOSE / "annotations.json", "--images", CROWDPOSE]
    arguments += ["--model", output / "model.safetensors", "--json", tmp_path / "ap.json"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "ap.json").read_text())
    assert found["keypoint_ap_crowd_easy"] == -1, "no such image in the sample"
    assert found["keypoint_ap_crowd_medium"] >= 0


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\n", b"30"], ids=["zeros", "blank", "cut"])
def test_a_table_goes_on_after_a_last_row_that_was_cut(tail: bytes, tmp_path: Path) -> None:
    """By a loss of power, an editor, or a full disk."""
    table, whole = tmp_path / "metrics.csv", b"step,loss\r\n1,2.5\r\n2,2.25\r\n"
    table.write_bytes(whole + tail)
    samples: Any = None  # they are for what comes later
    metrics = Metrics(tmp_path, samples, first=30)
    metrics.begin()
    metrics.writer.close()
    assert table.read_bytes() == whole


def test_a_run_made_on_a_gpu_is_finished_without_one(start: Path, tmp_path: Path) -> None:
    """A checkpoint whose tensors say that they were on a device that there is not."""
    output = train(start, tmp_path / "run", "train.steps=1")
    wanted, _ = load_model(output / "model.safetensors")
    last = output / "last.ckpt"
    state = torch.load(last, weights_only=True)
    with monkeypatched_location("cuda:99"):
        torch.save(state, last)
    with pytest.raises(RuntimeError, match="CUDA device"):
        torch.load(last, weights_only=True)
    (output / "model.safetensors").unlink()
    train(start, output, "train.steps=1")
    again, _ = load_model(output / "model.safetensors")
    for one, other in zip(wanted.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@contextmanager
def monkeypatched_location(location: str) -> Iterator[None]:
    """Within it torch.save tags every tensor with a location."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: location)
        yield
