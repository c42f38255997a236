"""Training samples by number: the same number gives the same sample, in any process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from math import ceil
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from kdc_core.codec.codec import Codec
from kdc_core.codec.encode import Instances, encode
from kdc_core.codec.fields import Fields
from kdc_core.codec.sample import Sample
from kdc_core.config import Config, ConfigError, TrainConfig
from kdc_core.data.annotations import AnnotatedImage, AnnotationError
from kdc_core.data.augment import View, draw_view, look
from kdc_core.data.datasets import open_data
from kdc_core.data.images import ImageError, Images
from kdc_core.data.paste import Paste, can_be_pasted, draw_paste, put
from kdc_core.data.sample import read_sample
from kdc_core.training.people import Counts, check_people
from kdc_core.training.processes import rank, world

log = logging.getLogger(__name__)

Parts = TypeVar("Parts", bound=tuple[Any, ...])  # a NamedTuple

# Sets the random numbers of the mixture apart from those of the samples.
MIXTURE = 2**31
# In `TrainingSamples.left_out`, and the fraction of the images with which training goes on.
OTHER_SIZE = 2
MOST_OF_OTHER_SIZE = 0.01


class Batch(NamedTuple):
    """Samples along the batch axis.

    Attributes:
        image: (B, 3, H, W) uint8 RGB.
        targets: of the network's maps.
        weights: of their losses.
        instances: the persons one by one.
        numbers: of the B samples.
    """

    image: Tensor
    targets: Fields[Tensor]
    weights: Fields[Tensor]
    instances: Instances[Tensor]
    numbers: list[int]


class _Entry(NamedTuple):
    """An image, where to read it, and whether anybody on it has a mask.

    Where nobody has, all that is known of masks is where nobody is: learnt from, it would make
    masks smaller.
    """

    image: AnnotatedImage
    images: Images
    with_masks: bool


class Recipe(NamedTuple):
    """What is drawn for a sample, of the annotations alone.

    Attributes:
        image: index of the entry.
        donor: index of the entry that somebody is pasted from; -1 = nobody is.
        paste: who, and where.
        view: what is seen of it.
    """

    image: int
    donor: int
    paste: Paste | None
    view: View


class TrainingSamples(Dataset[Batch]):
    """Sample number i of a run, augmented: image (i mod n) of the shuffle of epoch (i div n).

    With `train.mixture` the data set is drawn by its weight, the image within it evenly. A pure
    function of (seed, i), so that a run resumed at any step sees what it would have seen, and
    any number of processes can share the numbers out.

    Args:
        paths: data sets, as for `find_data`.
        config: seed, augmentation, fields.
        images: folder or tar of the images of each; None = where the layouts have them.
        category: as for `read_annotations`.

    Attributes:
        left_out: (num_images,) uint8 in the memory that all processes share: 1 for images that
            could not be read, `OTHER_SIZE` for those of another size than annotated.
        num_images: images of one epoch.
        epoch_steps: steps of one epoch.
        steps: steps of the whole run.

    Raises:
        AnnotationError, ImageError: a data set cannot be used, or there is nobody to learn from.
    """

    def __init__(
        self,
        paths: list[str],
        config: Config,
        images: Sequence[str] | None = None,
        category: str | None = None,
    ):
        train = config.train
        _check_settings(train, paths)
        self.config, self.codec = config, Codec.of(config)
        self._entries: list[_Entry] = []
        self._sets: list[range] = []
        found: list[tuple[str, Counts]] = []
        places: Sequence[str | None] = images or [None] * len(paths)
        for path, place in zip(paths, places, strict=True):
            annotations, files = open_data(
                path, "train", self.codec.skeleton, train.subset, place, category
            )
            people, first = Counts.of(annotations), len(self._entries)
            found.append((path, people))
            self._entries += [
                _Entry(image, files, any(p.segmentation is not None for p in image.people))
                for image in annotations.images
                if image.people
            ]
            self._sets.append(range(first, len(self._entries)))
            empty = len(annotations.images) - len(self._sets[-1])
            if empty:
                log.info("'%s': %d images without people are left out", path, empty)
        check_people(found, train.train)
        for path, entries in zip(paths, self._sets, strict=True):
            if train.mixture and not entries:
                raise ConfigError(f"train.mixture draws from '{path}', which has no people")
        self.num_images = len(self._entries)
        self._donors = [
            np.array([i for i in entries if _pasteable(self._entries[i].image).any()], np.int64)
            for entries in (self._sets if train.paste else ())
        ]
        self.left_out = torch.zeros(self.num_images, dtype=torch.uint8).share_memory_()
        self.epoch_steps = self.num_images / (train.batch * train.accumulate)
        self.steps = train.steps
        if train.epochs is not None:
            self.steps = ceil(train.epochs * self.epoch_steps)
        self._shuffle: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Samples of the whole run."""
        return self.steps * self.config.train.accumulate * self.config.train.batch

    def names(self, numbers: Iterable[int]) -> list[str]:
        """File names of the images of sample numbers."""
        return [self._entries[self._place(number)].image.file_name for number in numbers]

    def sample(self, number: int) -> Sample:
        """Draw one sample."""
        read: dict[int, Sample] = {}

        def readable(index: int) -> int:
            place, read[place] = self.read(index)
            return place

        recipe = self.recipe(number, readable)
        sample = read[recipe.image]
        if recipe.paste is not None:
            sample = put(sample, read[recipe.donor], recipe.paste)
        sample = look(sample, recipe.view, self.config.train.crop, self.codec.skeleton)
        if not self._entries[recipe.image].with_masks:
            sample.unmasked[...] = True  # nor is the padding learnt, or who was pasted
        return sample

    def __getitem__(self, number: int) -> Batch:
        """Return one sample as a batch of one."""
        sample = self.sample(number)
        targets, weights, instances = encode(sample, self.codec)
        return Batch(
            torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))[None]),
            targets.map(torch.from_numpy),
            weights.map(torch.from_numpy),
            instances.map(torch.from_numpy),
            [number],
        )

    def recipe(self, number: int, readable: Callable[[int], int]) -> Recipe:
        """Draw a sample.

        Args:
            number: of the sample.
            readable: index of the entry that is used in place of one, because it can be read.
        """
        train = self.config.train
        rng = np.random.default_rng((train.seed, *divmod(number, self.num_images)))
        image, donor, drawn = readable(self._place(number)), -1, None
        annotated = self._entries[image].image
        boxes = _boxes(annotated)
        if any(map(len, self._donors)) and rng.random() < train.paste:
            donor = readable(self._donor(rng))
            people = self._entries[donor].image
            drawn = draw_paste(boxes, _boxes(people), _pasteable(people), rng)
        view = draw_view(annotated.size, boxes, train, rng)
        return Recipe(image, -1 if drawn is None else donor, drawn, view)

    def _donor(self, rng: np.random.Generator) -> int:
        """Draw an entry with somebody to be pasted; with a mixture, from its sets as it says."""
        sets, mixture = self._donors, self.config.train.mixture
        sizes = [len(entries) for entries in sets]
        weights = np.array(mixture or sizes) * np.array([size > 0 for size in sizes])
        chosen = sets[rng.choice(len(sets), p=weights / weights.sum())]
        return int(chosen[rng.integers(len(chosen))])

    def check_sizes(self) -> None:
        """Whether the images are those annotated, as far as they have been read.

        Raises:
            AnnotationError: more than MOST_OF_OTHER_SIZE of them have another size than annotated.
        """
        wrong = int((self.left_out == OTHER_SIZE).sum())
        if wrong > MOST_OF_OTHER_SIZE * self.num_images:
            raise AnnotationError(
                f"{wrong} of {self.num_images} training images, so far, have another size than "
                f"annotated, which is more than {MOST_OF_OTHER_SIZE:.0%}: give the images that "
                "were annotated; `kdc data check` lists them"
            )

    def _place(self, number: int) -> int:
        """Index of the entry that a sample number stands for."""
        seed, mixture = self.config.train.seed, self.config.train.mixture
        if mixture:
            rng = np.random.default_rng((seed, MIXTURE, number))
            chosen = self._sets[rng.choice(len(mixture), p=np.array(mixture) / sum(mixture))]
            return chosen[int(rng.integers(len(chosen)))]
        epoch, place = divmod(number, self.num_images)
        if self._shuffle[0] != epoch:
            order = np.random.default_rng((seed, epoch)).permutation(self.num_images)
            self._shuffle = (epoch, order)
        return int(self._shuffle[1][place])

    def sizes(self) -> np.ndarray:
        """(num_images, 2) height and width of the images as they are annotated."""
        return np.array([entry.image.size for entry in self._entries])

    def most_people(self) -> int:
        """In one image."""
        return max(len(entry.image.people) for entry in self._entries)

    def read(self, index: int) -> tuple[int, Sample]:
        """The image of an entry, or the next after it that can be read, and its index."""
        for step in range(self.num_images):
            place = (index + step) % self.num_images
            annotated, images, with_masks = self._entries[place]
            try:
                sample = read_sample(images, annotated, self.codec.skeleton.num_keypoints)
                sample.unmasked |= not with_masks
                return place, sample
            except (ImageError, AnnotationError) as error:
                if not self.left_out[place]:
                    log.warning("left out of training: %s: %s", annotated.file_name, error)
                self.left_out[place] = OTHER_SIZE if isinstance(error, AnnotationError) else 1
                self.check_sizes()
        raise AnnotationError(f"none of the {self.num_images} training images can be read")


def _check_settings(train: TrainConfig, paths: list[str]) -> None:
    """What can be said of settings before data sets are read, which takes long.

    Raises:
        ConfigError: they cannot be used.
    """
    low, high = train.longer_side
    if low > high:
        raise ConfigError(f"train.longer_side: expected [low, high], got [{low}, {high}]")
    if train.mixture and len(train.mixture) != len(paths):
        raise ConfigError(
            f"train.mixture has {len(train.mixture)} weights for {len(paths)} data sets: "
            "give one each"
        )


def _pasteable(annotated: AnnotatedImage) -> np.ndarray:
    """(P,) bool, which people of an image, one at least, can be pasted into others."""
    keypoints = np.array([p.keypoints for p in annotated.people])
    masked = np.array([p.segmentation is not None for p in annotated.people])
    return can_be_pasted(_boxes(annotated), keypoints, masked)


def _boxes(annotated: AnnotatedImage) -> np.ndarray:
    """(P, 4) of the people of an image."""
    return np.array([p.box for p in annotated.people], np.float32).reshape(-1, 4)


class FromStep(Sampler[int]):
    """Sample numbers that this process still has to do; each forward pass is shared out.

    Args:
        samples: of the run.
        step: the step it goes on from.

    Raises:
        ConfigError: the batch cannot be shared out evenly.
    """

    def __init__(self, samples: TrainingSamples, step: int):
        train = samples.config.train
        self.total, self.batch = len(samples), train.batch
        self.first_sample = step * train.batch * train.accumulate
        if train.batch % world():
            raise ConfigError(
                f"train.batch counts the samples of all processes: expected a multiple of "
                f"{world()}, got {train.batch}"
            )

    def __iter__(self) -> Iterator[int]:
        numbers = range(self.first_sample, self.total)
        return (n for n in numbers if n % self.batch % world() == rank())

    def __len__(self) -> int:
        # Lightning counts the batches of the whole run, also when it goes on in the middle.
        return self.total // world()


def collate(samples: list[Parts]) -> Parts:
    """Stack batches of one, or what is drawn for them, along the batch axis."""
    return type(samples[0])(*map(stack, zip(*samples, strict=True)))


def stack(parts: tuple[Any, ...]) -> Any:
    """Stack tensors, lists, or what has them as attributes, along the batch axis."""
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    if isinstance(parts[0], list):
        return list(chain(*parts))
    values = zip(*(vars(part).values() for part in parts), strict=True)
    return type(parts[0])(*map(stack, values))
