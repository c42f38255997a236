"""The small scripts of tools/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from core.conftest import SAMPLES

TOOLS = Path(__file__).parents[2] / "tools"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOLS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_hold_out_parts_a_data_set_in_two(tmp_path: Path) -> None:
    done = run("hold_out.py", SAMPLES, 3, tmp_path / "parts")
    assert done.returncode == 0, done.stderr
    whole = json.loads((SAMPLES / "annotations.json").read_text())
    train, held = (
        json.loads((tmp_path / f"parts/{n}.json").read_text()) for n in ("train", "held")
    )
    assert held["images"] == whole["images"][::3]
    for key in ("images", "annotations"):
        assert sorted(e["id"] for e in train[key] + held[key]) == sorted(
            e["id"] for e in whole[key]
        )
    assert train["categories"] == held["categories"] == whole["categories"]
    for part in (train, held):
        ids = {image["id"] for image in part["images"]}
        assert {entry["image_id"] for entry in part["annotations"]} <= ids
    assert (tmp_path / "parts/held" / held["images"][0]["file_name"]).is_file()


def test_hold_out_names_what_is_missing(tmp_path: Path) -> None:
    done = run("hold_out.py", tmp_path / "absent", 3, tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "absent" in done.stderr


def test_losses_of_several_stages_are_drawn(tmp_path: Path) -> None:
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text(
            "step,epoch,loss,keypoint_ap\n10,0,2.0,\n20,0,1.0,\n20,0,,0.1\n"
        )
    done = run("plot_metrics.py", tmp_path / "one.csv", tmp_path / "two.csv", tmp_path / "l.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")
