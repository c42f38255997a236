"""Runs that are killed, stopped, or refused, and the checkpoint that is left."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kdc_core.config import load_preset
from kdc_core.network.weights import load_model, start_from
from kdc_core.training.module import TrainingError, TrainingModule
from kdc_core.training.samples import TrainingSamples

from .conftest import PRESET, command, rows, train

LONG = ["--set", "train.steps=100"]


@pytest.fixture
def checkpoint(data_set: Path, start: Path, tmp_path: Path) -> Path:
    """The checkpoint of a long run in the folder `run` that was stopped after a second."""
    assert train(data_set, start, tmp_path / "run", *LONG, "--max-time", "1s").returncode == 0
    return tmp_path / "run" / "last.ckpt"


@pytest.mark.slow
def test_a_killed_run_goes_on_where_its_checkpoint_is(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    start.with_name("small.yaml").write_text(PRESET % 100)
    whole = train(data_set, start, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    part = train(data_set, start, tmp_path / "part", "--max-time", "2s")
    assert part.returncode == 0, part.stderr
    assert 0 < int(rows(tmp_path / "part")[-1]["step"]) < 95, "stopped in the middle"
    process = subprocess.Popen(command(data_set, start, tmp_path / "part"))
    time.sleep(3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    end = train(data_set, start, tmp_path / "part")
    assert end.returncode == 0, end.stderr
    one, _ = load_model(tmp_path / "whole" / "model.safetensors")
    two, _ = load_model(tmp_path / "part" / "model.safetensors")
    start_network, _ = load_model(start)
    for name in ("mask.weight", "embedding.weight"):
        a, b, first = (n.segnet.state_dict()[name] for n in (one, two, start_network))
        # Other samples after resuming would move the weights apart by a good part of their way.
        assert (a - b).abs().max() < 0.02 * (a - first).abs().max(), name
    steps = [int(row["step"]) for row in rows(tmp_path / "part")]
    assert steps == sorted(set(steps)) and steps[-1] == 100


@pytest.mark.slow
def test_another_configuration_in_the_same_folder_is_refused(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    assert train(data_set, start, tmp_path / "run").returncode == 0
    start.with_name("small.yaml").write_text(PRESET % 7)
    done = train(data_set, start, tmp_path / "run")
    assert done.returncode == 2 and "another configuration" in done.stderr


@pytest.mark.slow
def test_a_killed_run_has_the_loss_curve_of_an_uninterrupted_one(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    """A row for each step, a checkpoint for each step, a kill in the middle of an epoch."""
    code = (
        "import kdc_core.training.callbacks as c; c.ROW_SECONDS = c.CHECKPOINT_SECONDS = 0.0\n"
        "from kdc_core.cli import main; main()"
    )

    def run(output: str) -> list[str]:
        more = ["--set", "train.steps=30", "--threads", "1"]
        return [
            sys.executable,
            "-c",
            code,
            *command(data_set, start, tmp_path / output, *more)[3:],
        ]

    whole = subprocess.run(run("whole"), capture_output=True, text=True, timeout=600)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(run("part"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        table = tmp_path / "part" / "metrics.csv"
        step = (
            int(rows(tmp_path / "part")[-1]["step"])
            if table.exists() and rows(tmp_path / "part")
            else 0
        )
        if step >= 6 and step % 4 == 2:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed_at = int(rows(tmp_path / "part")[-1]["step"])
    assert 6 <= killed_at < 30 and killed_at % 4, "four steps are an epoch"
    again = subprocess.run(run("part"), capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    one, two = (
        {int(r["step"]): float(r["loss"]) for r in rows(tmp_path / name)}
        for name in ("whole", "part")
    )
    assert sorted(one) == sorted(two) == list(range(1, 31))
    for step, loss in one.items():
        assert two[step] == pytest.approx(loss, rel=1e-3), step


@pytest.mark.slow
def test_a_folder_in_use_is_refused(data_set: Path, start: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = train(data_set, start, tmp_path / "run")
    assert done.returncode == 2 and "another run is training" in done.stderr


@pytest.mark.slow
def test_a_loss_that_is_no_number_names_the_pictures_and_keeps_the_checkpoint(
    data_set: Path, start: Path, tmp_path: Path, checkpoint: Path
) -> None:
    before = checkpoint.read_bytes()
    state = torch.load(checkpoint, weights_only=False)
    state["state_dict"]["network.segnet.mask.bias"].fill_(float("nan"))
    torch.save(state, checkpoint)
    poisoned = checkpoint.read_bytes()
    assert poisoned != before
    done = train(data_set, start, tmp_path / "run", *LONG)
    assert done.returncode == 2, done.stderr
    assert "loss is not finite at step" in done.stderr and ".jpg" in done.stderr
    assert checkpoint.read_bytes() == poisoned


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(
    data_set: Path, start: Path, tmp_path: Path, checkpoint: Path
) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    done = train(data_set, start, tmp_path / "run", *LONG)
    assert done.returncode == 2 and "last.ckpt' is damaged" in done.stderr


def slowly(arguments: list[str]) -> list[str]:
    """The command with a row at each step, and one picture of --val after it."""
    code = (
        "import kdc_core.training.callbacks as c; c.ROW_SECONDS = 0.0\n"
        "import kdc_core.training.evaluation as e; e.SLICE_SECONDS = e.LONG_SLICE_SECONDS = 0.0\n"
        "from kdc_core.cli import main; main()"
    )
    return [sys.executable, "-c", code, *arguments[3:]]


def figures(folder: Path) -> dict[str, str]:
    """Keypoint AP by step."""
    return {row["step"]: row["keypoint_ap"] for row in rows(folder) if row["keypoint_ap"]}


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_between_the_steps_of_the_next_call(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "few", tmp_path / "val")
    val = Path(shutil.copy(data_set, tmp_path / "val.json"))
    more = [
        "--val",
        str(val),
        "--set",
        "train.evaluate_every=4",
        "--set",
        "train.steps=16",
        "--threads",
        "1",
    ]
    assert train(data_set, start, tmp_path / "whole", *more).returncode == 0

    folder = tmp_path / "part"
    process = subprocess.Popen(
        slowly(command(data_set, start, folder, *more)), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while "".join(p.read_text() for p in folder.glob("evaluating-4.*l")).count("results") < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (known,) = folder.glob("evaluating-4.*.jsonl")
    assert int(rows(folder)[-1]["step"]) > 4, "steps and rows go on during an evaluation"
    assert not figures(folder)
    with open(known, "a") as file:
        file.write('{"id": 1, "resul')
    pictures = {i["id"]: i["file_name"] for i in json.loads(val.read_text())["images"]}
    for line in known.read_text().splitlines()[:-1]:
        if line:
            (tmp_path / "val" / pictures[json.loads(line)["id"]]).unlink()

    # Other annotations under the same name start anew; what is known of these stays.
    content = json.loads(val.read_text())
    val.write_text(json.dumps({**content, "images": content["images"][-2:]}))
    run = slowly(command(data_set, start, folder, *more, "--max-time", "0.01s"))
    other = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert other.returncode == 0, other.stderr
    assert "evaluation of step 4 goes on" in other.stderr
    val.write_text(json.dumps(content))

    again = train(data_set, start, folder, *more)
    assert again.returncode == 0, again.stderr
    assert figures(folder)["4"] == figures(tmp_path / "whole")["4"]
    assert set(figures(folder)) == {"4", "8", "12", "16"}
    steps = [int(row["step"]) for row in rows(folder)]
    assert steps == sorted(set(steps))
    assert not list(folder.glob("evaluating*"))


@pytest.mark.slow
def test_the_time_limit_holds_during_an_evaluation(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    more = ["--val", str(data_set), "--set", "train.evaluate_every=1", "--set", "train.steps=2"]
    for step in ("1", "2"):
        run = slowly(command(data_set, start, tmp_path / "run", *more, "--max-time", "0.01s"))
        done = subprocess.run(run, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert f"evaluation of step {step} goes on with the next call" in done.stderr
    assert not figures(tmp_path / "run")
    # All steps are made: this call only scores.
    done = train(data_set, start, tmp_path / "run", *more)
    assert done.returncode == 0, done.stderr
    assert set(figures(tmp_path / "run")) == {"1", "2"}
    assert (tmp_path / "run" / "best.safetensors").exists()
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_an_average_that_is_no_number_is_neither_kept_nor_evaluated(
    data_set: Path, start: Path, tmp_path: Path
) -> None:
    more = [*LONG, "--val", str(data_set), "--set", "train.evaluate_every=40"]
    assert train(data_set, start, tmp_path / "run", *more, "--max-time", "1s").returncode == 0
    checkpoint = tmp_path / "run" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=False)
    state["state_dict"]["average.segnet.mask.bias"].fill_(float("inf"))
    torch.save(state, checkpoint)
    before = checkpoint.read_bytes()
    done = train(data_set, start, tmp_path / "run", *more)
    assert done.returncode == 2, done.stderr
    assert "average of the weights" in done.stderr and "not finite" in done.stderr
    assert checkpoint.read_bytes() == before
    assert not list((tmp_path / "run").glob("evaluating*"))


@pytest.mark.slow
def test_a_gradient_that_is_no_number_stops_before_the_weights_do(
    data_set: Path, start: Path
) -> None:
    config = load_preset(str(start.with_name("small.yaml")))
    samples = TrainingSamples([str(data_set)], config)
    module = TrainingModule(start_from(config, start), samples.steps, samples.names)
    module._pictures = [0]
    for parameter in module.network.segnet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    module.on_before_optimizer_step(None)
    module._pictures = [0]
    module.network.segnet.mask.bias.grad = torch.tensor([float("inf")])
    with pytest.raises(TrainingError, match=r"gradient is not finite .*\.jpg"):
        module.on_before_optimizer_step(None)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_its_name_and_the_old_checkpoint(
    data_set: Path, start: Path, tmp_path: Path, checkpoint: Path
) -> None:
    before = checkpoint.read_bytes()

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = subprocess.run(
        command(data_set, start, tmp_path / "run", *LONG, "--max-time", "1s"),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=small_disk,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr and "last.ckpt" in done.stderr
    assert checkpoint.read_bytes() == before
    assert not list((tmp_path / "run").glob(".*part*"))
