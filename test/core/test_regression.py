"""The shipped models on the pictures of the package: they must not get worse unnoticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Recorded with the shipped files by the command below.
RECORDED = {"kdc_light": {"keypoint_ap": 0.7473, "mask_ap_keypoint_persons": 0.6164}}
LOSS = 0.02


@pytest.mark.parametrize("model", sorted(RECORDED))
def test_the_shipped_program_is_as_good_as_recorded(
    model: str, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kdc_core",
            "evaluate",
            "--model",
            model,
            "--annotations",
            str(samples / "annotations.json"),
            "--images",
            str(samples),
            "--runtime",
            "onnxruntime",
            "--json",
            str(out),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    for name, recorded in RECORDED[model].items():
        assert recorded > 0 and figures[name] > recorded - LOSS, name
