"""A training run: a folder that can be stopped and gone on with at any time."""

from __future__ import annotations

import fcntl
import json
import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, Sampler

import kdc_core
from kdc_core.config import Config, ConfigError, parse_config
from kdc_core.data.loader import TrainingSamples, collate
from kdc_core.files import write_json
from kdc_core.memory import keep_freed_memory
from kdc_core.network.weights import save_model, start_from
from kdc_core.training.callbacks import Checkpoints, Deadline, LossTable, write_checkpoint
from kdc_core.training.module import TrainingModule

log = logging.getLogger(__name__)


class FromStep(Sampler[int]):
    """Sample numbers of the steps that are still to do."""

    def __init__(self, total: int, batch: int):
        self.total, self.batch, self.step = total, batch, 0

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.step * self.batch, self.total))

    def __len__(self) -> int:
        # Lightning counts the batches of the whole run, also when it goes on in the middle.
        return self.total


class _Start(Callback):
    """Tells the sampler the step a run resumes at."""

    def __init__(self, sampler: FromStep):
        self.sampler = sampler

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        self.sampler.step = checkpoint["global_step"]


def train(
    config: Config,
    data: list[str],
    start: str,
    output: str | Path,
    max_seconds: float | None = None,
) -> Path:
    """Train, or go on training, until the configured steps or the time limit are reached.

    Args:
        config: what to train and how.
        data: annotation files, each with its pictures beside it.
        start: weights to start from: a KDC model or MoveNet's published weights.
        output: folder of the run: `last.ckpt`, `losses.csv`, `model.safetensors`.
        max_seconds: limit for this call; reaching it is no error.

    Returns:
        The written `model.safetensors` (average of the weights).

    Raises:
        ConfigError: the folder holds a run with another configuration, or is in use.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_run(folder):
        return _train(config, data, start, folder, max_seconds)


def _train(
    config: Config, data: list[str], start: str, folder: Path, max_seconds: float | None
) -> Path:
    settings = folder / "config.json"
    if settings.exists() and not _same_run(config, parse_config(settings.read_text(), settings)):
        raise ConfigError(
            f"'{folder}' holds a run with another configuration ('{settings}'): "
            "give the same preset and settings to go on, or another folder to start anew"
        )
    inputs = {"start": Path(start).name, "data": [Path(path).name for path in data]}
    made_from = folder / "inputs.json"
    if made_from.exists() and json.loads(made_from.read_text()) != inputs:
        raise ConfigError(
            f"'{folder}' holds a run from other weights or data ('{made_from}'), not from "
            f"{inputs}: give the same to go on, or another folder to start anew"
        )
    samples = TrainingSamples(data, config)
    module = TrainingModule(start_from(config, start))
    write_json(settings, config.model_dump(mode="json"))
    write_json(made_from, inputs)
    lightning.seed_everything(config.train.seed, verbose=False)

    batch = config.train.batch
    sampler = FromStep(len(samples), batch)
    loader: Any = DataLoader(
        samples, batch, sampler=sampler, collate_fn=collate, num_workers=config.train.workers,
        worker_init_fn=_one_thread, persistent_workers=config.train.workers > 0,
    )  # fmt: skip
    last = folder / "last.ckpt"
    trainer = lightning.Trainer(
        accelerator="auto", devices=1, max_steps=config.train.steps,
        gradient_clip_val=config.train.clip, logger=False, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=sys.stderr.isatty(),
        callbacks=[
            _Start(sampler),
            LossTable(folder / "losses.csv", samples.pictures / batch),
            Checkpoints(last),
            Deadline(max_seconds),
        ],
    )  # fmt: skip
    keep_freed_memory(2000)
    begun = time.monotonic()
    # The checkpoint is this run's own; weights from elsewhere come in through `start` only.
    trainer.fit(module, loader, ckpt_path=last if last.exists() else None, weights_only=False)
    write_checkpoint(trainer, last)
    seconds = _add_seconds(folder, time.monotonic() - begun)
    model = folder / "model.safetensors"
    save_model(module.average, model, {
        **inputs,
        "pictures": samples.pictures,
        "steps": trainer.global_step,
        "seconds": round(seconds),
        "versions": {"kdc": kdc_core.__version__, "torch": torch.__version__,
                     "python": platform.python_version()},
    })  # fmt: skip
    log.info("step %d of %d; wrote %s", trainer.global_step, config.train.steps, model)
    return model


def _same_run(one: Config, other: Config) -> bool:
    """Whether two configurations train alike; settings of decode and predict do not matter."""
    return all(
        getattr(one, s) == getattr(other, s) for s in ("name", "fields", "network", "train")
    )


def _add_seconds(folder: Path, seconds: float) -> float:
    """Training time of all calls so far."""
    path = folder / "seconds.json"
    total = seconds + (json.loads(path.read_text()) if path.exists() else 0.0)
    write_json(path, total)
    return total


def _one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another run is training in '{folder}'") from error
        yield
