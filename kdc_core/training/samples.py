"""Training samples by number: the same number gives the same sample, in any process."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import fields as fields_of
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdc_core.codec.encode import Instances, encode, encode_instances
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid
from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import SKELETONS
from kdc_core.config import Config, ConfigError
from kdc_core.data.annotations import AnnotatedImage, AnnotationError
from kdc_core.data.augment import augment
from kdc_core.data.datasets import open_data
from kdc_core.data.images import ImageError, Images
from kdc_core.data.paste import paste
from kdc_core.data.sample import make_sample

log = logging.getLogger(__name__)

# Sets the random numbers of the mixture apart from those of the samples.
MIXTURE = 2**31
# Pictures (B, 3, H, W) uint8, targets, weights, the persons one by one, sample numbers (B,).
Batch = tuple[Tensor, Fields, Fields, Instances, Tensor]


class TrainingSamples(Dataset[Batch]):
    """Sample number i of a run, augmented: picture (i mod n) of the shuffle of epoch (i div n).

    With `train.mixture` the data set is drawn by its share, the picture within it evenly. A pure
    function of (seed, i), so that a run resumed at any step sees what it would have seen, and
    any number of processes can share the numbers out.

    Args:
        paths: data sets, as for `find_data`.
        config: seed, augmentation, fields.

    Raises:
        AnnotationError, ImageError: a data set cannot be used.
    """

    def __init__(self, paths: list[str], config: Config):
        self.config = config
        self.skeleton = SKELETONS[config.fields.skeleton]
        self.grid = Grid(config.fields.stride, config.fields.grid_offset)
        self.edges = self.skeleton.edges(tuple(config.fields.edges))
        self.entries: list[tuple[AnnotatedImage, Images]] = []
        self._sets: list[range] = []
        for path in paths:
            annotated, pictures = open_data(path, "train", self.skeleton, config.train.subset)
            first = len(self.entries)
            self.entries += [(picture, pictures) for picture in annotated if picture.persons]
            self._sets.append(range(first, len(self.entries)))
            empty = len(annotated) - len(self._sets[-1])
            if empty:
                log.info("'%s': %d pictures without people are left out", path, empty)
        low, high = config.train.longer_side
        if low > high:
            raise ConfigError(f"train.longer_side: expected [low, high], got [{low}, {high}]")
        mixture = config.train.mixture
        if mixture and len(mixture) != len(paths):
            raise ConfigError(
                f"train.mixture has {len(mixture)} shares for {len(paths)} data sets: "
                "give one each"
            )
        self._shuffle: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Samples of the whole run."""
        return self.steps * self.config.train.accumulate * self.config.train.batch

    @property
    def pictures(self) -> int:
        """Pictures of one epoch."""
        return len(self.entries)

    @property
    def epoch_steps(self) -> float:
        """Steps of one epoch."""
        return self.pictures / (self.config.train.batch * self.config.train.accumulate)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        epochs = self.config.train.epochs
        return self.config.train.steps if epochs is None else ceil(epochs * self.epoch_steps)

    def names(self, numbers: Iterable[int]) -> list[str]:
        """File names of the pictures of sample numbers."""
        return [self.entries[self._place(number)][0].file_name for number in numbers]

    def __getitem__(self, number: int) -> Batch:
        """Return one sample as a batch of one."""
        train = self.config.train
        rng = np.random.default_rng((train.seed, *divmod(number, self.pictures)))
        sample = self._sample(self._place(number))
        if rng.random() < train.paste:
            sample = paste(sample, self._sample(int(rng.integers(self.pictures))), rng)
        sample = augment(sample, train, self.skeleton, rng)
        targets, weights = encode(
            sample, self.skeleton, self.grid, self.edges, self.config.fields.disk_radius_px
        )
        instances = encode_instances(sample, self.skeleton, self.grid)
        tensor = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))[None])
        return (
            tensor,
            targets.map(torch.from_numpy),
            weights.map(torch.from_numpy),
            Instances(*(torch.from_numpy(value) for value in vars(instances).values())),
            torch.tensor([number]),
        )

    def _place(self, number: int) -> int:
        """Index of the entry that a sample number stands for."""
        seed, mixture = self.config.train.seed, self.config.train.mixture
        if mixture:
            rng = np.random.default_rng((seed, MIXTURE, number))
            chosen = self._sets[rng.choice(len(mixture), p=np.array(mixture) / sum(mixture))]
            return chosen[int(rng.integers(len(chosen)))]
        epoch, place = divmod(number, self.pictures)
        if self._shuffle[0] != epoch:
            order = np.random.default_rng((seed, epoch)).permutation(self.pictures)
            self._shuffle = (epoch, order)
        return int(self._shuffle[1][place])

    def _sample(self, index: int) -> Sample:
        """The picture of an entry, or the next after it that can be read."""
        for step in range(self.pictures):
            picture, source = self.entries[(index + step) % self.pictures]
            try:
                image = source.read(picture.file_name)
                return make_sample(image, picture, self.skeleton.num_keypoints)
            except (ImageError, ValueError) as error:
                log.warning("left out of training: %s: %s", picture.file_name, error)
        raise AnnotationError(f"none of the {self.pictures} training pictures can be read")


def collate(samples: list[Batch]) -> Batch:
    """Stack batches of one along the batch axis."""

    def stack(parts: tuple[Any, ...]) -> Any:
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        names = [field.name for field in fields_of(parts[0])]
        return type(parts[0])(*(stack(tuple(getattr(p, n) for p in parts)) for n in names))

    pictures, targets, weights, instances, numbers = map(stack, zip(*samples, strict=True))
    return pictures, targets, weights, instances, numbers
