"""Callbacks: checkpoints written whole or not at all, and the table of losses."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from kdc_core.files import whole_file

log = logging.getLogger(__name__)


def write_checkpoint(trainer: lightning.Trainer, path: Path) -> None:
    """Save the state of the run; a kill at any moment leaves the old or the new file."""
    with whole_file(path) as part:
        trainer.save_checkpoint(part)


class Checkpoints(Callback):
    """Writes the last state every so many seconds."""

    def __init__(self, path: Path, seconds: float = 60.0):
        self.path, self.seconds = path, seconds
        self._due = time.monotonic() + seconds

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if time.monotonic() >= self._due:
            write_checkpoint(trainer, self.path)
            self._due = time.monotonic() + self.seconds


class Deadline(Callback):
    """Ends the run, whole step by whole step, once it has lasted so many seconds."""

    def __init__(self, seconds: float | None):
        self._end = None if seconds is None else time.monotonic() + seconds

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if self._end is not None and time.monotonic() >= self._end:
            trainer.should_stop = True


class LossTable(Callback):
    """Appends the mean losses since the last row to a CSV file, every so many seconds."""

    def __init__(self, path: Path, epoch_steps: float, seconds: float = 20.0):
        self.path, self.epoch_steps, self.seconds = path, epoch_steps, seconds
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._due = time.monotonic() + seconds

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Drop rows written after the checkpoint this run resumes from."""
        if self.path.exists():
            with open(self.path, newline="") as file:
                rows = [r for r in csv.DictReader(file) if int(r["step"]) <= trainer.global_step]
            _rewrite(self.path, rows)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        losses = {"loss": outputs["loss"], **outputs["losses"]}
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._steps += 1
        if time.monotonic() >= self._due:
            self._write(trainer.global_step)

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        if self._steps:
            self._write(trainer.global_step)

    def _write(self, step: int) -> None:
        row: dict[str, Any] = {"step": step, "epoch": f"{step / self.epoch_steps:.3f}"}
        row |= {name: f"{total / self._steps:.5f}" for name, total in self._sums.items()}
        fresh = not self.path.exists()
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        log.info(" ".join(f"{name} {value}" for name, value in row.items()))
        self._sums, self._steps = {}, 0
        self._due = time.monotonic() + self.seconds


def _rewrite(path: Path, rows: list[dict[str, str]]) -> None:
    if not rows:
        path.unlink()
        return
    with whole_file(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
