"""What the representation itself loses: real annotations encoded, decoded, and scored."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from kdc_core.codec.codec import Codec
from kdc_core.codec.decode import as_logits, decode
from kdc_core.codec.encode import encode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.config import Config
from kdc_core.data.annotations import AnnotatedImage
from kdc_core.data.augment import warp
from kdc_core.data.sample import make_sample
from kdc_core.inference.assembly import Raw
from kdc_core.inference.predictor import evaluation_thresholds, find_people
from kdc_core.inference.program import as_raw

# Noise is drawn at every so many cells and interpolated between.
NOISE_CELLS = 4


def add_noise(
    targets: Fields[np.ndarray], noise_px: float, rng: np.random.Generator
) -> Fields[np.ndarray]:
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
    """Predicts an image from its own annotations.

    Args:
        config: what maps to make and how to decode them.
        noise_px: standard deviation of noise on the offsets.
    """

    def __init__(self, config: Config, noise_px: float = 0.0):
        # One perfect set of maps is all there is to see.
        decode = config.decode.model_copy(update={"pyramid": [1]})
        self.config, self.noise_px = config.model_copy(update={"decode": decode}), noise_px
        self.codec = Codec.of(self.config)

    def __call__(self, annotated: AnnotatedImage) -> Prediction:
        """Encode the annotations in the letterboxed frame, decode the maps, go back to the image.

        Raises:
            AnnotationError: a mask cannot be decoded.
        """
        blank = np.zeros((*annotated.size, 3), np.uint8)
        sample = make_sample(blank, annotated, self.codec.skeleton.num_keypoints)

        def raw_of(frame: np.ndarray, letterbox: Letterbox) -> Raw:
            framed = warp(sample, letterbox.matrix(Grid(1)), letterbox.size, None)
            targets, *_ = encode(framed, self.codec)
            if self.noise_px:
                targets = add_noise(targets, self.noise_px, np.random.default_rng(annotated.id))
            with torch.no_grad():
                return as_raw(decode([as_logits(targets)], self.codec))

        return find_people(blank, raw_of, self.config, evaluation_thresholds(self.config))
