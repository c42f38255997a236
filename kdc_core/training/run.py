"""A training run: a folder that can be stopped and gone on with at any time."""

from __future__ import annotations

import logging
import math
import os
import platform
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, Dataset

import kdc_core
from kdc_core.config import Config, ConfigError
from kdc_core.data.annotations import AnnotationError
from kdc_core.data.datasets import find_data
from kdc_core.files import crc32_of, read_json, write_json
from kdc_core.memory import keep_freed_memory
from kdc_core.network.backbones import check_structure, side_rule
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import save_model, start_from
from kdc_core.stopping import Stopped, stop_by_signal
from kdc_core.training.callbacks import Bar, Steps, WholeFiles
from kdc_core.training.evaluation import Evaluation
from kdc_core.training.folder import (
    LOCK_SECONDS,
    check_nothing_lost,
    check_same_run,
    only_run,
    step_of,
)
from kdc_core.training.metrics import Metrics
from kdc_core.training.module import TrainingModule, young_average
from kdc_core.training.on_device import (
    DeviceImages,
    DrawnSamples,
    fits,
)
from kdc_core.training.processes import one_thread, rank, world
from kdc_core.training.samples import FromStep, TrainingSamples, collate

log = logging.getLogger(__name__)

PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def train(
    config: Config,
    data: list[str],
    output: str | Path,
    start: str | None = None,
    val: str | None = None,
    max_seconds: float | None = None,
    lock_seconds: float = LOCK_SECONDS,
    images: Sequence[str] | None = None,
    val_images: str | None = None,
    category: str | None = None,
    device: str = "auto",
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
        max_seconds: limit for this call, overrun by one evaluation at most; reaching it is no
            error.
        lock_seconds: how long to wait for another run in the folder to end.
        images: folder or tar of the images of each data set; None = where the layouts have them.
        val_images: the same of `val`.
        category: as for `read_annotations`, of all data sets.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The written `model.safetensors` (average of the weights).

    Raises:
        ConfigError: the folder holds another run, or is in use; or there is no such device.
        AnnotationError, ImageError, ModelFileError: an input cannot be used.
        TrainingError: loss, gradient or weights are no numbers any more.
        Stopped: by a signal; checkpoint and model are written after the step under way, or are
            those of the step before an evaluation under way. A second signal ends the process at
            once.
    """
    end = time.monotonic() + (math.inf if max_seconds is None else max_seconds)
    accelerator = _accelerator(device)
    _check_config(config, start, accelerator)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with only_run(folder, lock_seconds):
        sets = _Data(data, images, val, val_images, category)
        return _train(config, sets, folder, start, end, accelerator)


class _Data(NamedTuple):
    """The arguments of `train` that say what is learnt from and evaluated on."""

    paths: list[str]
    images: Sequence[str] | None
    val: str | None
    val_images: str | None
    category: str | None

    @property
    def files(self) -> list[Path]:
        """The annotations that are learnt from."""
        places: Sequence[str | None] = self.images or [None] * len(self.paths)
        sets = zip(self.paths, places, strict=True)
        return [find_data(path, "train", images)[0] for path, images in sets]


def _accelerator(device: str) -> Literal["cpu", "cuda"]:
    there = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: expected auto, cpu or cuda, got '{device}'")
    if device == "cuda" and not there:
        raise ConfigError("device cuda: this torch finds no GPU; `kdc doctor` says what is there")
    return "cuda" if there and device != "cpu" else "cpu"


def _train(
    config: Config,
    data: _Data,
    folder: Path,
    start: str | None,
    end: float,
    accelerator: Literal["cpu", "cuda"],
) -> Path:
    lightning.seed_everything(config.train.seed, verbose=False)
    samples = TrainingSamples(data.paths, config, data.images, data.category)
    inputs = _describe_inputs(data, start, samples)
    check_same_run(config, inputs, folder)
    check_nothing_lost(folder)
    versions = {"kdc": kdc_core.__version__, "torch": torch.__version__}
    made = {**inputs, "versions": {**versions, "python": platform.python_version()}}
    first_step = step_of(folder / "last.ckpt")
    if config.train.warmup_steps >= samples.steps:
        log.warning(
            "train.warmup_steps %d: the run of %d steps ends before its learning rate has risen",
            config.train.warmup_steps,
            samples.steps,
        )
    model, settings = folder / "model.safetensors", config.model_dump(mode="json")
    written = model.exists() and read_json(folder / "config.json", {}) == settings
    if first_step >= samples.steps and written:
        log.info(
            "complete at step %d: to go on, start another folder from '%s'", first_step, model
        )
        return model
    network = start_from(config, start) if start else KDC(config)
    module = TrainingModule(network, samples.steps, samples.names)
    metrics = Metrics(folder, samples, first_step)
    evaluation = None
    if data.val is not None:
        if find_data(data.val, "val", data.val_images)[0] in data.files:
            log.warning("--val is among --data: its figures do not show overfitting")
        evaluation = Evaluation(
            data.val,
            samples.codec.skeleton,
            folder,
            metrics,
            made,
            data.val_images,
            data.category,
        )
    if rank() == 0:
        write_json(folder / "config.json", settings)
        write_json(folder / "inputs.json", inputs)
    keep_freed_memory(2000)
    begun = time.monotonic()
    # torchrun passes on a signal that the terminal has sent already, and kills after a while.
    with stop_by_signal(twice=world() == 1) as stop:
        steps = Steps(folder / "last.ckpt", metrics, end, stop)
        try:
            _fit(module, samples, first_step, steps, evaluation, accelerator)
        except SystemExit:
            if stop.signal is None:
                raise
        except AnnotationError:
            samples.check_sizes()  # says it without what the process that read adds
            raise
        finally:
            metrics.close()
        if count := int(samples.left_out.count_nonzero()):
            log.warning("left out of training: %d of %d images", count, samples.num_images)
        if rank() == 0:
            _write_model(module, samples.steps, folder, made, time.monotonic() - begun)
    if stop.signal is not None:
        log.info("stopped by %s", signal.Signals(stop.signal).name)
        raise Stopped(stop.signal)
    return model


def _describe_inputs(data: _Data, start: str | None, samples: TrainingSamples) -> dict[str, Any]:
    """What a run is made from, by which it is known again."""
    inputs = {
        "start": Path(start).name if start else None,
        "start_crc32": crc32_of(start) if start else None,
        "data": [Path(path).name for path in data.paths],
        "data_crc32": [crc32_of(file) for file in data.files],
        "pictures": samples.num_images,
    }
    if data.category is not None:
        inputs["category"] = data.category
    return inputs


def _fit(
    module: TrainingModule,
    samples: TrainingSamples,
    first_step: int,
    steps: Steps,
    evaluation: Evaluation | None,
    accelerator: Literal["cpu", "cuda"],
) -> None:
    """Make the steps that are left, from step `first_step` on."""
    settings = module.config.train
    # Lightning would leave the average on the CPU.
    device = "cuda" if accelerator == "cuda" else None
    average = WeightAveraging(device, multi_avg_fn=young_average(settings.ema))
    callbacks: list[Callback] = [average, steps]
    images = None
    if evaluation is not None:
        callbacks.insert(0, evaluation)
        images = evaluation.loader(settings.workers)
    if rank() == 0 and sys.stderr.isatty():
        callbacks.append(Bar())
    trainer = lightning.Trainer(
        max_steps=samples.steps,
        gradient_clip_val=settings.clip,
        accumulate_grad_batches=settings.accumulate,
        val_check_interval=settings.evaluate_every * settings.accumulate,
        check_val_every_n_epoch=None,  # from the beginning of the run on
        num_sanity_val_steps=0,
        precision=PRECISIONS[settings.precision],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=isinstance(callbacks[-1], Bar),
        use_distributed_sampler=False,
        plugins=[WholeFiles()],
        callbacks=callbacks,
        accelerator=accelerator,
        **_processes(module.config),
    )
    drawn = _on_device(module, samples) if accelerator == "cuda" else None
    loader = _loader(samples, first_step, drawn, pinned=accelerator == "cuda")
    resume = steps.checkpoint if first_step else None
    with warnings.catch_warnings():
        # That resuming in mid-epoch sees other samples, and the like: hints for other data.
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", module=r"lightning\.pytorch\.utilities\._pytree")
        trainer.fit(module, loader, images, ckpt_path=resume, weights_only=True)


def _write_model(
    module: TrainingModule, steps: int, folder: Path, made: dict[str, Any], seconds: float
) -> None:
    """Write the average of the weights of the last checkpoint, where there is one."""
    last, known, model = (folder / n for n in ("last.ckpt", "seconds.json", "model.safetensors"))
    if not last.exists():
        return
    # WeightAveraging has written the average as the state of the module.
    state = torch.load(last, weights_only=True, map_location="cpu")
    module.load_state_dict(state["state_dict"])
    step = state["global_step"]
    seconds += read_json(known, 0.0)
    write_json(known, seconds)
    save_model(module.network, model, {**made, "steps": step, "seconds": round(seconds)})
    log.info("step %d of %d; wrote %s", step, steps, model)


def _check_config(config: Config, start: str | None, accelerator: str) -> None:
    """Raise ConfigError where the settings cannot be trained with."""
    check_structure(config)
    parts = config.train.train
    if len(set(parts)) < len(parts):
        raise ConfigError(f"train.train: expected each part once, got {parts}")
    if config.train.precision == "16" and accelerator == "cpu":
        raise ConfigError("train.precision: 16 needs a GPU: expected 32 or bf16 on the CPU")
    if start is None and "posenet" not in config.train.train:
        raise ConfigError(
            f"'{config.name}' trains {config.train.train} over a PoseNet that stays as it is: "
            "give --start, for without it PoseNet is random"
        )
    if start is None:
        log.warning("no --start and no shipped weights: training from random weights")
    sides = side_rule(config)
    if not sides.fits(config.train.crop):
        raise ConfigError(
            f"train.crop: {config.network.backbone} takes sides of {sides}, got "
            f"{config.train.crop}"
        )


def _on_device(module: TrainingModule, samples: TrainingSamples) -> DrawnSamples | None:
    """Put the images on this process's GPU, if they fit; samples are then made there."""
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if not fits(samples, device):
        log.info("the images do not fit the memory of %s: loader processes make samples", device)
        return None
    images = DeviceImages(samples, device, os.cpu_count() or 1)
    module.make = lambda recipes: images.make(recipes)
    return DrawnSamples(samples, images.places)


def _loader(
    samples: TrainingSamples, first_step: int, drawn: DrawnSamples | None, pinned: bool
) -> DataLoader[Any]:
    """Batches of this process from step `first_step` on, or what is drawn for them."""
    train = samples.config.train
    data: Dataset[Any] = samples if drawn is None else drawn
    return DataLoader(
        data,
        train.batch // world(),
        sampler=FromStep(samples, first_step),
        num_workers=train.workers,
        collate_fn=collate,
        pin_memory=pinned,
        worker_init_fn=one_thread,
        persistent_workers=train.workers > 0,
    )


def _processes(config: Config) -> dict[str, Any]:
    """One device, or under torchrun one for each of its processes on each of its nodes."""
    if world() == 1:
        return {"devices": 1}
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    # Batch statistics are shared by WholeBatchNorm, so buffers need no broadcast.
    # PoseNet alone leaves what it gives SegNet without a gradient.
    unused = "segnet" not in config.train.train
    strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=unused)
    return {"devices": local, "num_nodes": world() // local, "strategy": strategy}
