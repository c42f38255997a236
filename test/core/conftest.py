"""People made by hand, and the real pictures of the package."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from kdc_core.config import Config, load_preset
from kdc_core.data.sample import Sample
from kdc_core.grid import Grid
from kdc_core.skeleton import COCO17

SAMPLES = Path(str(files("kdc_core") / "samples"))
SHARED = Path(__file__).parents[2].parent / "shared"

# A standing person in a box of 1 x 2: x, y of the 17 keypoints.
STANDING = np.array(
    [
        (0.50, 0.12), (0.54, 0.10), (0.46, 0.10), (0.60, 0.12), (0.40, 0.12),
        (0.72, 0.36), (0.28, 0.36), (0.84, 0.66), (0.16, 0.66), (0.88, 0.94), (0.12, 0.94),
        (0.62, 1.00), (0.38, 1.00), (0.64, 1.45), (0.36, 1.45), (0.66, 1.90), (0.34, 1.90),
    ],
    np.float32,
)  # fmt: skip


def make_person(x: float, y: float, scale: float) -> np.ndarray:
    """(17, 3) keypoints of a standing person, `scale` pixels wide, with its corner at (x, y)."""
    keypoints = np.full((17, 3), 2, np.float32)
    keypoints[:, :2] = STANDING * scale + (x, y)
    return keypoints


def make_people(
    keypoints: list[np.ndarray], size: tuple[int, int], boxes: list[list[float]] | None = None
) -> Sample:
    """A sample of people whose masks are their boxes, minus the boxes of later ones."""
    if boxes is None:
        boxes = []
        for points in keypoints:
            low, high = points[:, :2].min(0) - 6, points[:, :2].max(0) + 6
            boxes.append([*np.maximum(low, 0), *np.minimum(high, (size[1] - 1, size[0] - 1))])
    masks = np.zeros((len(keypoints), *size), bool)
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        window = np.s_[int(np.ceil(y0)) : int(y1) + 1, int(np.ceil(x0)) : int(x1) + 1]
        masks[:index, window[0], window[1]] = False
        masks[index, window[0], window[1]] = True
    return Sample(
        np.zeros((*size, 3), np.uint8),
        np.array(keypoints, np.float32).reshape(-1, 17, 3),
        np.array(boxes, np.float32).reshape(-1, 4),
        masks,
        np.zeros(size, bool),
        True,
    )


@pytest.fixture(scope="session")
def oracle_config() -> Config:
    return load_preset("oracle")


@pytest.fixture(scope="session")
def grid() -> Grid:
    return Grid(4, 1.5)


@pytest.fixture(scope="session")
def edges() -> tuple[tuple[int, int], ...]:
    return COCO17.edges(("tree", "star"))


@pytest.fixture(scope="session")
def samples() -> Path:
    return SAMPLES


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """The package's annotated pictures as a data set: annotations and a folder beside them."""
    content = json.loads((SAMPLES / "annotations.json").read_text())
    (tmp_path / "few").mkdir()
    for image in content["images"]:
        shutil.copy(SAMPLES / image["file_name"], tmp_path / "few")
    (tmp_path / "few.json").write_text(json.dumps(content))
    return tmp_path / "few.json"
