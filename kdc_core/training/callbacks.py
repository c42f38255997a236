"""Callbacks: checkpoints, time limit, the table of metrics, curves, progress."""

from __future__ import annotations

import csv
import logging
import math
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import (
    CROWD_FIGURES,
    FIGURES,
)
from kdc_core.files import whole_file
from kdc_core.training.processes import mean_over_processes, rank, world

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
ROW_SECONDS = 10.0
EVALUATED = (*FIGURES, *CROWD_FIGURES)


def write_checkpoint(trainer: lightning.Trainer, module: Any, path: Path) -> None:
    """Save the state of the run; a kill at any moment leaves the old or the new file."""
    module.check_average()
    if rank() > 0:  # takes part, writes nothing
        trainer.save_checkpoint(path)
        return
    with whole_file(path) as part:
        trainer.save_checkpoint(part)


def _agreed(trainer: lightning.Trainer, said: bool) -> bool:
    """What the first process says."""
    return bool(trainer.strategy.broadcast(said)) if world() > 1 else said


class Clock:
    """Says every so many seconds that it is time; all processes hear it at the same step."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.begun = time.monotonic()

    def due(self, trainer: lightning.Trainer) -> bool:
        now = _agreed(trainer, time.monotonic() - self.begun >= self.seconds)
        if now:
            self.begun = time.monotonic()
        return now


class EachStep(Callback):
    """Calls `on_step` after each whole step, also where several forward passes make one."""

    _seen = -1

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.global_step != self._seen:
            self._seen = trainer.global_step
            self.on_step(trainer, module)

    def on_step(self, trainer: lightning.Trainer, module: Any) -> None:
        raise NotImplementedError


class Checkpoints(EachStep):
    """Writes the last state every CHECKPOINT_SECONDS."""

    def __init__(self, path: Path):
        self.path, self.clock = path, Clock(CHECKPOINT_SECONDS)

    def on_step(self, trainer: lightning.Trainer, module: Any) -> None:
        # The last step's is written when everything else is done.
        if self.clock.due(trainer) and trainer.global_step < module.steps:
            write_checkpoint(trainer, module, self.path)


class Deadline(EachStep):
    """Ends the run after a whole step, once it has lasted so many seconds; None = never."""

    def __init__(self, seconds: float | None):
        self.end = time.monotonic() + (math.inf if seconds is None else seconds)

    def left(self) -> float:
        """Seconds until then, below 0 afterwards."""
        return self.end - time.monotonic()

    def passed(self, trainer: lightning.Trainer) -> bool:
        """Whether the time is up; every process must ask at the same place."""
        return _agreed(trainer, self.left() <= 0)

    def on_step(self, trainer: lightning.Trainer, module: Any) -> None:
        if self.passed(trainer):
            trainer.should_stop = True


class Metrics(EachStep):
    """Appends rows to `metrics.csv`: mean losses since the last row, figures of evaluations.

    Rows past the checkpoint a run resumes from are cut. The same values go to TensorBoard, and
    with pictures per second and the time left to the log.

    Args:
        folder: of the run.
        names: of the losses.
        steps: of the whole run.
        epoch_steps: steps of one epoch.
        samples: of one step.
    """

    def __init__(
        self, folder: Path, names: list[str], steps: int, epoch_steps: float, samples: int
    ):
        self.path, self.folder = folder / "metrics.csv", folder
        self.columns = ["step", "epoch", "loss", *names, *EVALUATED]
        self.steps, self.epoch_steps, self.samples = steps, epoch_steps, samples
        self.clock = Clock(ROW_SECONDS)
        self._sums, self._passes = torch.zeros(1 + len(names)), 0
        self._first = self._last = 0  # step of the checkpoint; last step with a row

    @cached_property
    def writer(self) -> Any:
        """TensorBoard's, of the first process."""
        from torch.utils.tensorboard.writer import SummaryWriter

        return SummaryWriter(
            self.folder / "tensorboard",
            purge_step=self._first + 1,
            flush_secs=max(1, round(ROW_SECONDS)),  # 0 would never let go
        )

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]
    ) -> None:
        self._first = self._last = checkpoint["global_step"]

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        super().on_train_start(trainer, module)
        self._begun = time.monotonic()
        if rank() == 0:
            self._rewrite([row for row in self._rows() if int(row["step"]) <= self._first])

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        losses = [outputs["losses"][name] for name in self.columns[3 : -len(EVALUATED)]]
        self._sums += torch.stack([outputs["loss"].detach(), *losses]).float().cpu()
        self._passes += 1
        super().on_train_batch_end(trainer, module, outputs, batch, index)

    def on_step(self, trainer: lightning.Trainer, module: Any) -> None:
        if self.clock.due(trainer):
            self.write(trainer)

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        if self._passes:
            self.write(trainer)

    def write(self, trainer: lightning.Trainer) -> None:
        """Write a row of the losses; every process must call it at the same step."""
        self.clock.begun = time.monotonic()
        if not self._passes:
            return
        device = trainer.strategy.root_device
        mean = mean_over_processes((self._sums / self._passes).to(device)).cpu()
        self._sums.zero_()
        self._passes = 0
        if rank() == 0:
            names = self.columns[2 : -len(EVALUATED)]
            losses = dict(zip(names, mean.tolist(), strict=True))
            self._put(trainer.global_step, losses, "training")

    def add_figures(self, step: int, figures: dict[str, float]) -> None:
        """Add an evaluation's figures to the row of its step; of the first process only."""
        self._put(step, figures, "evaluation")

    def close(self) -> None:
        if "writer" in vars(self):
            self.writer.close()

    def _put(self, step: int, values: dict[str, float], kind: str) -> None:
        """Append a row, or add to the one of the same step."""
        row = {"step": str(step), "epoch": f"{step / self.epoch_steps:.3f}"}
        row |= {name: f"{value:.5f}" for name, value in values.items()}
        try:
            if step > self._last:
                with open(self.path, "a", newline="") as file:
                    csv.DictWriter(file, self.columns, extrasaction="ignore").writerow(row)
                self._last = step
            else:
                rows = {known["step"]: known for known in self._rows()}
                rows[row["step"]] = rows.get(row["step"], {}) | row
                self._rewrite(sorted(rows.values(), key=lambda known: int(known["step"])))
        except OSError as error:
            raise KdcError(f"cannot write '{self.path}': {error.strerror}") from error
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)
        pace = f" | {self._pace(step)}" if kind == "training" else ""
        log.info("%s%s", " ".join(f"{k} {v}" for k, v in row.items()), pace)

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with whole_file(self.path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def _pace(self, step: int) -> str:
        done = step - self._first
        seconds = time.monotonic() - self._begun
        pace = done * self.samples / max(seconds, 1e-9)
        left = (self.steps - step) * seconds / max(done, 1)
        hours, minutes = divmod(round(left / 60), 60)
        return f"{pace:.1f} pictures/s, {hours} h {minutes:02} min left"


class Bar(EachStep):
    """On a terminal: a bar with pictures per second and the time left."""

    def __init__(self, steps: int, samples_per_step: int):
        self.steps, self.samples = steps, samples_per_step

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        from rich.console import Console
        from rich.progress import Progress, TextColumn, TimeRemainingColumn

        super().on_train_start(trainer, module)
        columns = (
            *Progress.get_default_columns()[:3],
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task(
            "train", total=self.steps, rate="", completed=trainer.global_step
        )
        if rank() == 0 and sys.stderr.isatty():
            self.bar.start()

    def on_step(self, trainer: lightning.Trainer, module: Any) -> None:
        speed = self.bar.tasks[0].speed
        rate = f"{speed * self.samples:.1f} pictures/s" if speed else ""
        self.bar.update(self.task, completed=trainer.global_step, rate=rate)

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        self.bar.stop()

    def on_exception(self, trainer: lightning.Trainer, module: Any, error: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()
