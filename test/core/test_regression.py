"""The shipped models on the images of the package: they must not get worse unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdc_core import Predictor
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.evaluation.run import evaluate

# Recorded with shipped files, by `kdc evaluate --runtime onnxruntime`; the best of each so far.
RECORDED = {"kdc_light": {"keypoint_ap": 0.7869, "mask_ap_keypoint_persons": 0.6376}}
LOSS = 0.02


@pytest.mark.parametrize("model", sorted(RECORDED))
def test_the_shipped_program_is_as_good_as_recorded(model: str, samples: Path) -> None:
    predictor = Predictor.from_pretrained(model, "onnxruntime", confidence=0.0, keypoint=0.0)
    store = Images(samples)
    done = evaluate(
        read_annotations(samples / "annotations.json"),
        lambda annotated: predictor(store.read(annotated.file_name)),
        lambda items, total: items,
    )
    assert not done.failed
    for name, recorded in RECORDED[model].items():
        assert recorded > 0 and done.figures[name] > recorded - LOSS, name
