"""Evaluation while training: figures on --val, overlays, the best model so far."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import Annotations
from kdc_core.data.datasets import find_data
from kdc_core.data.images import ImageError, Images
from kdc_core.evaluation.coco import COMMON_FIGURES, Result, protocol_of, score
from kdc_core.evaluation.figures import KEYPOINT_AP, MASK_AP, MASK_AP_ALL
from kdc_core.evaluation.protocols import absent_rows
from kdc_core.evaluation.run import read_truth
from kdc_core.files import as_utf8, crc32_of, read_json, write_json
from kdc_core.inference.predictor import ImageArrayError, Predictor, default_thresholds
from kdc_core.network.weights import save_model
from kdc_core.show.drawing import draw_people
from kdc_core.training.metrics import Metrics
from kdc_core.training.processes import gather, one_thread, rank, world

log = logging.getLogger(__name__)

# Images of --val drawn for TensorBoard at each evaluation.
OVERLAYS = 4
IdAndImage = tuple[int, np.ndarray | None]


class EvaluationImages(Dataset[IdAndImage]):
    """Id and image of each image of a data set; None for an image that cannot be read.

    Args:
        annotations: name the images.
        images: the files.
    """

    def __init__(self, annotations: Annotations, images: Images):
        self.annotations, self.images = annotations, images

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, place: int) -> IdAndImage:
        annotated = self.annotations.images[place]
        try:
            return annotated.id, self.images.read(annotated.file_name)
        except ImageError as error:
            log.warning("left out of evaluation: %s: %s", annotated.file_name, error)
            return annotated.id, None


class Evaluation(Callback):
    """Scores what TrainingModule predicted on --val, and keeps the best in `best.safetensors`.

    Comes before WeightAveraging in the list of callbacks, which takes the average out of the
    network again. ModelCheckpoint would keep a checkpoint, not a model file with its provenance.

    Args:
        path: data set, as for `find_data`.
        skeleton: of its persons.
        folder: of the run.
        metrics: takes the figures.
        made: provenance for the model file.
        images: folder or tar of the images; None = where the layout has them.
        category: as for `read_annotations`.

    Raises:
        AnnotationError, ImageError: the data set cannot be used, or its images are not of the
            sizes annotated.
    """

    def __init__(
        self,
        path: str,
        skeleton: Skeleton,
        folder: Path,
        metrics: Metrics,
        made: dict[str, Any],
        images: str | None = None,
        category: str | None = None,
    ):
        file, place = find_data(path, "val", images)
        files = Images(place)
        truth = read_truth(file, skeleton, images=files, category=category)
        for line in absent_rows(truth, protocol_of(truth)):
            log.info("'%s': %s", path, line)
        self.images = EvaluationImages(truth, files)
        self.folder, self.metrics, self.made = folder, metrics, made
        # Figures on other annotations do not compare.
        self.val = {"val": file.name, "val_crc32": crc32_of(file)}
        self._found: dict[int, list[Result]] = {}  # COCO results by the image's id

    def loader(self, workers: int) -> DataLoader[IdAndImage]:
        """The images that this process predicts; where numbers do not divide, some come twice."""
        sampler: DistributedSampler[IdAndImage]
        sampler = DistributedSampler(self.images, world(), rank(), shuffle=False)
        return DataLoader(
            self.images,
            None,
            sampler=sampler,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=one_thread,
        )

    def on_validation_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, *_: Any
    ) -> None:
        self._found |= outputs["found"]

    def on_validation_epoch_end(self, trainer: Trainer, module: Any) -> None:
        found, self._found = gather(self._found), {}
        step, figures = trainer.global_step, {}
        if rank() == 0:
            scored = score(self.images.annotations, [r for own in found.values() for r in own])
            figures = {name: value for name, value in scored.items() if value >= 0}
            self._keep_best(module.network, step, figures)
            self._draw(module.predictor, step)
        self.metrics.write(step, figures)

    def _keep_best(self, network: Any, step: int, figures: dict[str, float]) -> None:
        best, note = self.folder / "best.safetensors", self.folder / "best.json"
        before: dict[str, Any] = read_json(note, {})
        known = before.get("val_crc32") == self.val["val_crc32"]
        if not known or _worth(figures) > _worth(before):
            save_model(network, best, {**self.made, "steps": step, "figures": figures})
            write_json(note, {"step": step, **self.val, **figures})

    def _draw(self, predictor: Predictor, step: int) -> None:
        """Overlays of the first images, for TensorBoard."""
        predictor.thresholds = default_thresholds(predictor.config)
        for place in range(min(OVERLAYS, len(self.images))):
            _, image = self.images[place]
            if image is None:
                continue
            try:
                found = predictor(image)
            except ImageArrayError:  # it was told when it was to be scored
                continue
            threshold = predictor.thresholds.keypoint
            drawn = draw_people(image, found, predictor.skeleton, threshold)
            name = as_utf8(self.images.annotations.images[place].file_name)
            self.metrics.writer.add_image(name, drawn, step, dataformats="HWC")


def _as_it_is(item: Any) -> Any:
    return item


def _worth(figures: dict[str, float]) -> float:
    """What `best` means: keypoint AP and mask AP count alike; without keypoints mask AP alone."""
    names = (KEYPOINT_AP, COMMON_FIGURES[0], MASK_AP)
    known = [figures[name] for name in names if name in figures]
    return sum(known) / len(known) if known else figures.get(MASK_AP_ALL, -1.0)
