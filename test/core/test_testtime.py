"""Beyond one pass of the network: mirrored, scaled, given poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kdc_core.codec.codec import Codec
from kdc_core.codec.encode import encode
from kdc_core.codec.grid import Grid, Letterbox, Level, SideRule
from kdc_core.codec.skeleton import COCO17
from kdc_core.config import DecodeConfig
from kdc_core.data.augment import warp
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.evaluation.testtime import AugmentedPredictor, level_frame, mirror, mirror_fields
from kdc_core.inference.model_files import find_model
from kdc_core.inference.predictor import Predictor

from .conftest import make_people, make_person

LIGHT = find_model("kdc_light", (".safetensors",))


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_fields_of_the_mirrored_image_come_back_as_those_of_the_image(offset: float) -> None:
    grid, size = Grid(4, offset), (128, 160)
    codec = Codec(COCO17, grid, ("tree", "star"), 12.0, DecodeConfig())
    people = make_people([make_person(30, 20, 45), make_person(90, 10, 40)], size)
    wanted, weights, _ = encode(people, codec)
    last = 2 * offset + 4 * (grid.count(size[1]) - 1)
    turned = warp(people, np.array([[-1.0, 0, last], [0, 1, 0]]), size, COCO17.flip)
    fields, turned_weights, _ = encode(turned, codec)
    back = mirror_fields(fields.map(torch.from_numpy), COCO17, codec.edges)
    known = mirror_fields(turned_weights.map(torch.from_numpy), COCO17, codec.edges)
    for name in ("heat", "short", "mid", "mask", "embedding"):
        both = (getattr(weights, name) > 0) & (np.abs(getattr(known, name).numpy()) > 0)
        assert both.mean() > 0.9 * (getattr(weights, name) > 0).mean(), name
        error = np.abs(getattr(back, name).numpy() - getattr(wanted, name)) * both
        # A cell at a disk's rim may fall to the other side by rounding.
        assert np.quantile(error, 0.999) < 1e-3, name


def test_mirroring_puts_cells_on_cells() -> None:
    image = torch.arange(64.0).expand(1, 1, 4, 64)
    turned = mirror(image, Grid(4, 0.0), 16)
    assert turned[0, 0, 0, ::4].tolist() == list(range(60, -1, -4))
    assert turned[0, 0, 0, 61:].tolist() == [0, 0, 0], "beyond the image it is black"


@pytest.mark.parametrize("factor", [1.0, 1.43, 2.0])
def test_a_level_shows_a_point_where_it_says(factor: float) -> None:
    y, x = np.indices((300, 400))
    blob = 255 * np.exp(-((x - 200.0) ** 2 + (y - 100.0) ** 2) / (2 * 5.0**2))
    whole = np.repeat(blob.astype(np.uint8)[..., None], 3, 2)
    letterbox = Letterbox.fit((300, 400), 320, SideRule(32))
    level = Level.fractional(Grid(4, 0.0), factor)
    frame = level_frame(whole, letterbox, level, SideRule(32))
    assert frame.shape[0] % 32 == frame.shape[1] % 32 == 0
    weight = frame[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    at = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    back = letterbox.to_image(level.to_image(at))
    assert back == pytest.approx([200, 100], abs=0.1)


def test_one_plain_pass_finds_what_the_predictor_finds(samples: Path) -> None:
    predictor = Predictor.from_pretrained(str(LIGHT), confidence=0.5, keypoint=0.0)
    plain = AugmentedPredictor(LIGHT)
    for annotated in read_annotations(samples / "annotations.json").images[:2]:
        image = Images(samples).read(annotated.file_name)
        wanted = predictor(image).persons
        found = plain(image, annotated).persons
        assert len(wanted)
        for person in wanted:
            # Of all keypoints: a single one may jump to another peak.
            gaps = [np.median(np.abs(person.keypoints[:, :2] - f.keypoints[:, :2])) for f in found]
            assert min(gaps) < 2, "far from what the program finds"


def test_given_keypoints_come_out_as_they_went_in(samples: Path) -> None:
    fed = AugmentedPredictor(LIGHT, given=True)
    annotated = read_annotations(samples / "annotations.json").images[0]
    prediction = fed(Images(samples).read(annotated.file_name), annotated)
    labelled = [person for person in annotated.people if person.labelled.any()]
    assert len(prediction) == len(labelled)
    for person in labelled:
        seen = person.labelled
        gaps = [
            np.abs(p.keypoints[seen, :2] - person.keypoints[seen, :2]).max()
            for p in prediction.persons
        ]
        assert min(gaps) < 0.01
    assert sum(p.area for p in prediction.persons) > 1000
