"""Training: small real runs, what they leave, and what is refused before one."""

from __future__ import annotations

import json
import subprocess
import sys
import unittest.mock
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from typer.testing import CliRunner

from kdc_core.cli import app
from kdc_core.config import ConfigError
from kdc_core.config_file import load_preset
from kdc_core.data.annotations import AnnotationError
from kdc_core.data.images import Images
from kdc_core.evaluation.run import evaluate, read_truth
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.torch import TorchRuntime
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import load_model
from kdc_core.training import run as training
from kdc_core.training.metrics import Metrics
from kdc_core.training.module import TrainingModule, young_average
from kdc_core.training.samples import TrainingSamples

from .commands import assert_refused, kdc
from .conftest import SAMPLES
from .runs import command, figures, make_start, rows, small, train


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
