"""Persons who flicker in a video are counted."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from kdc_core.cli import app
from kdc_core.codec.results import Person, Prediction
from kdc_core.data.sources import read_frames
from kdc_core.evaluation.flicker import box_iou, count_flicker
from kdc_core.stopping import SIGNALS


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
    assert found.fraction == 1 / 6


def test_people_who_come_and_go_do_not_flicker() -> None:
    clip = [frame(10), frame(10, 200), frame(10, 200), frame(200), frame(200)]
    assert count_flicker(clip).missing == 0
    assert count_flicker([frame(), frame(), frame()]).expected == 0


def test_frames_about_an_unread_one_are_not_judged() -> None:
    steady = [frame(10) for _ in range(6)]
    found = count_flicker([*steady[:3], None, frame(10), frame(), frame(10)])
    assert (found.frames, found.expected, found.missing) == (6, 2, 1)
    beside = count_flicker([frame(10), frame(10), None, frame(), frame(10)])
    assert beside.expected == 0, "nothing is known of the frame before the empty one"


def test_overlap_of_boxes() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert np.allclose(box_iou(a, b), [[1 / 3, 0]])


def test_the_command_counts_the_sample_clip(samples: Path, tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mp4", tmp_path / "f.json"
    frames = itertools.islice(read_frames(str(samples / "people.mp4")), 10)
    images = [frame.image for frame in frames if frame.image is not None]
    size = (images[0].shape[1], images[0].shape[0])
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size)
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    done = CliRunner().invoke(app, ["flicker", str(clip), "--json", str(out)])
    assert done.exit_code == 0, done.output
    figures = json.loads(out.read_text())[str(clip)]
    assert figures["frames"] == 10 and figures["expected"] > 5
    assert figures["share"] < 0.25


def test_a_clip_too_short_to_count_costs_the_others_nothing(samples: Path, tmp_path: Path) -> None:
    frames = [frame.image for frame in read_frames(str(samples / "people.mp4"))]
    for name, count in (("whole", 4), ("short", 2)):
        small = [cv2.resize(image, (160, 96)) for image in frames[:count] if image is not None]
        writer = cv2.VideoWriter(
            str(tmp_path / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (160, 96)
        )
        for image in small:
            writer.write(image)
        writer.release()
    clips, out = (
        [str(tmp_path / f"{name}.mp4") for name in ("short", "whole")],
        tmp_path / "f.json",
    )
    done = CliRunner().invoke(app, ["flicker", *clips, "--json", str(out)])
    assert done.exit_code == 1 and "short.mp4' gave 2 frames" in done.output
    assert list(json.loads(out.read_text())) == [clips[1]]


def test_figures_are_written_although_nobody_reads_them(samples: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "kdc_core", "flicker", str(samples / "people.mp4")]
        done = subprocess.run(
            [*command, "--json", "f.json"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1 and b"No space left" in done.stderr
    assert len(json.loads((tmp_path / "f.json").read_text())) == 1


def test_figures_are_written_although_nobody_reads_the_progress(
    samples: Path, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "kdc_core", "flicker", str(samples / "people.mp4")]
    done = subprocess.run(
        [*command, "--json", "f.json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=writing
    )
    os.close(writing)
    assert done.returncode == 0 and b"people.mp4" in done.stdout
    assert len(json.loads((tmp_path / "f.json").read_text())) == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_within_a_frame_is_no_crash(number: int, samples: Path, tmp_path: Path) -> None:
    """The thread that runs the model is waited for, before Python ends."""
    command = [sys.executable, "-m", "kdc_core", "flicker", *[str(samples / "people.mp4")] * 10]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    time.sleep(2.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "terminate" not in err and "Traceback" not in err
