"""People as plain JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdc_core.codec.results import Person


def person_json(person: Person, size: tuple[int, int]) -> dict[str, Any]:
    """One person as JSON values.

    Args:
        person: who.
        size: (height, width) of the image.

    Returns:
        score, box [x0, y0, x1, y1], keypoints [[x, y, score], ...] in image pixels, and
        segmentation as an uncompressed COCO RLE.
    """
    return {
        "score": round(person.score, 4),
        "box": [round(float(v), 2) for v in person.box],
        "keypoints": np.round(person.keypoints.astype(float), 3).tolist(),
        "segmentation": {"size": list(size), "counts": run_lengths(person.full_mask(size))},
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    """Column-major run lengths of a (H, W) bool mask, beginning with background (COCO RLE)."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size])))
    return ([0] if flat.size and flat[0] else []) + runs.tolist()
