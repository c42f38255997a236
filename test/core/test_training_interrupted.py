"""Runs that are killed, stopped, or refused, and the checkpoint that is left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdc_core.config import ConfigError
from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import coco_results
from kdc_core.network.weights import load_model, save_model, start_from
from kdc_core.stopping import Stopped
from kdc_core.training import callbacks, metrics
from kdc_core.training.evaluation import Evaluation
from kdc_core.training.losses import all_losses
from kdc_core.training.module import TrainingError, TrainingModule
from kdc_core.training.samples import TrainingSamples

from .commands import kdc
from .conftest import SAMPLES
from .runs import PRESET, command, figures, losses, make_start, rows, small, train

STEPS = "train.steps=10"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def stopped(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps that was stopped after the first."""
    return train(start, tmp_path_factory.mktemp("run"), STEPS, max_seconds=0.0)


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row and a checkpoint at each step."""
    monkeypatch.setattr(metrics, "ROW_SECONDS", 0.0)
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 0.0)


def segnet(output: Path) -> dict[str, torch.Tensor]:
    return load_model(output / "model.safetensors")[0].segnet.state_dict()


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    start: Path, tmp_path: Path, run: Path, each_step: None
) -> None:
    assert list(losses(run)) == [1]
    assert load_model(run / "model.safetensors")[1]["steps"] == 1
    for _ in range(2):
        train(start, run, STEPS, max_seconds=0.0)
    assert list(losses(run)) == [1, 2, 3], "four steps are an epoch"
    train(start, run, STEPS)
    whole = train(start, tmp_path / "whole", STEPS)
    assert losses(run) == losses(whole) and list(losses(whole)) == list(range(1, 11))
    for (name, one), two in zip(segnet(run).items(), segnet(whole).values(), strict=True):
        assert torch.equal(one, two), name
    seconds = json.loads((run / "seconds.json").read_text())
    assert load_model(run / "model.safetensors")[1]["seconds"] == round(seconds)


def send_at(number: int, calls: list[object], at: int) -> None:
    """Count a call, and send this process a signal at one of them."""
    calls.append(None)
    if len(calls) == at:
        os.kill(os.getpid(), number)
        time.sleep(0.2)  # it is a thread that takes it


@pytest.mark.parametrize(
    ("number", "status", "val"),
    [
        (signal.SIGTERM, 143, None),
        pytest.param(signal.SIGINT, 130, None, marks=pytest.mark.all),
        pytest.param(signal.SIGINT, 130, SAMPLES, marks=pytest.mark.all),
    ],
    ids=["TERM in a step", "INT in a step", "INT in an evaluation"],
)
def test_a_signal_ends_a_run_that_goes_on_as_if_there_had_been_none(
    number: int,
    status: int,
    val: Path | None,
    start: Path,
    tmp_path: Path,
    each_step: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 60.0)
    changes = ("train.evaluate_every=4", "train.accumulate=2")
    whole = train(start, tmp_path / "whole", *changes, val=val)
    calls: list[object] = []
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    work: Callable[..., Any] = all_losses if val is None else coco_results
    # In the first pass of the third step, or in the middle of the evaluation after the fourth.
    at = 5 if val is None else 3

    def sending(*arguments: Any) -> Any:
        send_at(number, calls, at)
        return work(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(f"kdc_core.training.module.{work.__name__}", sending)
        with pytest.raises(Stopped) as end:
            train(start, tmp_path / "part", *changes, val=val)
    assert end.value.code == status and len(calls) < 9
    assert handlers == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    part = tmp_path / "part"
    assert torch.load(part / "last.ckpt", weights_only=True)["global_step"] == 3
    assert load_model(part / "model.safetensors")[1]["steps"] == 3 and not figures(part)
    train(start, part, *changes, val=val)
    assert losses(part) == losses(whole) and figures(part) == figures(whole)
    assert len(figures(whole)) == (0 if val is None else 2)
    for (name, one), two in zip(segnet(part).items(), segnet(whole).values(), strict=True):
        assert torch.equal(one, two), name


LONG_STEP = """
import sys, time
import kdc_core.training.callbacks as c, kdc_core.training.module as m
c.CHECKPOINT_SECONDS = 0.0
losses = m.all_losses
def slow(*arguments):
    if slow.steps == 2:
        print("now", file=sys.stderr, flush=True)
        time.sleep(60)
    slow.steps += 1
    return losses(*arguments)
slow.steps = 0
m.all_losses = slow
from kdc_core.__main__ import main; main()
"""


@pytest.mark.all
@pytest.mark.parametrize(
    ("second", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_second_signal_ends_at_once_and_leaves_whole_files(
    second: int, status: int, start: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    arguments = command(tmp_path, start, part)
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP, *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert any(line == "now\n" for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(second)
    assert process.wait(5) == status
    assert torch.load(part / "last.ckpt", weights_only=True)["global_step"] == 2
    assert not list(part.glob(".*part*")) and not (part / "model.safetensors").exists()
    process.stderr.close()


@pytest.mark.all
def test_a_signal_to_all_processes_of_a_run_stops_it_as_one_to_the_first_does(
    start: Path, tmp_path: Path
) -> None:
    """As a terminal, a container or a batch system sends it: the loader processes get it, too."""
    part = tmp_path / "part"
    more = ("--set", "train.steps=5000", "--set", "train.workers=2")
    process = subprocess.Popen(
        [sys.executable, "-m", "kdc_core", *command(tmp_path, start, part, *more)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (part / "tensorboard").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in told, told
    step = torch.load(part / "last.ckpt", weights_only=True)["global_step"]
    assert load_model(part / "model.safetensors")[1]["steps"] == step > 0
    assert f"step {step} of 5000" in told and "stopped by SIGTERM" in told


@pytest.mark.all
def test_signals_at_random_moments_cost_nothing(start: Path, tmp_path: Path) -> None:
    """While libraries are imported, data read, steps made, files written."""
    part, steps = tmp_path / "part", "train.steps=40"
    arguments = [sys.executable, "-m", "kdc_core", *command(tmp_path, start, part, "--set", steps)]
    seed = time.time_ns()
    rng = random.Random(seed)
    for number in rng.choices((signal.SIGINT, signal.SIGTERM), k=4):
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(1, 15))
        process.send_signal(number)
        _, told = process.communicate(timeout=120)
        # While Python itself ends, a signal kills it, which a shell calls 128 + number, too.
        assert process.returncode in (0, 128 + number, -number), f"seed {seed}: {told}"
        assert "Traceback" not in told, f"seed {seed}: {told}"
        assert not list(part.glob(".*part*")), f"seed {seed}"
        if (part / "last.ckpt").exists():
            torch.load(part / "last.ckpt", weights_only=True)
            load_model(part / "model.safetensors")
    train(start, part, steps)
    whole = train(start, tmp_path / "whole", steps)
    for (name, one), two in zip(segnet(part).items(), segnet(whole).values(), strict=True):
        assert torch.allclose(one, two, rtol=1e-2, atol=1e-3), f"seed {seed}: {name}"


@pytest.mark.slow
def test_a_killed_run_has_the_loss_curve_of_an_uninterrupted_one(
    start: Path, tmp_path: Path, each_step: None
) -> None:
    """A row for each step, a checkpoint for each step, a kill in the middle of an epoch."""
    part, steps = tmp_path / "part", "train.steps=12"
    code = (
        "import time, kdc_core.training.callbacks as c, kdc_core.training.metrics as m\n"
        "m.ROW_SECONDS = c.CHECKPOINT_SECONDS = 0.0\n"
        "write = m.Metrics.write\n"
        "m.Metrics.write = lambda *arguments: (write(*arguments), time.sleep(0.3))\n"
        "from kdc_core.__main__ import main; main()"
    )
    arguments = command(tmp_path, start, part, "--set", steps)
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (part / "metrics.csv").exists() or max(losses(part), default=0) < 6:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert max(losses(part)) % 4, "four steps are an epoch"
    train(start, part, steps)
    whole = train(start, tmp_path / "whole", steps)
    assert list(losses(part)) == list(losses(whole)) == list(range(1, 13))
    assert losses(part) == pytest.approx(losses(whole), rel=1e-3)


def test_rows_past_an_earlier_checkpoint_are_cut(
    start: Path, tmp_path: Path, run: Path, each_step: None
) -> None:
    earlier = shutil.copy(run / "last.ckpt", tmp_path / "earlier.ckpt")
    train(start, run, STEPS)
    assert max(losses(run)) == 10
    shutil.copy(earlier, run / "last.ckpt")
    train(start, run, STEPS, max_seconds=0.0)
    assert [row["step"] for row in rows(run)] == ["1", "2"]


def test_another_run_in_the_same_folder_is_refused(start: Path, tmp_path: Path, run: Path) -> None:
    with pytest.raises(ConfigError, match=r"another configuration .* train\.steps"):
        train(start, run, "train.steps=7")
    with pytest.raises(ConfigError, match=r"another configuration .* decode\.score_tau_px"):
        train(start, run, STEPS, "decode.score_tau_px=3")
    other = Path(shutil.copy(start, tmp_path / "other.safetensors"))
    with pytest.raises(ConfigError, match="other weights or data"):
        train(other, run, STEPS)


def test_other_content_under_the_same_names_is_another_run(
    start: Path, tmp_path: Path, run: Path
) -> None:
    same_name = tmp_path / "again" / start.name
    same_name.parent.mkdir()
    network, _ = load_model(start)
    save_model(network, same_name, {"made": "differently"})
    with pytest.raises(ConfigError, match="other weights or data"):
        train(same_name, run, STEPS)
    data = tmp_path / SAMPLES.name
    shutil.copytree(SAMPLES, data)
    content = json.loads((data / "annotations.json").read_text())
    content["annotations"][0]["keypoints"][0] += 1
    (data / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="other weights or data"):
        train(start, run, STEPS, data=data)


def test_a_model_is_not_overwritten_where_its_checkpoint_is_gone(start: Path, run: Path) -> None:
    train(start, run, STEPS, max_seconds=0.0)
    model = (run / "model.safetensors").read_bytes()
    (run / "last.ckpt").unlink()
    with pytest.raises(ConfigError, match="no 'last.ckpt' to go on from: give another --output"):
        train(start, run, STEPS)
    assert (run / "model.safetensors").read_bytes() == model


class Trap:
    """Pickled, it runs what it names as soon as it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_executed(start: Path, tmp_path: Path, run: Path) -> None:
    torch.save({"averaging_state": Trap(tmp_path / "sprung"), "global_step": 1}, run / "last.ckpt")
    with pytest.raises(ConfigError, match=r"last\.ckpt' is damaged"):
        train(start, run, STEPS)
    assert not (tmp_path / "sprung").exists()


def test_settings_of_decode_alone_may_change(start: Path, run: Path) -> None:
    train(start, run, STEPS, "decode.min_peak=0.1", max_seconds=0.0)
    assert load_model(run / "model.safetensors")[0].config.decode.min_peak == 0.1


def test_a_folder_in_use_is_refused(start: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another run is training"):
            train(start, tmp_path / "run")


def poison(checkpoint: Path, part: str, value: float) -> bytes:
    """Put a number in place of the person map's bias; return the checkpoint."""
    state = torch.load(checkpoint, weights_only=True)
    state[part]["network.segnet.mask.bias"].fill_(value)
    torch.save(state, checkpoint)
    return checkpoint.read_bytes()


def test_a_loss_that_is_no_number_names_the_images_and_keeps_the_checkpoint(
    start: Path, run: Path
) -> None:
    poisoned = poison(run / "last.ckpt", "current_model_state", float("nan"))
    with pytest.raises(TrainingError, match=r"loss is not finite at step 1 .*\.jpg"):
        train(start, run, STEPS)
    assert (run / "last.ckpt").read_bytes() == poisoned
    preset = run.with_name("small.yaml")
    preset.write_text(PRESET)
    given = ("--data", SAMPLES, "--start", start, "--output", run, "--set", STEPS)
    done = kdc("train", preset, *given)
    assert done.returncode == 1 and "error: loss is not finite at step 1" in done.stderr


@pytest.mark.parametrize("val", [None, SAMPLES], ids=["checkpoint", "evaluation"])
def test_an_average_that_is_no_number_is_neither_kept_nor_evaluated(
    start: Path, run: Path, val: Path | None
) -> None:
    poisoned = poison(run / "last.ckpt", "state_dict", float("inf"))
    model = (run / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="average of the weights is not finite"):
        train(start, run, STEPS, val=val, max_seconds=None if val else 0.0)
    assert (run / "last.ckpt").read_bytes() == poisoned
    assert (run / "model.safetensors").read_bytes() == model
    assert not figures(run) and not (run / "best.safetensors").exists()


def test_a_gradient_that_is_no_number_stops_before_the_weights_do(start: Path) -> None:
    samples = TrainingSamples([str(SAMPLES)], small())
    module = TrainingModule(start_from(small(), start), samples.steps, samples.names)
    module._numbers = [0]
    for parameter in module.network.segnet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = module.configure_optimizers()[0][0]
    module.on_before_optimizer_step(optimizer)
    module._numbers = [0]
    module.network.segnet.mask.bias.grad = torch.tensor([float("inf")])
    with pytest.raises(TrainingError, match=r"gradient is not finite .*\.jpg"):
        module.on_before_optimizer_step(optimizer)


def test_a_damaged_checkpoint_is_named(start: Path, run: Path) -> None:
    for content in ((run / "last.ckpt").read_bytes()[:5000], b""):
        (run / "last.ckpt").write_bytes(content)
        with pytest.raises(ConfigError, match=r"last\.ckpt' is damaged"):
            train(start, run, STEPS)
    torch.save({"global_step": 1}, run / "last.ckpt")
    with pytest.raises(ConfigError, match="of this version"):
        train(start, run, STEPS)


def test_damaged_notes_of_a_run_are_named_or_done_without(start: Path, run: Path) -> None:
    (run / "seconds.json").write_text("{")
    train(start, run, STEPS, max_seconds=0.0)
    (run / "inputs.json").write_text("{")
    with pytest.raises(ConfigError, match=r"inputs\.json' is damaged: delete it"):
        train(start, run, STEPS)
    (run / "inputs.json").unlink()
    train(start, run, STEPS, max_seconds=0.0)


def test_a_full_disk_ends_the_run_with_its_name_and_the_old_checkpoint(
    start: Path, run: Path
) -> None:
    before = (run / "last.ckpt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(KdcError, match=r"cannot write .*last\.ckpt"):
            train(start, run, STEPS, max_seconds=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (run / "last.ckpt").read_bytes() == before
    assert not list(run.glob(".*part*"))


def test_a_killed_evaluation_starts_again_with_the_next_call(
    start: Path, tmp_path: Path, each_step: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("train.evaluate_every=4", "train.accumulate=2")
    whole = train(start, tmp_path / "whole", *changes, val=SAMPLES)
    assert list(figures(whole)) == [4, 6]
    calls: list[int] = []

    def killed(prediction: object, image_id: int) -> None:
        calls.append(image_id)
        if len(calls) == 3:
            raise ZeroDivisionError("killed")

    part = tmp_path / "part"
    with monkeypatch.context() as patched:
        patched.setattr("kdc_core.training.module.coco_results", killed)
        with pytest.raises(ZeroDivisionError, match="killed"):
            train(start, part, *changes, val=SAMPLES)
    assert torch.load(part / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not figures(part)
    train(start, part, *changes, val=SAMPLES)
    assert figures(part) == figures(whole) and losses(part) == losses(whole)


def test_the_time_limit_is_overrun_by_one_evaluation_at_most(
    data_set: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(Evaluation, "_draw", lambda self, predictor, step: drawn.append(step))
    changes = ("train.evaluate_every=2", "train.steps=5")
    for evaluated in ([], [2], [2], [2, 4]):
        run = train(start, tmp_path / "run", *changes, val=data_set, max_seconds=0.0)
        assert list(figures(run)) == evaluated, "a stop alone is no reason to evaluate"
    assert list(losses(run)) == [1, 2, 3, 4]
    assert (run / "best.safetensors").exists()
    before = json.loads((run / "best.json").read_text())
    # Figures on other annotations do not compare.
    content = json.loads(data_set.read_text())
    data_set.write_text(json.dumps({**content, "images": content["images"][:2]}))
    train(start, run, *changes, val=data_set)
    after = json.loads((run / "best.json").read_text())
    assert list(figures(run)) == drawn == [2, 4, 5], "each once, also where a call ends after it"
    assert after["step"] == 5
    assert after["val_crc32"] != before["val_crc32"]


def test_images_that_cannot_be_read_are_left_out_of_an_evaluation(
    data_set: Path, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    next(data_set.with_name("few").iterdir()).write_bytes(b"broken")
    run = train(start, tmp_path / "run", "train.steps=1", val=data_set)
    assert "left out of evaluation" in caplog.text and set(figures(run)) == {1}
