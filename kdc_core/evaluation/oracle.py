"""What the representation itself loses: real annotations encoded, decoded, and scored."""

from __future__ import annotations

import math

import numpy as np
import torch

from kdc_core.assembly import Raw, Thresholds, assemble
from kdc_core.config import Config
from kdc_core.data.augment import warp
from kdc_core.data.coco import AnnotatedPicture
from kdc_core.data.sample import make_sample
from kdc_core.decode.people import Decoder, People
from kdc_core.fields import Fields
from kdc_core.grid import Grid, Letterbox
from kdc_core.results import Prediction
from kdc_core.skeleton import SKELETONS
from kdc_core.targets import encode

# Logit of a cell that is certain.
CERTAIN = 12.0


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


class Oracle:
    """Predicts a picture from its own annotations."""

    def __init__(self, config: Config):
        self.config = config
        self.skeleton = SKELETONS[config.fields.skeleton]
        self.grid = Grid(config.fields.stride, config.fields.grid_offset)
        kinds = tuple(config.fields.edges)
        self.edges = self.skeleton.edges(kinds)
        # One perfect set of maps is all there is to see.
        decode = config.decode.model_copy(update={"pyramid": [1]})
        self.decoder = Decoder(self.skeleton, self.grid, kinds, decode)

    def __call__(self, picture: AnnotatedPicture) -> Prediction:
        """Encode the annotations at network scale, decode the maps, go back to the image."""
        letterbox = Letterbox.fit(picture.size, self.config.predict.longer_side)
        blank = np.zeros((*picture.size, 3), np.uint8)
        x, y = letterbox.scale_x, letterbox.scale_y
        matrix = np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5]])
        sample = warp(make_sample(blank, picture), matrix, letterbox.size, None)
        targets, _ = encode(
            sample, self.skeleton, self.grid, self.edges, self.config.fields.disk_radius_px
        )
        with torch.no_grad():
            people = self.decoder([as_fields(targets)])
        return assemble(
            raw_people(people), letterbox, picture.size, self.grid,
            self.config.decode.upsample, Thresholds(0.0, 0.0, 0.5),
        )  # fmt: skip
