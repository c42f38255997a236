"""Masks as COCO writes them: polygons and RLE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from kdc_core.data.annotations import AnnotationError


def decode_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Rasterize COCO polygons or RLE to (H, W) bool; arguments and errors as for `as_rle`."""
    rle = as_rle(segmentation, size)
    with _refused():
        mask: np.ndarray = rle_tools.decode(rle).astype(bool)
    return mask


def as_rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """COCO polygons or RLE as a compressed RLE.

    Args:
        segmentation: list of polygons (flat x, y lists) or an RLE object.
        size: (height, width) of the image.

    Raises:
        AnnotationError: neither.
    """
    with _refused():
        if isinstance(segmentation, dict):
            if isinstance(segmentation["counts"], list):
                return dict(rle_tools.frPyObjects(segmentation, *size))
            return segmentation
        if not isinstance(segmentation, list):
            raise TypeError(type(segmentation).__name__)
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return dict(rle_tools.encode(np.zeros(size, np.uint8, order="F")))
        return dict(rle_tools.merge(rle_tools.frPyObjects(polygons, *size)))


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # pycocotools raises bare ones
        raise AnnotationError(
            f"a segmentation is neither polygons nor RLE: {describe(error)}"
        ) from error


def describe(error: Exception) -> str:
    """Class and text: the texts alone of KeyError and its like say little."""
    return f"{type(error).__name__}: {error}"
