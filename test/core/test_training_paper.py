"""Training the paper's model, with a short trunk, also of CrowdPose's people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kdc_core.cli import app
from kdc_core.config import Config
from kdc_core.config_file import load_preset
from kdc_core.data.annotations import AnnotationError
from kdc_core.inference.export import export_onnx
from kdc_core.inference.predictor import Predictor
from kdc_core.network import resnet
from kdc_core.training.samples import TrainingSamples

from .conftest import SAMPLES, SHARED
from .runs import figures, rows, train

PAPER = [
    "train.crop=129",
    "train.longer_side=[129, 200]",
    "train.steps=2",
    "train.epochs=null",
    "train.batch=2",
    "train.workers=0",
    "network.segnet_width=16",
    "network.segnet_tower=16",
    "predict.longer_side=129",
    "decode.seeds=16",
    "decode.peaks=8",
    "decode.people=8",
    "decode.suppression_rounds=2",
    "train.evaluate_every=2",
]


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Config:
    """The paper's model with one block in each stage of its trunk, not 33 in all."""
    monkeypatch.setitem(resnet.BLOCKS, "resnet101", (1, 1, 1, 1))
    return load_preset("paper_resnet101", PAPER)


def test_the_papers_model_trains_and_evaluates(
    paper: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = train(None, tmp_path / "run", config=paper, val=SAMPLES)
    assert "from random weights" in caplog.text
    assert {"heat", "short", "mid", "mask", "embedding"} <= set(rows(output)[0])
    assert list(figures(output)) == [2]


@pytest.mark.all
def test_the_papers_model_answers_alike_when_exported(paper: Config, tmp_path: Path) -> None:
    model = train(None, tmp_path / "run", config=paper) / "model.safetensors"
    export_onnx(model, tmp_path / "paper.onnx")
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    one, two = (
        Predictor.from_pretrained(str(path), confidence=0.0, keypoint=0.0)
        for path in (model, tmp_path / "paper.onnx")
    )
    assert one.letterbox((90, 120)).size == (97, 129), "8 n + 1"
    a, b = one(image), two(image)
    assert len(a) == len(b)
    for person, same in zip(a.persons, b.persons, strict=True):
        assert person.score == pytest.approx(same.score, abs=1e-3)


CROWDPOSE = SHARED / "data" / "other" / "crowdpose"


@pytest.mark.skipif(not CROWDPOSE.is_dir(), reason="needs ../shared/data/other/crowdpose")
def test_crowdpose_trains_and_is_scored_by_its_own_protocol(paper: Config, tmp_path: Path) -> None:
    changes = [*PAPER, "fields.skeleton=crowdpose14"]
    with pytest.raises(AnnotationError, match="no person with masks"):
        TrainingSamples([str(CROWDPOSE)], load_preset("paper_resnet101", changes))
    config = load_preset("paper_resnet101", [*changes, "train.train=[posenet]"])
    output = train(None, tmp_path / "run", config=config, data=CROWDPOSE, val=CROWDPOSE)
    assert rows(output)[-1]["keypoint_ap_crowd_medium"]
    arguments = ["--annotations", CROWDPOSE / "annotations.json", "--images", CROWDPOSE]
    arguments += ["--model", output / "model.safetensors", "--json", tmp_path / "ap.json"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "ap.json").read_text())
    assert found["keypoint_ap_crowd_easy"] == -1, "no such image in the sample"
    assert found["keypoint_ap_crowd_medium"] >= 0
