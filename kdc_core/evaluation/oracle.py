"""What the representation itself loses: real annotations encoded, decoded, and scored."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch

from kdc_core.codec.decode import Decoder, People
from kdc_core.codec.encode import encode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import SKELETONS
from kdc_core.config import Config
from kdc_core.data.annotations import AnnotatedImage
from kdc_core.data.augment import warp
from kdc_core.data.sample import make_sample
from kdc_core.inference.assembly import Raw, Thresholds, assemble

# Logit of a cell that is certain.
CERTAIN = 12.0
# Noise is drawn at every so many cells and interpolated between.
NOISE_CELLS = 4


def as_fields(targets: Fields) -> Fields:
    """Turn numpy targets into the torch Fields of a network that makes no mistake."""
    fields = targets.map(torch.from_numpy)
    fields.heat = CERTAIN * (2 * fields.heat - 1)
    fields.mask = torch.logit(fields.mask, eps=math.exp(-CERTAIN))
    return fields


def raw_people(people: People, index: int = 0) -> Raw:
    """One picture of a batch of people, as numpy."""
    return Raw(
        *(
            getattr(people, name)[index].detach().cpu().numpy()
            for name in ("score", "keypoints", "centroids", "owner", "confidence")
        )
    )


def add_noise(targets: Fields, noise_px: float, rng: np.random.Generator) -> Fields:
    """Put Gaussian noise on all offsets of numpy targets, as smooth as a network's errors are."""

    def noisy(offsets: np.ndarray) -> np.ndarray:
        *others, height, width = offsets.shape
        coarse = (*others, -(-height // NOISE_CELLS), -(-width // NOISE_CELLS))
        noise = rng.normal(0, noise_px, coarse).astype(np.float32)
        planes = [cv2.resize(plane, (width, height)) for plane in noise.reshape(-1, *coarse[-2:])]
        return offsets + np.array(planes).reshape(offsets.shape)

    short, mid, embedding = (noisy(v) for v in (targets.short, targets.mid, targets.embedding))
    return Fields(targets.heat, short, mid, targets.mask, embedding)


class Oracle:
    """Predicts a picture from its own annotations.

    Args:
        config: what maps to make and how to decode them.
        noise_px: standard deviation of noise on the offsets.
    """

    def __init__(self, config: Config, noise_px: float = 0.0):
        self.config, self.noise_px = config, noise_px
        self.skeleton = SKELETONS[config.fields.skeleton]
        self.grid = Grid(config.fields.stride, config.fields.grid_offset)
        kinds = tuple(config.fields.edges)
        self.edges = self.skeleton.edges(kinds)
        # One perfect set of maps is all there is to see.
        decode = config.decode.model_copy(update={"pyramid": [1]})
        self.decoder = Decoder(self.skeleton, self.grid, kinds, decode)

    def __call__(self, picture: AnnotatedImage) -> Prediction:
        """Encode the annotations at network scale, decode the maps, go back to the image."""
        letterbox = Letterbox.fit(picture.size, self.config.predict.longer_side)
        blank = np.zeros((*picture.size, 3), np.uint8)
        x, y = letterbox.scale_x, letterbox.scale_y
        matrix = np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5]])
        sample = make_sample(blank, picture, self.skeleton.num_keypoints)
        sample = warp(sample, matrix, letterbox.size, None)
        targets, _ = encode(
            sample, self.skeleton, self.grid, self.edges, self.config.fields.disk_radius_px
        )
        if self.noise_px:
            targets = add_noise(targets, self.noise_px, np.random.default_rng(picture.id))
        with torch.no_grad():
            people = self.decoder([as_fields(targets)])
        return assemble(
            raw_people(people),
            letterbox,
            picture.size,
            self.grid,
            self.config.decode.upsample,
            Thresholds(0.0, 0.0, 0.5),
        )
