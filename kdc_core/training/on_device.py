"""Training samples made on the device: images stay there, and what is drawn is all that comes.

`TrainingSamples` makes a sample with OpenCV in a loader process. On a GPU the loader only draws
recipes, and this module makes the same samples of them, a batch at once.
Pixels are interpolated otherwise and edges of pasted people are not blended; whether a pasted
person hides somebody almost wholly is judged within the crop here, within the whole image there.
Where people and keypoints come to lie is the same.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from kdc_core.codec.encode_batch import encode_batch, marginals
from kdc_core.codec.sample import Sample, Samples
from kdc_core.data.paste import LEAST_VISIBLE
from kdc_core.errors import KdcError
from kdc_core.training.affine import (
    compose,
    corner_boxes,
    ellipse_boxes,
    inverse,
    is_outside,
    lattice,
    transform,
    transform_lattice,
)
from kdc_core.training.samples import Batch, TrainingSamples

log = logging.getLogger(__name__)

# Of the device's free memory, what images may take; the network needs the rest.
MEMORY_FRACTION = 0.5
BYTES_PER_PIXEL = 5  # of an image that is kept: three colors, who is there, regions
CROWD, UNMASKED = 1, 2  # bits of an image's regions
MOST_PEOPLE = 254  # in an image: labels are uint8
# Each pixel of a crop is the mean of so many by so many samples: views shrink images.
FINER = 2


class Recipes(NamedTuple):
    """A batch of recipes as tensors.

    Attributes:
        image: (B,) int64, index of the image.
        donor: (B,) int64; the image itself where nobody is pasted.
        person: (B,) int64, label of the pasted person in the donor; 0 = nobody.
        donor_matrix: (B, 2, 3) float32, pixels of the donor to pixels of the image.
        matrix: (B, 2, 3) float32, pixels of the image to pixels of the crop.
        mirror: (B,) bool.
        color: (B, 3, 4) float32.
        numbers: of the B samples; they stay on the CPU, which would wait for the device.
    """

    image: Tensor
    donor: Tensor
    person: Tensor
    donor_matrix: Tensor
    matrix: Tensor
    mirror: Tensor
    color: Tensor
    numbers: list[int]


class DrawnSamples(Dataset[Recipes]):
    """Sample numbers to recipes, of the images that the device holds.

    Args:
        samples: of the run.
        places: index of the image held in place of each entry, which itself or the next after
            it that could be read.
    """

    def __init__(self, samples: TrainingSamples, places: np.ndarray):
        self._samples, self._places = samples, places

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Recipes:
        recipe = self._samples.recipe(number, lambda index: int(self._places[index]))
        pasted = recipe.paste
        return Recipes(
            torch.tensor([recipe.image]),
            torch.tensor([recipe.image if pasted is None else recipe.donor]),
            torch.tensor([0 if pasted is None else pasted.person + 1]),
            _tensor(np.eye(2, 3) if pasted is None else pasted.matrix),
            _tensor(recipe.view.matrix),
            torch.tensor([recipe.view.mirror]),
            _tensor(recipe.view.color),
            [number],
        )


class DeviceImages:
    """All images of a run, as uint8 on the device, and batches made of them.

    Args:
        samples: of the run; those that cannot be read are noted in their `left_out`.
        device: where to.
        threads: that read.

    Attributes:
        places: for `DrawnSamples`.

    Raises:
        KdcError: an image has more people than labels can tell apart.
        AnnotationError: none can be read, or too many have another size than annotated.
    """

    def __init__(self, samples: TrainingSamples, device: torch.device, threads: int):
        self._codec, self._crop = samples.codec, samples.config.train.crop
        sizes, most = samples.sizes(), samples.most_people()
        if most > MOST_PEOPLE:
            raise KdcError(
                f"an image has {most} people: images on the device may have {MOST_PEOPLE}"
            )
        count, (height, width) = len(sizes), sizes.max(0)
        keypoints = self._codec.skeleton.num_keypoints

        def zeros(*shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
            return torch.zeros((count, *shape), dtype=dtype, device=device)

        self._image = zeros(3, height, width)
        self._labels, self._regions = zeros(height, width), zeros(height, width)
        self._keypoints = zeros(most, keypoints, 3, dtype=torch.float32)
        self._boxes = zeros(most, 4, dtype=torch.float32)
        self._people = zeros(dtype=torch.int64)
        self._no_masks = zeros(dtype=torch.bool)
        self._size = torch.from_numpy(sizes.astype(np.float32)).to(device)
        self._flip = torch.tensor(self._codec.skeleton.flip, device=device)
        self.places = np.arange(count)

        def hold(index: int) -> None:
            place, sample = samples.read(index)
            self.places[index] = place
            if place == index:
                self._hold(index, sample)

        with ThreadPoolExecutor(threads) as readers:
            for _ in readers.map(hold, range(count)):
                pass
        held = (self._image, self._labels, self._regions, self._keypoints, self._boxes)
        gigabytes = sum(part.nbytes for part in held) / 1e9
        log.info("%d images, %.1f GB, are on %s", count, gigabytes, device)

    def _hold(self, index: int, sample: Sample) -> None:
        height, width = sample.image.shape[:2]
        labels = np.zeros((height, width), np.uint8)
        # Where masks overlap, the smaller person's is on top.
        for person in np.argsort([-mask.sum() for mask in sample.masks], kind="stable"):
            labels[sample.masks[person]] = person + 1
        regions = CROWD * sample.crowd + UNMASKED * sample.unmasked
        people = len(sample.boxes)
        pixels = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))
        self._image[index, :, :height, :width] = pixels.to(self._image.device)
        self._labels[index, :height, :width] = torch.from_numpy(labels).to(self._labels.device)
        self._regions[index, :height, :width] = torch.from_numpy(regions.astype(np.uint8)).to(
            self._regions.device
        )
        self._keypoints[index, :people] = torch.from_numpy(sample.keypoints)
        self._boxes[index, :people] = torch.from_numpy(sample.boxes)
        self._people[index] = people
        self._no_masks[index] = bool(sample.unmasked.all())

    def make(self, recipes: Recipes) -> Batch:
        """Make the samples of a batch of recipes, which are on the device too, and encode them."""
        samples = self.samples(recipes)
        targets, weights, instances = encode_batch(samples, self._codec)
        return Batch(samples.image, targets, weights, instances, recipes.numbers)

    def samples(self, recipes: Recipes) -> Samples:
        """The samples before they are encoded."""
        crop, people = self._crop, self._boxes.shape[1]
        # Where a place of the crop is in the image, and where that is in the donor.
        to_image = inverse(recipes.matrix)
        to_donor = compose(inverse(recipes.donor_matrix), to_image)

        fine = lattice(crop, FINER, to_image.device)
        places, donated = transform_lattice(to_image, fine), transform_lattice(to_donor, fine)
        image = self._pixels(recipes.image, places)
        over = self._pixels(recipes.donor, donated)
        taken = self._taken(recipes, places, donated)
        # What the padding covers has no color.
        inside = taken + ~taken * self._inside(recipes.image, places)
        image = torch.where(taken[:, None], over, image)
        image = F.avg_pool2d(torch.cat((image, inside[:, None]), 1), FINER)
        image = torch.einsum("bij,bjhw->bihw", recipes.color, image)

        pixels = lattice(crop, 1, to_image.device)
        places, donated = transform_lattice(to_image, pixels), transform_lattice(to_donor, pixels)
        labels = _pick(self._labels, recipes.image, places).long()
        regions = _pick(self._regions, recipes.image, places)
        before = marginals(labels, people)[0].sum(-1)
        taken = self._taken(recipes, places, donated)
        labels = labels.masked_fill(taken, people + 1)  # after all others
        regions = regions.masked_fill(taken, 0)
        keypoints, boxes, present = self._geometry(recipes)
        # A person of whom almost nothing is left is gone.
        left = marginals(labels, people)[0].sum(-1)
        present[:, -1] &= taken.flatten(1).any(1)
        present[:, :-1] &= (left >= LEAST_VISIBLE * before) | (before == 0)
        there = F.pad(present, (1, 0)).gather(1, labels.flatten(1)).view_as(labels)
        labels = labels * there
        return Samples(
            image.round().clamp(0, 255).to(torch.uint8),
            labels,
            keypoints * present[..., None, None],
            boxes,
            present,
            (regions & CROWD) > 0,
            ((regions & UNMASKED) > 0) | self._no_masks[recipes.image][:, None, None],
        )

    def _taken(self, recipes: Recipes, places: Tensor, donated: Tensor) -> Tensor:
        """(B, n, n) bool, where the pasted person covers: places of image and donor."""
        height, width = self._size[recipes.image, :, None, None].unbind(1)
        found = _pick(self._labels, recipes.donor, donated)
        wanted = recipes.person[:, None, None]
        return (found == wanted) & (wanted > 0) & ~is_outside(places, height, width)

    def _geometry(self, recipes: Recipes) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints (B, P + 1, K, 3), boxes (B, P + 1, 4) and who is there (B, P + 1), in the
        crop; the pasted person is the last."""
        crop = self._crop
        person = (recipes.person - 1).clamp(min=0)
        order = torch.arange(self._boxes.shape[1], device=person.device)
        present = order < self._people[recipes.image, None]
        height, width = self._size[recipes.image].T
        pasted = self._keypoints[recipes.donor, person]
        places = transform(recipes.donor_matrix, pasted[..., :2])
        outside = is_outside(places, height[:, None], width[:, None])
        known = pasted[..., 2:].masked_fill(outside[..., None], 0)
        pasted = torch.cat((places, known), -1)
        own = self._boxes[recipes.donor, person][:, None]
        box = ellipse_boxes(recipes.donor_matrix, own)[:, 0]
        edge = torch.stack((width, height, width, height), -1) - 0.5
        box = torch.minimum(box.clamp(min=-0.5), edge)
        keypoints = torch.cat((self._keypoints[recipes.image], pasted[:, None]), 1)
        boxes = torch.cat((self._boxes[recipes.image], box[:, None]), 1)
        present = torch.cat((present, recipes.person[:, None] > 0), 1)

        places = transform(recipes.matrix, keypoints[..., :2].flatten(1, 2)).view_as(
            keypoints[..., :2]
        )
        keypoints = torch.cat((places, keypoints[..., 2:]), -1)
        mirrored = keypoints[:, :, self._flip]
        keypoints = torch.where(recipes.mirror[:, None, None, None], mirrored, keypoints)
        known = (keypoints[..., 2] > 0) & ~is_outside(keypoints[..., :2], crop, crop)
        keypoints = torch.where(known[..., None], keypoints, 0)
        hulls = corner_boxes(recipes.matrix, boxes).clamp(-0.5, crop - 0.5)
        present = present & ((hulls[..., 2:] - hulls[..., :2]) > 1).all(-1)
        boxes = ellipse_boxes(recipes.matrix, boxes).clamp(-0.5, crop - 0.5)
        return keypoints, boxes, present

    def _pixels(self, index: Tensor, at: Tensor) -> Tensor:
        """(B, 3, h, w) float32 of the images at places (B, h, w, 2), bilinear; 0 outside."""
        height, width = self._image.shape[-2:]
        size = torch.tensor([width, height], device=at.device)
        places = (2 * at + 1) / size - 1
        whole = self._image[index].float()
        return F.grid_sample(whole, places, padding_mode="zeros", align_corners=False)

    def _inside(self, index: Tensor, at: Tensor) -> Tensor:
        """(B, h, w) what part of `_pixels` at places (B, h, w, 2) is the images' own."""
        edge = self._size[index].flip(-1)[:, None, None]
        return torch.minimum(at + 1, edge - at).clamp(0, 1).prod(-1)


def _pick(maps: Tensor, index: Tensor, at: Tensor) -> Tensor:
    """(B, h, w) of maps (N, H, W) at the pixels nearest to places (B, h, w, 2); 0 outside."""
    height, width = maps.shape[-2:]
    column, row = at.round().long().unbind(-1)
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    flat = (index[:, None, None] * height + row.clamp(0, height - 1)) * width
    picked = maps.view(-1)[flat + column.clamp(0, width - 1)]
    return picked * inside


def fits(samples: TrainingSamples, device: torch.device) -> bool:
    """Whether the images fit the device's memory beside the network."""
    if device.type != "cuda" or samples.most_people() > MOST_PEOPLE:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    sizes = samples.sizes()
    return int(BYTES_PER_PIXEL * len(sizes) * sizes.max(0).prod()) < MEMORY_FRACTION * free


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[None]
