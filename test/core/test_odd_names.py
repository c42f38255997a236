"""Names of files that no picture, page or plot can show as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from kdc_core.codec.skeleton import COCO17
from kdc_core.data.reading import read_annotations
from kdc_core.datacheck.sheet import write_sheet
from kdc_core.evaluation.plots import draw_bars, draw_lines, draw_points
from kdc_core.inference.predictor import Predictor
from kdc_core.training.evaluation import Evaluation

from .commands import kdc, kdc_process
from .conftest import SAMPLES, check

ODD = os.fsdecode(b"caf\xe9.jpg")  # Latin 1, which is no UTF-8


@pytest.fixture
def odd(data_set: Path) -> Path:
    """Two annotated images, the first of such a name."""
    content = json.loads(data_set.read_text())
    first = content["images"][0]
    (data_set.with_name("few") / first["file_name"]).rename(data_set.with_name("few") / ODD)
    first["file_name"] = ODD
    data_set.write_text(json.dumps({**content, "images": content["images"][:2]}))
    return data_set


def test_names_do_not_steer_the_terminal(samples: Path, tmp_path: Path) -> None:
    """Neither of what fails nor of what the command is given."""
    (tmp_path / "x\x1b]0;title\x07.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    for done in (
        kdc("predict", tmp_path, "--output", out),
        kdc("predict", samples, "--output", out, "--model", "a\x1b[2J"),
    ):
        assert "error: " in done.stderr and not set("\x1b\x07") & set(done.stderr + done.stdout)
        assert "\\x1b" in done.stderr


def test_closed_streams_take_no_file(samples: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m kdc_core predict {samples}/000000000885.jpg"
    files = f"--output {tmp_path}/out --json {tmp_path}/p.json"
    done = subprocess.run(f"{command} {files} <&- >&- 2>&-", shell=True, timeout=600)
    assert done.returncode == 0
    assert json.loads((tmp_path / "p.json").read_text())


@pytest.mark.parametrize("text", ["val_$1_$2.json", "$\\frac{", ODD])
def test_plots_take_any_text(text: str, tmp_path: Path) -> None:
    for plot in (
        lambda path: draw_lines(path, text, [text, "b"], {text: [0.1, 0.2]}),
        lambda path: draw_points(path, text, {text: (1.0, 2.0)}, "x", "y"),
        lambda path: draw_bars(path, text, [text], {text: [0.1]}, "x"),
    ):
        plot(tmp_path / "p.svg")
        assert (tmp_path / "p.svg").stat().st_size
        (tmp_path / "p.svg").unlink()


def test_a_sheet_shows_an_image_of_any_name(odd: Path, tmp_path: Path) -> None:
    assert write_sheet(tmp_path / "s.png", check(odd), COCO17, 24) == 2


def test_evaluate_writes_its_report_of_an_image_of_any_name(odd: Path, tmp_path: Path) -> None:
    content = json.loads(odd.read_text())
    first = content["images"][0]["id"]
    seen = next(a for a in content["annotations"] if a["image_id"] == first and a["num_keypoints"])
    moved = [1.0 if place % 3 < 2 else value for place, value in enumerate(seen["keypoints"])]
    missed = {"id": 1, "keypoints": moved, "bbox": [0, 0, 30, 30], "segmentation": []}
    content["annotations"].append({**seen, **missed})
    odd.write_text(json.dumps(content))
    images = ("--annotations", odd, "--images", odd.with_name("few"))
    # In a process of its own: what it logs has the name in it, which a test runner cannot send.
    done = kdc_process("evaluate", *images, "--report", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9.jpg" in (tmp_path / "r" / "index.html").read_text()


def test_figures_are_there_where_the_curve_cannot_be_drawn(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdc_core.evaluation.calibration.draw_curve", draw)
    images = ("--annotations", odd, "--images", odd.with_name("few"))
    out = ("--curve", tmp_path / "c.png", "--json", tmp_path / "e.json")
    done = kdc("evaluate", *images, *out)
    assert done.returncode == 1 and "No space left" in done.stderr
    assert "mask_ap_full" in done.stdout
    assert "at_default_confidence" in json.loads((tmp_path / "e.json").read_text())


def test_training_draws_what_it_can(tmp_path: Path) -> None:
    """Images for TensorBoard: one of such a name, and one that is too wide for any model."""
    annotated = read_annotations(SAMPLES / "annotations.json").images[0]
    named = SimpleNamespace(**{**vars(annotated), "file_name": ODD})
    people = cv2.cvtColor(
        np.asarray(cv2.imread(str(SAMPLES / annotated.file_name))), cv2.COLOR_BGR2RGB
    )

    class TwoImages(list[Any]):
        annotations = SimpleNamespace(images=[named, named])

    written: list[str] = []
    writer = SimpleNamespace(
        add_image=lambda name, *_, **__: written.append(name.encode().decode())
    )
    evaluation: Any = Evaluation.__new__(Evaluation)
    evaluation.images = TwoImages([(0, np.zeros((8, 17_000, 3), np.uint8)), (1, people)])
    evaluation.metrics = SimpleNamespace(writer=writer)
    predictor = Predictor.from_pretrained("kdc_light", "onnxruntime")
    evaluation._draw(predictor, 3)
    predictor.close()
    assert written == ["caf\\udce9.jpg"]


def test_results_are_written_although_nobody_reads_what_is_printed(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def print_(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("kdc_core.commands.evaluate._print", print_)
    images = ("--annotations", odd, "--images", odd.with_name("few"))
    files = [tmp_path / "r.json", tmp_path / "e.json"]
    done = kdc("evaluate", *images, "--results", files[0], "--json", files[1])
    assert done.returncode == 1 and all(json.loads(file.read_text()) for file in files)
