"""Evaluation while training: scores on --val, overlays, the best model so far."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning

from kdc_core.data.coco import AnnotatedPicture, read_coco, read_json
from kdc_core.data.datasets import find_data
from kdc_core.data.pictures import PictureError, Pictures
from kdc_core.drawing import draw_people
from kdc_core.evaluation.coco import coco_results, complete, score_by_protocol
from kdc_core.files import write_json
from kdc_core.network.weights import save_model
from kdc_core.predictor import Predictor
from kdc_core.runtimes.torch import TorchRuntime
from kdc_core.skeleton import Skeleton
from kdc_core.training.callbacks import EachStep, Metrics, write_checkpoint
from kdc_core.training.processes import gather, rank, world

log = logging.getLogger(__name__)

# Pictures of --val drawn for TensorBoard at each evaluation.
OVERLAYS = 4


class Evaluation(EachStep):
    """Scores the averaged network on a data set, and keeps the best in `best.safetensors`.

    Every process predicts its share of the pictures, each picture once. The state is saved
    before; a run that was stopped during an evaluation begins with it when it goes on. Comes
    after Metrics, so that the step's losses are in its row.
    """

    def __init__(
        self,
        path: str,
        every: int,
        folder: Path,
        metrics: Metrics,
        made: dict[str, Any],
        skeleton: Skeleton,
    ):
        annotations, images = find_data(path, "val")
        self.pictures = read_coco(annotations, skeleton.num_keypoints)
        self.truth, self.source = complete(read_json(annotations)), Pictures(images)
        self.every, self.metrics, self.made = every, metrics, made
        self.skeleton, self.name = skeleton, annotations.name
        self.best, self.note = folder / "best.safetensors", folder / "best.json"
        self.last = folder / "last.ckpt"
        self._predictor: Predictor | None = None

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        super().on_train_start(trainer, module)
        step = trainer.global_step
        evaluated = trainer.strategy.broadcast(self.metrics.evaluated)
        if step > 0 and step % self.every == 0 and evaluated != step:
            self.run(trainer, module)

    def on_step(self, trainer: lightning.Trainer, module: Any) -> None:
        if trainer.global_step % self.every == 0:
            if trainer.global_step < module.steps:
                write_checkpoint(trainer, self.last)
            self.run(trainer, module)

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        if trainer.global_step >= module.steps and trainer.global_step % self.every:
            self.run(trainer, module)

    def run(self, trainer: lightning.Trainer, module: Any) -> None:
        """Evaluate, write a row, and keep the model if it is the best so far."""
        if self._predictor is None:
            runtime = TorchRuntime(module.average, {}, trainer.strategy.root_device)
            self._predictor = Predictor(runtime)
            self._predictor.thresholds = replace(
                self._predictor.thresholds, confidence=0.0, keypoint=0.0
            )
        mine = self.pictures[rank() :: world()]
        results = gather([entry for picture in mine for entry in self._results(picture)])
        figures: dict[str, float] = {}
        if rank() == 0:
            sigmas = self.skeleton.sigmas
            figures = score_by_protocol(self.truth, results, sigmas)  # type: ignore[arg-type]
        self.metrics.write(trainer, figures)
        if rank() > 0:
            return
        self._draw(trainer.global_step)
        before = json.loads(self.note.read_text()) if self.note.exists() else {}
        if before.get("val") != self.name or _worth(figures) > _worth(before):
            made = {**self.made, "steps": trainer.global_step, "figures": figures}
            save_model(module.average, self.best, made)
            write_json(self.note, {"step": trainer.global_step, "val": self.name, **figures})

    def _results(self, picture: AnnotatedPicture) -> list[dict[str, Any]]:
        assert self._predictor is not None
        try:
            image = self.source.read(picture.file_name)
            return coco_results(self._predictor(image), picture.id)
        except (PictureError, ValueError) as error:
            log.warning("left out of evaluation: %s: %s", picture.file_name, error)
            return []

    def _draw(self, step: int) -> None:
        """Overlays of the first pictures, for TensorBoard."""
        writer, predictor = self.metrics.writer, self._predictor
        if writer is None or predictor is None:
            return
        shown = predictor.runtime.manifest.config.predict
        old = predictor.thresholds
        predictor.thresholds = replace(
            old, confidence=shown.confidence, keypoint=shown.keypoint_threshold
        )
        for picture in self.pictures[:OVERLAYS]:
            try:
                image = self.source.read(picture.file_name)
            except PictureError:
                continue
            drawn = draw_people(
                image, predictor(image), predictor.skeleton, shown.keypoint_threshold
            )
            writer.add_image(picture.file_name, drawn, step, dataformats="HWC")
        predictor.thresholds = old


def _worth(figures: dict[str, float]) -> float:
    """What `best` means: keypoint AP and mask AP count alike."""
    known = [figures[k] for k in ("keypoint_ap", "mask_ap_keypoint_persons") if k in figures]
    return sum(known) / len(known) if known else -1.0
