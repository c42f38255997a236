"""A training run: a folder that can be stopped and gone on with at any time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, Sampler

import kdc_core
from kdc_core.config import Config, ConfigError, parse_config
from kdc_core.data.datasets import find_data
from kdc_core.files import write_json
from kdc_core.memory import keep_freed_memory
from kdc_core.network.backbones import side_rule
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import save_model, start_from
from kdc_core.training.callbacks import (
    Bar,
    Checkpoints,
    Deadline,
    Metrics,
    write_checkpoint,
)
from kdc_core.training.evaluation import Evaluation
from kdc_core.training.module import TrainingModule
from kdc_core.training.processes import rank, world
from kdc_core.training.samples import TrainingSamples, collate

log = logging.getLogger(__name__)

LOCK_SECONDS = 8.0
PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class FromStep(Sampler[int]):
    """Sample numbers that this process still has to do; each forward pass is shared out."""

    def __init__(self, samples: TrainingSamples):
        train = samples.config.train
        self.total, self.batch = len(samples), train.batch
        self.per_step = train.batch * train.accumulate
        self.step = 0
        if train.batch % world():
            raise ConfigError(
                f"train.batch counts the samples of all processes: expected a multiple of "
                f"{world()}, got {train.batch}"
            )

    def __iter__(self) -> Iterator[int]:
        first = self.step * self.per_step
        return (n for n in range(first, self.total) if n % self.batch % world() == rank())

    def __len__(self) -> int:
        # Lightning counts the batches of the whole run, also when it goes on in the middle.
        return self.total // world()


class _Start(Callback):
    """Tells the sampler the step a run resumes at."""

    def __init__(self, sampler: FromStep):
        self.sampler = sampler

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        self.sampler.step = checkpoint["global_step"]


def train(
    config: Config,
    data: list[str],
    output: str | Path,
    start: str | None = None,
    val: str | None = None,
    max_seconds: float | None = None,
) -> Path:
    """Train, or go on training, until the configured steps or the time limit are reached.

    Under torchrun every process calls it alike; they share each batch.

    Args:
        config: what to train and how.
        data: data sets, as for `find_data`.
        output: folder of the run; docs/training.md lists its files.
        start: weights to start from: a KDC model or the backbone's published weights; None
            leaves them at random.
        val: data set to evaluate on.
        max_seconds: limit for this call; reaching it is no error.

    Returns:
        The written `model.safetensors` (average of the weights).

    Raises:
        ConfigError: the folder holds another run, or is in use.
        AnnotationError, ImageError, ModelFileError: an input cannot be used.
        TrainingError: loss, gradient or weights are no numbers any more.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_run(folder), _processes():
        return _train(config, data, folder, start, val, max_seconds)


def _train(
    config: Config,
    data: list[str],
    folder: Path,
    start: str | None,
    val: str | None,
    max_seconds: float | None,
) -> Path:
    deadline = Deadline(max_seconds)
    if start is None and "posenet" not in config.train.train:
        raise ConfigError(
            f"'{config.name}' trains {config.train.train} over a PoseNet that stays as it is: "
            "give --start, for without it PoseNet is random"
        )
    lightning.seed_everything(config.train.seed, verbose=False)
    multiple, rest = side_rule(config)
    if (config.train.crop - rest) % multiple:
        raise ConfigError(
            f"train.crop: {config.network.backbone} takes sides of {multiple} n + {rest}, got "
            f"{config.train.crop}"
        )
    samples = TrainingSamples(data, config)
    names = [Path(path).name for path in data]
    inputs = {
        "start": Path(start).name if start else None,
        "data": names,
        "pictures": samples.pictures,
    }
    _check_same(config, inputs, folder)
    network = start_from(config, start) if start else KDC(config)
    if start is None:
        log.warning("no --start and no shipped weights: training from random weights")
    module = TrainingModule(network, samples.steps, samples.names)
    made = {**inputs, "versions": _versions()}

    sampler = FromStep(samples)
    loader: Any = DataLoader(
        samples,
        config.train.batch // world(),
        sampler=sampler,
        collate_fn=collate,
        num_workers=config.train.workers,
        worker_init_fn=one_thread,
        persistent_workers=config.train.workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    if val is not None and find_data(val, "val") in [find_data(path, "train") for path in data]:
        log.warning("--val is among --data: its figures say what was learnt by heart")
    metrics = Metrics(
        folder, _loss_names(config), samples.steps, samples.epoch_steps, sampler.per_step
    )
    last = folder / "last.ckpt"
    if last.exists() and not is_zipfile(last):
        raise ConfigError(
            f"'{last}' is damaged: delete it and start anew, from "
            f"'{folder / 'model.safetensors'}' if that is there"
        )
    evaluations = []
    if val is not None:
        every, skeleton = config.train.evaluate_every, samples.skeleton
        evaluations = [Evaluation(val, every, folder, metrics, deadline, made, skeleton)]
    callbacks: list[Callback] = [
        _Start(sampler),
        metrics,
        *evaluations,
        Checkpoints(last),
        Bar(samples.steps, sampler.per_step),
        deadline,
    ]
    trainer = lightning.Trainer(
        accelerator="auto",
        max_steps=samples.steps,
        gradient_clip_val=config.train.clip,
        accumulate_grad_batches=config.train.accumulate,
        precision=PRECISIONS[config.train.precision],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        callbacks=callbacks,
        **_devices(config),
    )
    if rank() == 0:
        write_json(folder / "config.json", config.model_dump(mode="json"))
        write_json(folder / "inputs.json", inputs)
    keep_freed_memory(2000)
    begun = time.monotonic()
    # The checkpoint is this run's own; weights from elsewhere come in through `start` only.
    resume = last if last.exists() else None
    model = folder / "model.safetensors"
    try:
        trainer.fit(module, loader, ckpt_path=resume, weights_only=False)
        write_checkpoint(trainer, module, last)
        if rank() == 0:
            seconds = _add_seconds(folder, time.monotonic() - begun)
            now = {"steps": trainer.global_step, "seconds": round(seconds)}
            save_model(module.average, model, {**made, **now})
            log.info("step %d of %d; wrote %s", trainer.global_step, samples.steps, model)
        for evaluation in evaluations:
            if trainer.global_step >= samples.steps:
                evaluation.finish(trainer)
            for step in evaluation.waiting if rank() == 0 else []:
                log.info("the evaluation of step %d goes on with the next call", step)
    finally:
        metrics.close()
    return model


def _check_same(config: Config, inputs: dict[str, Any], folder: Path) -> None:
    """Raise ConfigError if the folder holds a run of another kind."""
    settings, made_from = folder / "config.json", folder / "inputs.json"
    if settings.exists():
        known = parse_config(settings.read_text(), settings)
        if not _same_run(config, known):
            raise ConfigError(
                f"'{folder}' holds a run with another configuration ('{settings}', which differs "
                f"in {_differences(config, known)}): give the same preset and settings to go on, "
                "or another folder to start anew"
            )
    if made_from.exists() and json.loads(made_from.read_text()) != inputs:
        raise ConfigError(
            f"'{folder}' holds a run from other weights or data ('{made_from}'), not from "
            f"{inputs}: give the same to go on, or another folder to start anew"
        )


def _differences(one: Config, other: Config) -> str:
    """The settings that matter to training and in which two configurations differ."""
    a, b = one.model_dump(), other.model_dump()
    decode = ("sigma_scale", "sigma_min_px")
    keys = [(s, key) for s in ("fields", "network", "train") for key in a[s]]
    keys += [("decode", key) for key in decode]
    names = [f"{s}.{key}" for s, key in keys if a[s][key] != b[s][key]]
    return ", ".join(names + (["name"] if one.name != other.name else []))


def _loss_names(config: Config) -> list[str]:
    """The losses of a run, in the order of the table's columns."""
    pose = ["heat", "short", "mid"] if "posenet" in config.train.train else []
    segnet = "segnet" in config.train.train
    return pose + (["mask", "dice", "embedding", "instance"] if segnet else [])


def _versions() -> dict[str, str]:
    return {
        "kdc": kdc_core.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _devices(config: Config) -> dict[str, Any]:
    """One device, or under torchrun one for each of its processes on each of its nodes."""
    if world() == 1:
        return {"devices": 1}
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    # Batch statistics are shared by WholeBatchNorm, so buffers need no broadcast.
    # PoseNet alone leaves what it gives SegNet without a gradient.
    unused = "segnet" not in config.train.train
    strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=unused)
    return {"devices": local, "num_nodes": world() // local, "strategy": strategy}


@contextmanager
def _processes() -> Iterator[None]:
    """Join the other processes of a torchrun, if this is one of several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _same_run(one: Config, other: Config) -> bool:
    """Whether two configurations train alike; of decode only the instance loss's sigma matters."""
    return not _differences(one, other)


def _add_seconds(folder: Path, seconds: float) -> float:
    """Training time of all calls so far."""
    path = folder / "seconds.json"
    total = seconds + (json.loads(path.read_text()) if path.exists() else 0.0)
    write_json(path, total)
    return total


def one_thread(worker: int) -> None:
    """Keep a loader process to one thread: the cores belong to training."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; of a torchrun the first process holds the lock."""
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    # The loader processes of a run that was killed hold its lock for a few seconds more.
    until = time.monotonic() + LOCK_SECONDS
    with open(folder / "lock", "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise ConfigError(f"another run is training in '{folder}'") from error
                time.sleep(0.2)
        yield
