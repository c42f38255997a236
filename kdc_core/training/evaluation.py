"""Evaluation while training: scores on --val, overlays, the best model so far."""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotatedImage, read_json
from kdc_core.data.datasets import find_data
from kdc_core.data.images import ImageError, Images
from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import coco_results, complete, score_by_protocol
from kdc_core.evaluation.run import read_truth
from kdc_core.files import write_json
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.torch import TorchRuntime
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import load_model, save_model
from kdc_core.show.drawing import draw_people
from kdc_core.training.callbacks import Deadline, EachStep, Metrics, write_checkpoint
from kdc_core.training.processes import gather, rank, world

log = logging.getLogger(__name__)

# Time for pictures of --val after a step, the second while more than one evaluation waits:
# rows and the time limit wait no longer for them. Scoring is not divided.
SLICE_SECONDS = 5.0
LONG_SLICE_SECONDS = 15.0
# Pictures of --val drawn for TensorBoard at each evaluation.
OVERLAYS = 4


@dataclass
class _Current:
    """The evaluation under way, of one process."""

    network: KDC
    predictor: Predictor
    left: list[AnnotatedImage]
    known: list[dict[str, Any]]  # COCO results of earlier calls; of the first process
    results: list[dict[str, Any]]  # and of this call


class Evaluation(EachStep):
    """Scores the averaged network on a data set, and keeps the best in `best.safetensors`.

    At its step the average is written to `evaluating-STEP.safetensors`; its pictures are predicted
    between the steps that follow, so that a long evaluation holds up neither rows nor time limit.
    Results are kept beside it as they come: a stopped evaluation goes on with the run. Evaluations
    that are due meanwhile wait. Every process predicts its share of the pictures, each once.

    Comes after Metrics, so that the step's losses are in its row.
    """

    def __init__(
        self,
        path: str,
        every: int,
        folder: Path,
        metrics: Metrics,
        deadline: Deadline,
        made: dict[str, Any],
        skeleton: Skeleton,
    ):
        annotations, images = find_data(path, "val")
        self.pictures = read_truth(annotations, skeleton)
        self.truth, self.source = complete(read_json(annotations)), Images(images)
        self.every, self.metrics, self.deadline, self.made = every, metrics, deadline, made
        self.skeleton, self.annotations, self.folder = skeleton, annotations, folder
        # Results of other pictures, or of other annotations of them, are of no use.
        self.val = f"{zlib.crc32(annotations.read_bytes()):08x}"
        self.waiting: list[int] = []  # steps whose average has no figures yet, oldest first
        self._current: _Current | None = None

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]
    ) -> None:
        found = [int(path.stem.partition("-")[2]) for path in self.folder.glob(_snapshot("*"))]
        known = gather(found if rank() == 0 else [])
        # The steps past the checkpoint come again, and with them their averages.
        self.waiting = sorted(step for step in known if step <= checkpoint["global_step"])

    def on_step(self, trainer: lightning.Trainer, module: Any) -> None:
        step = trainer.global_step
        if step % self.every == 0 or step >= module.steps:
            self._begin(trainer, module)
        if self.waiting:
            self._slice(trainer)

    def finish(self, trainer: lightning.Trainer) -> None:
        """Work until no evaluation waits, or the time is up."""
        while self.waiting and not self.deadline.passed(trainer):
            self._slice(trainer)

    def _begin(self, trainer: lightning.Trainer, module: Any) -> None:
        step = trainer.global_step
        self.metrics.write(trainer)
        module.check_average()
        if rank() == 0:
            for path in self.folder.glob(f"evaluating-{step}.*"):
                path.unlink()  # of a run whose checkpoint is gone
            save_model(module.average, self.folder / _snapshot(step), {**self.made, "steps": step})
        # After the average: whoever resumes at this step finds it.
        write_checkpoint(trainer, module, self.folder / "last.ckpt")
        self.waiting.append(step)

    def _slice(self, trainer: lightning.Trainer) -> None:
        """Predict pictures for a while, at least one; after the last one, score."""
        step = self.waiting[0]
        if self._current is None:
            self._current = self._open(trainer, step)
        seconds = SLICE_SECONDS if len(self.waiting) == 1 else LONG_SLICE_SECONDS
        current = self._current
        until = time.monotonic() + min(seconds, self.deadline.left())
        path = self.folder / self._results_file(step, rank())
        _append(path, "")  # a kill may have left half a line
        while current.left:
            picture = current.left.pop(0)
            results = self._results(current.predictor, picture)
            if results is not None:
                current.results += results
                _append(path, json.dumps({"id": picture.id, "results": results}))
            if time.monotonic() >= until:
                break
        if not any(gather([len(current.left)])) and not self.deadline.passed(trainer):
            self._score(step, current)
            self._current = None
            self.waiting.pop(0)

    def _open(self, trainer: lightning.Trainer, step: int) -> _Current:
        network, _ = load_model(self.folder / _snapshot(step))
        predictor = Predictor(TorchRuntime(network, {}, trainer.strategy.root_device))
        predictor.thresholds = replace(predictor.thresholds, confidence=0.0, keypoint=0.0)
        files = list(self.folder.glob(self._results_file(step, "*"))) if rank() == 0 else []
        known = dict(line for path in files for line in _lines(path))
        done = set(gather(list(known)))
        left = [picture for picture in self.pictures if picture.id not in done]
        results = [entry for entries in known.values() for entry in entries]
        return _Current(network, predictor, left[rank() :: world()], results, [])

    def _results_file(self, step: int, process: int | str) -> str:
        return f"evaluating-{step}.{self.val}.{process}.jsonl"

    def _results(
        self, predictor: Predictor, picture: AnnotatedImage
    ) -> list[dict[str, Any]] | None:
        """COCO results of a picture; None if it cannot be read."""
        try:
            image = self.source.read(picture.file_name)
            return coco_results(predictor(image), picture.id)
        except (ImageError, ValueError) as error:
            log.warning("left out of evaluation: %s: %s", picture.file_name, error)
            return None

    def _score(self, step: int, current: _Current) -> None:
        """Add the figures to the step's row, and keep the model if it is the best so far."""
        results = gather(current.results)
        if rank() > 0:
            return
        results = current.known + results
        figures = score_by_protocol(self.truth, results, self.skeleton.sigmas)
        figures = {name: value for name, value in figures.items() if value >= 0}
        self.metrics.add_figures(step, figures)
        self._draw(step, current.predictor)
        best, note = self.folder / "best.safetensors", self.folder / "best.json"
        before = json.loads(note.read_text()) if note.exists() else {}
        if before.get("val_crc32") != self.val or _worth(figures) > _worth(before):
            val = {"val": self.annotations.name, "val_crc32": self.val}
            save_model(current.network, best, {**self.made, "steps": step, "figures": figures})
            write_json(note, {"step": step, **val, **figures})
        for path in self.folder.glob(f"evaluating-{step}.*"):
            path.unlink()

    def _draw(self, step: int, predictor: Predictor) -> None:
        """Overlays of the first pictures, for TensorBoard."""
        shown = predictor.runtime.manifest.config.predict
        predictor.thresholds = replace(
            predictor.thresholds,
            confidence=shown.confidence,
            keypoint=shown.keypoint_threshold,
        )
        for picture in self.pictures[:OVERLAYS]:
            try:
                image = self.source.read(picture.file_name)
            except ImageError:
                continue
            drawn = draw_people(
                image, predictor(image), predictor.skeleton, shown.keypoint_threshold
            )
            self.metrics.writer.add_image(picture.file_name, drawn, step, dataformats="HWC")


def _snapshot(step: int | str) -> str:
    return f"evaluating-{step}.safetensors"


def _append(path: Path, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise KdcError(f"cannot write '{path}': {error.strerror}") from error


def _lines(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Picture id and COCO results of each whole line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            continue  # empty, or cut by a kill
        yield content["id"], content["results"]


def _worth(figures: dict[str, float]) -> float:
    """What `best` means: keypoint AP and mask AP count alike; without keypoints mask AP alone."""
    known = [figures[k] for k in ("keypoint_ap", "mask_ap_keypoint_persons") if k in figures]
    return sum(known) / len(known) if known else figures.get("mask_ap_full", -1.0)
