"""`kdc bench data`: how fast training samples are made, and whether training waits for them."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from kdc_core.bench.frames import SAMPLES
from kdc_core.codec.codec import Codec
from kdc_core.codec.encode import encode
from kdc_core.codec.encode_batch import encode_batch
from kdc_core.codec.grid import Grid
from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import Config, DecodeConfig
from kdc_core.config_file import load_preset
from kdc_core.data.augment import warp
from kdc_core.data.datasets import open_data
from kdc_core.data.sample import make_sample
from kdc_core.errors import KdcError
from kdc_core.memory import keep_freed_memory
from kdc_core.network.kdc import KDC
from kdc_core.training.module import TrainingModule
from kdc_core.training.on_device import DeviceImages, DrawnSamples
from kdc_core.training.processes import one_thread
from kdc_core.training.samples import TrainingSamples, collate

CROP, SIDE, PEOPLE = 416, 401, 5
BATCH = 8
WORKERS = 1  # beside the training process


def bench_data(data: str | None, seconds: float) -> dict[str, float]:
    """Time samples, targets, and the wait for samples in training.

    Args:
        data: data set, as for `find_data`; None = the package's sample images.
        seconds: for each of the three.

    Returns:
        samples_per_second_per_core: 416 x 416 crops of real images, augmented, with all
        targets at stride 4 and both edge sets, in one thread. targets_ms: targets alone of
        5 people at 401 x 401, median. batch_targets_ms: targets of one of BATCH samples, drawn by
        torch at once as on a GPU, and batch_targets_over_targets: over numpy's of the same
        samples. loader_share: fraction of a training step of `kdc_light`
        spent waiting for samples that WORKERS processes make. step_ms: that step, median.
    """
    path = data or str(SAMPLES)
    changes = [f"train.crop={CROP}", "fields.edges=[tree, star]", "train.paste=0.3"]
    samples = TrainingSamples([path], load_preset("kdc_light", changes))
    old_threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    keep_freed_memory(2000)  # as training does
    samples[0]
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        samples[count % len(samples)]
        count += 1
    speed = count / (time.perf_counter() - begun)

    sample = _five_people(path)
    codec = Codec(COCO17, Grid(4, 1.5), ("tree", "star"), 32.0, DecodeConfig())
    times = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        encode(sample, codec)
        times.append(1e3 * (time.perf_counter() - start))
    torch_times = _batch_targets(samples, seconds)
    cv2.setNumThreads(old_threads)
    waiting, step = _loader_wait(path, load_preset("kdc_light"), seconds)
    return {
        "samples_per_second_per_core": round(speed, 2),
        "targets_ms": round(float(np.median(times)), 3),
        **torch_times,
        "loader_share": round(waiting, 4),
        "step_ms": round(step, 1),
    }


def _batch_targets(samples: TrainingSamples, seconds: float) -> dict[str, float]:
    """Targets of a batch by torch, per sample, and over those of its samples by numpy."""
    images = DeviceImages(samples, torch.device("cpu"), 1)
    drawn = DrawnSamples(samples, images.places)
    recipes = collate([drawn[number] for number in range(BATCH)])
    made = images.samples(recipes)
    by_hand = [samples.sample(number) for number in range(BATCH)]
    times: list[tuple[float, float]] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or not times:
        start = time.perf_counter()
        encode_batch(made, samples.codec)
        middle = time.perf_counter()
        for sample in by_hand:
            encode(sample, samples.codec)
        times.append((middle - start, time.perf_counter() - middle))
    ours, numpys = np.median(times, 0)
    return {
        "batch_targets_ms": round(1e3 * float(ours) / BATCH, 3),
        "batch_targets_over_targets": round(float(ours / numpys), 3),
    }


def _five_people(path: str) -> Sample:
    """PEOPLE persons with keypoints of the first image that has so many, at SIDE x SIDE."""
    annotations, images = open_data(path, "train", COCO17)
    for annotated in annotations.images:
        chosen = [person for person in annotated.people if person.labelled.sum() >= 5][:PEOPLE]
        if len(chosen) == PEOPLE:
            crowd = [person for person in annotated.annotations if person.crowd]
            few = replace(annotated, annotations=(*chosen, *crowd))
            sample = make_sample(images.read(annotated.file_name), few, COCO17.num_keypoints)
            scale = (SIDE - 1) / (max(annotated.size) - 1)
            return warp(sample, np.array([[scale, 0, 0], [0, scale, 0]]), (SIDE, SIDE), None)
    raise KdcError(f"no image of '{path}' has {PEOPLE} persons with 5 keypoints or more")


def _loader_wait(path: str, config: Config, seconds: float) -> tuple[float, float]:
    """Fraction of the time waited for samples, and the median step in ms."""
    samples = TrainingSamples([path], config)
    module = TrainingModule(KDC(config), samples.steps, samples.names)
    module.on_train_start()
    optimizer = module.configure_optimizers()[0][0]
    loader = DataLoader(
        samples,
        config.train.batch,
        collate_fn=collate,
        num_workers=WORKERS,
        worker_init_fn=one_thread,
    )
    waited: list[float] = []
    steps: list[float] = []
    batches = iter(loader)
    next(batches)  # the first waits for the workers to start
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(steps) < 3:
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        optimizer.zero_grad()
        module.training_step(batch, 0)["loss"].backward()
        optimizer.step()
        steps.append(time.perf_counter() - start)
        waited.append(ready - start)
    return sum(waited) / sum(steps), 1e3 * float(np.median(steps))
