"""Training: small real runs through the real command."""

from __future__ import annotations

import json
import subprocess
import sys
import unittest.mock
from dataclasses import replace
from pathlib import Path

import lightning
import pytest
import torch

from kdc_core.config import ConfigError, load_preset
from kdc_core.data.annotations import AnnotationError
from kdc_core.evaluation.run import evaluate
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.torch import TorchRuntime
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import load_model
from kdc_core.training.module import TrainingModule
from kdc_core.training.samples import TrainingSamples, collate

from .conftest import SHARED, command, rows, train


@pytest.mark.slow
def test_a_run_changes_segnet_alone_and_says_how_it_was_made(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    done = train(data_set, start, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    before, _ = load_model(start)
    after, provenance = load_model(tmp_path / "run" / "model.safetensors")
    for (name, old), new in zip(
        before.state_dict().items(), after.state_dict().values(), strict=True
    ):
        if name.startswith("posenet."):
            assert torch.equal(old, new), name
    assert not torch.equal(before.segnet.mask.weight, after.segnet.mask.weight)
    assert provenance["steps"] == 6 and provenance["data"] == ["few.json"]
    assert provenance["start"] == "start.safetensors"
    assert int(rows(tmp_path / "run")[-1]["step"]) == 6
    again = train(data_set, start, tmp_path / "run")
    assert again.returncode == 0, "a finished run stays finished"


def test_a_frozen_posenet_must_come_from_somewhere(data_set: Path, tmp_path: Path) -> None:
    run = [
        sys.executable,
        "-m",
        "kdc_core",
        "train",
        "kdc_base",
        "--data",
        str(data_set),
        "--output",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "give --start" in done.stderr


def test_training_data_without_its_pictures_is_refused(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    data_set.with_name("few").rename(tmp_path / "elsewhere")
    done = train(data_set, start, tmp_path / "run")
    assert done.returncode == 2 and "no pictures for" in done.stderr


def test_the_same_number_gives_the_same_sample(data_set: Path) -> None:
    config = load_preset("kdc_light")
    first, second = (TrainingSamples([str(data_set)], config) for _ in range(2))
    for number in (0, 5, 23):
        a, b = first[number], second[number]
        assert torch.equal(a[0], b[0]) and torch.equal(a[1].embedding, b[1].embedding)
    assert not torch.equal(first[0][0], first[first.pictures][0]), "another epoch, another crop"


def test_samples_of_a_batch_are_stacked(data_set: Path) -> None:
    samples = TrainingSamples([str(data_set)], load_preset("kdc_light"))
    pictures, targets, weights, instances, numbers = collate([samples[0], samples[1]])
    assert pictures.shape == (2, 3, 384, 384)
    assert targets.heat.shape == weights.heat.shape == (2, 18, 96, 96)
    assert instances.cover.shape == (2, 8, 96, 96) and numbers.tolist() == [0, 1]


def test_a_broken_picture_is_left_out_of_training(
    data_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for picture in sorted(data_set.with_name("few").iterdir())[:4]:
        picture.write_bytes(b"broken")
    samples = TrainingSamples([str(data_set)], load_preset("kdc_light"))
    for number in range(samples.pictures):
        assert samples[number][0].shape == (1, 3, 384, 384)
    assert "left out of training" in caplog.text


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_does(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    more = ["--val", str(data_set), "--set", "train.evaluate_every=3", "--threads", "1"]
    one = train(data_set, start, tmp_path / "one", *more)
    assert one.returncode == 0, one.stderr
    alone = command(data_set, start, tmp_path / "two", *more)
    # Without the two dashes torchrun takes --start for an option of its own.
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29571",
        "-m",
        "--",
        *alone[2:],
    ]
    two = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert two.returncode == 0, two.stderr
    first, second = (
        {int(r["step"]): r for r in rows(tmp_path / name) if r["keypoint_ap"]}
        for name in ("one", "two")
    )
    assert set(first) == set(second) == {3, 6}
    # What two processes scored together, one scores alike, of the same weights.
    for name, table in (("one", first), ("two", second)):
        network, provenance = load_model(tmp_path / name / "best.safetensors")
        figures = provenance["figures"]
        assert figures == pytest.approx(figures_of(network, data_set), abs=1e-3), name
        row = table[provenance["steps"]]
        assert {key: float(row[key]) for key in figures} == figures
    losses = ("loss", "mask", "dice", "embedding", "instance")
    for name in losses:
        assert float(last_loss(tmp_path / "one", name)) == pytest.approx(
            float(last_loss(tmp_path / "two", name)), rel=2e-3
        ), name
    a, b, begun = (
        load_model(path)[0].segnet.state_dict()
        for path in (
            tmp_path / "one" / "model.safetensors",
            tmp_path / "two" / "model.safetensors",
            start,
        )
    )
    for name in ("mask.weight", "tower.0.norm.running_mean", "tower.0.norm.running_var"):
        moved = (a[name] - begun[name]).abs().max()
        assert moved > 0 and (a[name] - b[name]).abs().max() < 0.05 * moved, name


def figures_of(network: KDC, data_set: Path) -> dict[str, float]:
    """Scores of a network by one process and one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    predictor = Predictor(TorchRuntime(network, {}, torch.device("cpu")))
    predictor.thresholds = replace(predictor.thresholds, confidence=0.0, keypoint=0.0)
    figures = evaluate(
        data_set,
        data_set.with_name("few"),
        lambda source, picture: predictor(source.read(picture.file_name)),
        lambda items, total: items,
    ).figures
    torch.set_num_threads(threads)
    return {name: value for name, value in figures.items() if value >= 0}


def last_loss(output: Path, name: str) -> str:
    """The last mean loss of a run's table."""
    return [row[name] for row in rows(output) if row[name]][-1]


@pytest.mark.slow
def test_settings_of_the_command_line_and_the_best_model(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    more = [
        "--set",
        "train.steps=2",
        "--set",
        "train.accumulate=2",
        "--set",
        "train.paste=1.0",
        "--set",
        "train.precision=bf16",
    ]
    done = train(data_set, start, tmp_path / "run", "--val", str(data_set), *more)
    assert done.returncode == 0, done.stderr
    network, provenance = load_model(tmp_path / "run" / "best.safetensors")
    assert network.config.train.steps == 2 and network.config.train.accumulate == 2
    assert provenance["steps"] == 2 and "keypoint_ap" in provenance["figures"]
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    wrong = train(data_set, start, tmp_path / "other", "--set", "train.stepz=2")
    assert wrong.returncode == 2 and "train.stepz" in wrong.stderr


def test_a_mixture_draws_each_data_set_by_its_share(data_set: Path, tmp_path: Path) -> None:
    two = tmp_path / "two.json"
    two.write_text(data_set.read_text())
    (tmp_path / "two").symlink_to(data_set.with_name("few"))
    config = load_preset("kdc_light", ["train.mixture=[3, 1]"])
    samples = TrainingSamples([str(data_set), str(two)], config)
    half = samples.pictures // 2
    first = sum(samples._place(number) < half for number in range(2000))
    assert 1400 < first < 1600
    with pytest.raises(ConfigError, match="shares"):
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
    with (
        unittest.mock.patch.object(
            lightning.LightningModule, "optimizer_step", lambda *a, **k: optimizer.step()
        ),
        unittest.mock.patch.object(TrainingModule, "global_step", 0),
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
    "train.evaluate_every=2",
]


@pytest.mark.slow
def test_the_papers_model_trains_evaluates_and_exports(data_set: Path, tmp_path: Path) -> None:
    changes = [part for change in PAPER for part in ("--set", change)]
    run = [
        sys.executable,
        "-m",
        "kdc_core",
        "train",
        "paper_resnet101",
        "--data",
        str(data_set),
        "--val",
        str(data_set),
        "--output",
        str(tmp_path / "run"),
        *changes,
    ]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "from random weights" in done.stderr
    table = rows(tmp_path / "run")
    assert {"heat", "short", "mid", "mask", "embedding"} <= set(table[0])
    assert [r for r in table if r["keypoint_ap"]][-1]["step"] == "2"
    model = tmp_path / "run" / "model.safetensors"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kdc_core",
            "export",
            str(model),
            "--output",
            str(tmp_path / "paper.onnx"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    import numpy as np

    from kdc_core.inference.predictor import Predictor

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


def test_annotations_without_keypoints_cannot_train(data_set: Path) -> None:
    content = json.loads(data_set.read_text())
    for entry in content["annotations"]:
        entry.pop("keypoints", None)
    data_set.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match="no person with keypoints"):
        TrainingSamples([str(data_set)], load_preset("kdc_light"))


def test_crops_and_sizes_that_the_network_cannot_take_are_refused(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    done = train(data_set, start, tmp_path / "run", "--set", "train.crop=400")
    assert done.returncode == 2 and "32 n + 0, got 400" in done.stderr
    with pytest.raises(ConfigError, match="low, high"):
        TrainingSamples(
            [str(data_set)], load_preset("kdc_light", ["train.longer_side=[760, 300]"])
        )


CROWDPOSE = SHARED / "data" / "other" / "crowdpose"


@pytest.mark.slow
@pytest.mark.skipif(not CROWDPOSE.is_dir(), reason="needs ../shared/data/other/crowdpose")
def test_crowdpose_trains_and_is_scored_by_its_own_protocol(tmp_path: Path) -> None:
    changes = [
        part for change in [*PAPER, "fields.skeleton=crowdpose14"] for part in ("--set", change)
    ]
    base = [sys.executable, "-m", "kdc_core"]
    runs = [
        [
            "train",
            "paper_resnet101",
            "--data",
            CROWDPOSE,
            "--val",
            CROWDPOSE,
            "--output",
            tmp_path / "run",
            *changes,
        ],
        [
            "evaluate",
            "--annotations",
            CROWDPOSE / "annotations.json",
            "--images",
            CROWDPOSE,
            "--model",
            tmp_path / "run" / "model.safetensors",
            "--json",
            tmp_path / "ap.json",
        ],
    ]
    for run in runs:
        done = subprocess.run([*base, *map(str, run)], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "run")[-1]["keypoint_ap_crowd_medium"]
    figures = json.loads((tmp_path / "ap.json").read_text())
    assert figures["keypoint_ap_crowd_easy"] == -1, "no such picture in the sample"
    assert figures["keypoint_ap_crowd_medium"] >= 0
