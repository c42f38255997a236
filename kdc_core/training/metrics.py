"""The table of metrics of a run, and its curves."""

from __future__ import annotations

import csv
import logging
import re
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import COMMON_FIGURES, CROWD_FIGURES, FIGURES
from kdc_core.files import whole_file
from kdc_core.training.processes import mean_over_processes, rank
from kdc_core.training.samples import TrainingSamples

log = logging.getLogger(__name__)

ROW_SECONDS = 10.0
WHOLE_ROW = re.compile(rb"\d+,.*\n")
EVALUATED = (*FIGURES, *CROWD_FIGURES, *COMMON_FIGURES)


class Metrics:
    """Appends rows to `metrics.csv`: mean losses since the last row, figures of evaluations.

    The same values go to TensorBoard, and with images per second and the time left to the log.
    Lightning's CSVLogger deletes the table of an earlier call.

    Args:
        folder: of the run.
        samples: of the run.
        first: step of the checkpoint the run goes on from; rows past it are cut.

    Attributes:
        writer: TensorBoard's; of the first process, while it trains.
    """

    writer: SummaryWriter

    def __init__(self, folder: Path, samples: TrainingSamples, first: int):
        self.path, self.samples, self.first = folder / "metrics.csv", samples, first
        self._sums: dict[str, Tensor] = {}
        self._passes = 0

    def begin(self) -> None:
        """Cut the table, open TensorBoard's file, and start the clock."""
        self._begun = self._written = time.monotonic()
        if rank() > 0:
            return
        if self.path.exists():
            lines = self.path.read_bytes().splitlines(keepends=True)
            # Where power or the disk failed the last row may be cut, or nothing but zeros.
            rows = [row for row in lines[1:] if WHOLE_ROW.match(row)]
            kept = [row for row in rows if int(row.split(b",")[0]) <= self.first]
            with whole_file(self.path) as part:
                part.write_bytes(b"".join(lines[:1] + kept))
        self.writer = SummaryWriter(
            self.path.with_name("tensorboard"),
            purge_step=self.first + 1,
            flush_secs=max(1, round(ROW_SECONDS)),  # 0 would never let go
        )

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of a forward pass."""
        self._sums = {name: self._sums.get(name, 0) + value for name, value in losses.items()}
        self._passes += 1

    def due(self) -> bool:
        """Whether the last row is old."""
        return time.monotonic() - self._written >= ROW_SECONDS

    def write(self, step: int, figures: dict[str, float] | None = None) -> None:
        """Write a row; every process must call it at the same step, the first with figures."""
        if not self._passes:
            return
        means = mean_over_processes(torch.stack(list(self._sums.values())) / self._passes)
        losses = dict(zip(self._sums, means.tolist(), strict=True))
        self._sums, self._passes, self._written = {}, 0, time.monotonic()
        if rank() > 0:
            return
        for group, values in (("training", losses), ("evaluation", figures or {})):
            for name, value in values.items():
                self.writer.add_scalar(f"{group}/{name}", value, step)
        row = {"step": str(step), "epoch": f"{step / self.samples.epoch_steps:.3f}"}
        row |= {name: f"{value:.5f}" for name, value in (losses | (figures or {})).items()}
        columns = ("step", "epoch", *losses, *EVALUATED)
        try:
            with open(self.path, "a", newline="") as file:
                table = csv.DictWriter(file, columns, extrasaction="ignore")
                if not file.tell():
                    table.writeheader()
                table.writerow(row)
        except OSError as error:
            raise KdcError(f"cannot write '{self.path}': {error.strerror}") from error
        log.info("%s | %s", " ".join(f"{k} {v}" for k, v in row.items()), self._speed(step))

    def _speed(self, step: int) -> str:
        per_step = (time.monotonic() - self._begun) / max(step - self.first, 1)
        train = self.samples.config.train
        hours, minutes = divmod(round((self.samples.steps - step) * per_step / 60), 60)
        speed = train.batch * train.accumulate / per_step
        return f"{speed:.1f} images/s, {hours} h {minutes:02} min left"

    def close(self) -> None:
        """Write TensorBoard's last values."""
        if "writer" in vars(self):
            self.writer.close()
