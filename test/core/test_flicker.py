"""Persons who flicker in a video are counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.evaluation.flicker import box_iou, count_flicker


def frame(*xs: float) -> Prediction:
    """People with boxes 40 x 100 at these x."""
    persons = tuple(
        Person(
            0.9,
            np.zeros((17, 3), np.float32),
            np.array([x, 10, x + 40, 110], np.float32),
            np.zeros((0, 0), bool),
            (0, 0),
            np.zeros((0, 4), np.float32),
        )
        for x in xs
    )
    return Prediction((200, 400), persons)


def test_a_person_missing_once_is_counted_once() -> None:
    steady = [frame(10 + 5 * i, 200) for i in range(6)]
    assert count_flicker(steady).missing == 0
    flickering = [*steady[:2], frame(20), *steady[3:]]
    found = count_flicker(flickering)
    assert (found.frames, found.missing, found.frames_with_missing) == (6, 1, 1)
    assert found.expected == 2 * 4 - 2, "beside the gap the second person has no two neighbours"
    assert found.share == 1 / 6


def test_people_who_come_and_go_do_not_flicker() -> None:
    clip = [frame(10), frame(10, 200), frame(10, 200), frame(200), frame(200)]
    assert count_flicker(clip).missing == 0
    assert count_flicker([frame(), frame(), frame()]).expected == 0


def test_overlap_of_boxes() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert np.allclose(box_iou(a, b), [[1 / 3, 0]])


def test_the_command_counts_the_sample_clip(samples: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kdc_core",
            "flicker",
            str(samples / "people.mp4"),
            "--json",
            str(tmp_path / "f.json"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "f.json").read_text())[str(samples / "people.mp4")]
    assert figures["frames"] == 40 and figures["expected"] > 20
    assert figures["share"] < 0.25
