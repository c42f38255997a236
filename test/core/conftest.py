"""People made by hand, the real images of the package, and what two test files need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_tools

from kdc_core.codec.codec import Codec
from kdc_core.codec.decode import People, as_logits
from kdc_core.codec.encode import encode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Letterbox
from kdc_core.codec.grouping import Poses
from kdc_core.codec.results import Prediction
from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import Config, DecodeConfig
from kdc_core.config_file import load_preset
from kdc_core.datacheck.check import Check, check_data
from kdc_core.inference.assembly import Thresholds, assemble
from kdc_core.inference.model_files import MODELS
from kdc_core.inference.program import as_raw

SAMPLES = Path(str(files("kdc_core") / "samples"))
SHARED = Path(__file__).parents[2].parent / "shared"
PROGRAM = MODELS / "kdc_light.onnx"

# A standing person in a box of 1 x 2: x, y of the 17 keypoints.
STANDING = np.array(
    [
        (0.50, 0.12),
        (0.54, 0.10),
        (0.46, 0.10),
        (0.60, 0.12),
        (0.40, 0.12),
        (0.72, 0.36),
        (0.28, 0.36),
        (0.84, 0.66),
        (0.16, 0.66),
        (0.88, 0.94),
        (0.12, 0.94),
        (0.62, 1.00),
        (0.38, 1.00),
        (0.64, 1.45),
        (0.36, 1.45),
        (0.66, 1.90),
        (0.34, 1.90),
    ],
    np.float32,
)


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
        np.zeros(size, bool),
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
    """The package's annotated images as a data set: annotations and a folder beside them."""
    content = json.loads((SAMPLES / "annotations.json").read_text())
    (tmp_path / "few").mkdir()
    for image in content["images"]:
        shutil.copy(SAMPLES / image["file_name"], tmp_path / "few")
    (tmp_path / "few.json").write_text(json.dumps(content))
    return tmp_path / "few.json"


@pytest.fixture
def few(data_set: Path) -> tuple[str | Path, ...]:
    """Options that name two annotated images."""
    content = json.loads(data_set.read_text())
    data_set.write_text(json.dumps({**content, "images": content["images"][:2]}))
    return ("--annotations", data_set, "--images", data_set.with_name("few"))


def untracked(items: Any, total: int) -> Any:
    """Stands in for a progress bar."""
    return items


# Checking data sets: the package's images, changed


Content = dict[str, Any]


def check(path: Path) -> Check:
    return check_data(path, "train", COCO17, lambda items, total: items)


def change(path: Path, edit: Callable[[Content], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def person(content: Content) -> dict[str, Any]:
    """The first person, with 16 of 17 keypoints labelled."""
    entry = content["annotations"][0]
    assert entry["num_keypoints"] == 16 and entry["keypoints"][2] == 2
    return entry


def rle(window: tuple[slice, slice], size: tuple[int, int] = (427, 640)) -> dict[str, Any]:
    mask = np.zeros(size, np.uint8, order="F")
    mask[window] = 1
    coded = rle_tools.encode(mask)
    return {"size": list(coded["size"]), "counts": coded["counts"].decode()}


# Decoding: what a perfect network would give, and what comes of it


SIZE = (256, 384)  # height, width of the decoded images
EDGE_SETS = ("tree", "star")


def codec(radius: float = 16.0, **settings: Any) -> Codec:
    return Codec(COCO17, Grid(4, 1.5), EDGE_SETS, radius, DecodeConfig(**settings))


def perfect_fields(sample: Sample, radius: float = 16.0) -> Fields:
    targets, *_ = encode(sample, codec(radius))
    return as_logits(targets)


def assembled(people: People, size: tuple[int, int], confidence: float = 0.02) -> Prediction:
    """The people of an image that was decoded as it is."""
    whole = Letterbox(1.0, 1.0, size, size)
    thresholds = Thresholds(confidence, 0.3, 0.5)
    return assemble(as_raw(people), whole, size, codec().mask_grid, thresholds)


def assert_found(people: Sequence[np.ndarray], prediction: Prediction) -> None:
    """As many people as these, and each of these to half a pixel."""
    assert len(prediction) == len(people)
    for truth in people:
        error = [np.abs(p.keypoints[:, :2] - truth[:, :2]).max() for p in prediction.persons]
        assert min(error) < 0.5


def poses_of(*keypoints: np.ndarray) -> Poses:
    points = np.stack([np.vstack((k[:, :2], k[:, :2].mean(0))) for k in keypoints])[None]
    position = torch.from_numpy(points.astype(np.float32)).permute(0, 3, 1, 2)
    ones = torch.ones(1, len(keypoints))
    return Poses(position, torch.ones(position[:, 0].shape), ones, ones.long())
