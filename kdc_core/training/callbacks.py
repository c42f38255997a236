"""What happens after the steps of a run: rows, checkpoints, its end."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO

from kdc_core.errors import Work
from kdc_core.files import whole_file
from kdc_core.stopping import Stop, Stopped, take_signals
from kdc_core.training.metrics import Metrics

CHECKPOINT_SECONDS = 60.0


class Steps(Callback):
    """After a whole step: a row and a checkpoint when it is time, and the end of the run.

    An evaluation comes between its step and a checkpoint of it, which ModelCheckpoint would write
    first: a run that is killed or stopped while it evaluates goes on from the step before, of
    which there is a checkpoint, and comes to the evaluation again. Lightning's Timer counts the
    time of all calls together, and stops between the passes of a step.

    Args:
        checkpoint: the file.
        metrics: takes the losses.
        end: `time.monotonic()` after which the run stops.
        stop: asks for the end after the step, or in the midst of an evaluation.
    """

    def __init__(self, checkpoint: Path, metrics: Metrics, end: float, stop: Stop):
        self.checkpoint, self.metrics, self.end, self.stop = checkpoint, metrics, end, stop
        self._saved = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        # Lightning has taken SIGTERM by now: it would end without a checkpoint, and with 0.
        take_signals()
        Work.begun = True
        self.metrics.begin()

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.metrics.add(outputs["losses"])
        if (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step, now = trainer.global_step, time.monotonic()
        saved_long_ago = now - self._saved >= CHECKPOINT_SECONDS
        stop = step >= module.steps or now >= self.end
        # All processes go by the clock of the first; a signal may come to any.
        row, save, stop = trainer.strategy.broadcast((self.metrics.due(), saved_long_ago, stop))
        signalled = self.stop.signal is not None
        stop |= trainer.strategy.reduce_boolean_decision(signalled, all=False)
        trainer.should_stop = stop
        if _evaluates(trainer, module, step):
            return
        save |= _evaluates(trainer, module, step + 1)
        if stop:
            trainer.limit_val_batches = 0  # else Lightning evaluates wherever it is told to stop
        if row or stop:
            self.metrics.write(step)
        if save or stop:
            self._save(trainer)

    def on_validation_batch_end(self, *_: Any) -> None:
        if self.stop.signal is not None:
            raise Stopped(self.stop.signal)

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        out_of_time = trainer.strategy.broadcast(time.monotonic() >= self.end)
        trainer.should_stop = trainer.should_stop or out_of_time
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint)
        self._saved = time.monotonic()


def _evaluates(trainer: Trainer, module: Any, step: int) -> bool:
    """Whether an evaluation comes after a step."""
    due = step >= module.steps or step % module.config.train.evaluate_every == 0
    return trainer.enable_validation and due


class Bar(RichProgressBar):
    """Lightning's bar on stderr; it would call the whole run `Epoch 0/-2`."""

    def __init__(self) -> None:
        super().__init__(console_kwargs={"stderr": True})

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all.

    Lightning moves a file from /tmp and does not wait for the disk: after a kill or a power cut
    there may be half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()  # of a full disk torch.save would not say so
        torch.save(checkpoint, content)
        with whole_file(path) as part:
            part.write_bytes(content.getbuffer())
