"""A network's maps of one image, made once and decoded under many settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdc_core.codec.codec import Codec
from kdc_core.codec.decode import decode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Letterbox
from kdc_core.codec.grouping import Poses
from kdc_core.codec.results import Prediction
from kdc_core.config import Config
from kdc_core.inference.assembly import assemble
from kdc_core.inference.predictor import (
    check_image,
    evaluation_thresholds,
    fit_letterbox,
    letterbox_image,
)
from kdc_core.inference.program import as_raw, level_fields
from kdc_core.network.kdc import KDC


@dataclass(frozen=True)
class ImageMaps:
    """What a network says of one image.

    Attributes:
        size: (height, width) of the image.
        letterbox: how it was put into the network's frame.
        levels: maps at each level of the pyramid, the finest first; one image each.
    """

    size: tuple[int, int]
    letterbox: Letterbox
    levels: list[Fields[Tensor]]

    @classmethod
    def of(cls, network: KDC, image: np.ndarray) -> ImageMaps:
        """Run a network, in evaluation mode, on an image (H, W, 3) uint8 RGB.

        Raises:
            ImageArrayError: not such an array.
        """
        check_image(image)
        size = (image.shape[0], image.shape[1])
        letterbox = fit_letterbox(size, network.config)
        frame = torch.from_numpy(letterbox_image(image, letterbox))
        with torch.inference_mode():
            levels = level_fields(network, frame)
        return cls(size, letterbox, levels)

    def decode(self, config: Config, poses: Poses | None = None) -> Prediction:
        """Everybody in these maps, in pixels of the image.

        Args:
            config: how to decode; its maps are of these edges and this pyramid.
            poses: people whose keypoints are known, in pixels of the frame; None finds them.
        """
        codec = Codec.of(config)
        with torch.inference_mode():
            raw = as_raw(decode(self.levels, codec, poses=poses))
        return assemble(
            raw, self.letterbox, self.size, codec.mask_grid, evaluation_thresholds(config)
        )
