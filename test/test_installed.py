"""Predict and evaluate by what is installed, be it the lowest versions: `make test-lowest`.

Beside the tests of the node these need no torch and none of the tools of `make dev`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

pytestmark = [pytest.mark.all, pytest.mark.slow]

SAMPLES = Path(str(files("kdc_core") / "samples"))


def kdc(*arguments: object) -> str:
    """What a command prints, which must do what it is asked to."""
    done = subprocess.run(
        [sys.executable, "-m", "kdc_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", ["", "predict", "evaluate", "data check"])
def test_help_is_printed(command: str) -> None:
    assert "Usage: " in kdc(*command.split(), "--help")


def test_the_folder_of_engines_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before anything was built, and without making it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for command in ("list", "clean"):
        assert "nothing was built yet" in kdc("engine", command)
    assert not any(tmp_path.iterdir())


def test_predict_finds_people_in_images_and_a_video(tmp_path: Path) -> None:
    people = tmp_path / "people.json"
    kdc("predict", SAMPLES, "--json", people, "--output", tmp_path / "overlays")
    found = json.loads(people.read_text())["images"]
    assert any(entry["frame"] is None and entry["persons"] for entry in found)
    assert any(entry["frame"] is not None and entry["persons"] for entry in found)
    assert list((tmp_path / "overlays").iterdir())


def test_evaluate_scores_keypoints_and_masks(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    annotations = ("--annotations", SAMPLES / "annotations.json", "--images", SAMPLES)
    kdc("evaluate", *annotations, "--json", report)
    figures = json.loads(report.read_text())
    assert figures["keypoint_ap"] > 0.5 and figures["mask_ap_full"] > 0.3
