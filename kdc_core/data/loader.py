"""Training samples by number: the same number gives the same sample, in any process."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdc_core.config import Config
from kdc_core.data.augment import augment
from kdc_core.data.coco import AnnotatedPicture, AnnotationError, read_coco
from kdc_core.data.pictures import PictureError, Pictures
from kdc_core.data.sample import make_sample
from kdc_core.fields import Fields
from kdc_core.grid import Grid
from kdc_core.skeleton import SKELETONS
from kdc_core.targets import encode

log = logging.getLogger(__name__)


def open_data(path: str | Path) -> tuple[list[AnnotatedPicture], Pictures]:
    """Open an annotation file with its pictures in a folder or tar of the same name beside it.

    Raises:
        AnnotationError, PictureError: one of the two is missing or unusable.
    """
    path = Path(path)
    stem = path.name.removesuffix(".gz").removesuffix(".json")
    for pictures in (path.with_name(stem), path.with_name(f"{stem}.tar")):
        if pictures.exists():
            return read_coco(path), Pictures(pictures)
    raise AnnotationError(
        f"no pictures for '{path}': expected the folder '{stem}' or '{stem}.tar' beside it"
    )


class TrainingSamples(Dataset[tuple[Tensor, Fields, Fields]]):
    """Sample number i of a run: picture (i mod n) of the shuffle of epoch (i div n), augmented.

    A pure function of (seed, i), so that a run resumed at any step sees what it would have seen.
    """

    def __init__(self, paths: list[str], config: Config):
        self.config = config
        self.skeleton = SKELETONS[config.fields.skeleton]
        self.grid = Grid(config.fields.stride, config.fields.grid_offset)
        self.edges = self.skeleton.edges(tuple(config.fields.edges))
        self.entries: list[tuple[AnnotatedPicture, Pictures]] = []
        for path in paths:
            annotated, pictures = open_data(path)
            self.entries += [(picture, pictures) for picture in annotated if picture.persons]
        if not self.entries:
            raise AnnotationError(f"no pictures with people in {', '.join(map(str, paths))}")
        self._shuffle: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.config.train.steps * self.config.train.batch

    @property
    def pictures(self) -> int:
        """Pictures of one epoch."""
        return len(self.entries)

    def __getitem__(self, number: int) -> tuple[Tensor, Fields, Fields]:
        """Return picture (3, H, W) uint8, targets and weights (without batch axis: 1 first)."""
        seed = self.config.train.seed
        epoch, place = divmod(number, self.pictures)
        if self._shuffle[0] != epoch:
            order = np.random.default_rng((seed, epoch)).permutation(self.pictures)
            self._shuffle = (epoch, order)
        rng = np.random.default_rng((seed, epoch, place))
        picture, image = self._read(place)
        sample = augment(make_sample(image, picture), self.config.train, self.skeleton, rng)
        targets, weights = encode(
            sample, self.skeleton, self.grid, self.edges, self.config.fields.disk_radius_px
        )
        tensor = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))
        return tensor, targets.map(torch.from_numpy), weights.map(torch.from_numpy)

    def _read(self, place: int) -> tuple[AnnotatedPicture, np.ndarray]:
        """The picture at a place of the shuffle, or the next after it that can be read."""
        for step in range(self.pictures):
            picture, source = self.entries[self._shuffle[1][(place + step) % self.pictures]]
            try:
                return picture, source.read(picture.file_name)
            except PictureError as error:
                log.warning("left out of training: %s", error)
        raise AnnotationError(f"none of the {self.pictures} training pictures can be read")


def collate(
    samples: list[tuple[Tensor, Fields, Fields]],
) -> tuple[Tensor, Fields, Fields]:
    """Stack samples along the batch axis."""

    def stack(parts: list[Fields]) -> Fields:
        names = ("heat", "short", "mid", "mask", "embedding")
        return Fields(**{n: torch.cat([getattr(part, n) for part in parts]) for n in names})

    pictures, targets, weights = zip(*samples, strict=True)
    return torch.stack(pictures), stack(list(targets)), stack(list(weights))
