"""Rates and time stamps of videos, and how long an overlay lasts."""

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.data.mp4 import retime
from kdc_core.data.sources import count_frames
from kdc_core.show.video_file import VideoFile

from .videos import SIZE, duration, make_video, picture, read, set_rate


@pytest.mark.parametrize(
    ("scale", "rate"), [(1, 0), (0, 25), (0, 0), (1, 4000), (1001, 120000), (17, 1000), (7, 3)]
)
def test_any_rate_gives_times_and_an_overlay(scale: int, rate: int, tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.avi", 12)
    set_rate(path, scale, rate)
    frames, errors = read(path)
    assert errors == [] and len(frames) == 12
    written = VideoFile(tmp_path / "o.mp4", SIZE)
    for frame in frames:
        assert frame.image is not None and frame.duration is not None and frame.duration > 0
        written.write(frame.image, frame.duration)
    written.close()
    assert count_frames(str(tmp_path / "o.mp4")) == 12
    if scale and 0 < rate / scale < 1000:
        assert duration(tmp_path / "o.mp4") == pytest.approx(12 * scale / rate, abs=0.1)


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4")
    seconds = [random.Random(n).choice([0.02, 0.1, 0.5]) for n in range(29)] + [2.5]
    with open(path, "r+b") as file:
        retime(file, seconds)
    frames, errors = read(path)
    begins = [0.0, *itertools.accumulate(seconds[:-1])]
    assert errors == [] and [f.time for f in frames] == pytest.approx(begins, abs=1e-4)
    assert [f.duration for f in frames] == pytest.approx(seconds, abs=0.02)
    written = VideoFile(tmp_path / "o.mp4", SIZE)
    for frame in frames:
        assert frame.image is not None
        written.write(frame.image, frame.duration or 0)
    written.close()
    assert duration(tmp_path / "o.mp4") == pytest.approx(sum(seconds), abs=0.1)
    again, _ = read(tmp_path / "o.mp4")
    assert [f.time for f in again] == pytest.approx(begins, abs=1e-3)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@settings(max_examples=15, deadline=None)
@given(
    seconds=st.lists(st.sampled_from([0.0, 1e-5, 0.01, 0.04, 0.3, 5, 100]), min_size=2, max_size=9)
)
def test_an_overlay_lasts_as_long_as_any_source(
    seconds: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("times")
    seconds = [*seconds, 0.2]
    path = make_video(folder / "v.mp4", len(seconds))
    with open(path, "r+b") as file:
        retime(file, seconds)
    frames, errors = read(path)
    assert errors == [] and len(frames) == len(seconds)
    assert all((a.time or 0) < (b.time or 0) for a, b in itertools.pairwise(frames))
    written = VideoFile(folder / "o.mp4", SIZE)
    for frame in frames:
        assert frame.image is not None
        written.write(frame.image, frame.duration or 0)
    written.close()
    assert duration(folder / "o.mp4") == pytest.approx(sum(seconds), abs=0.1)


def test_a_slow_webm_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    """OpenCV knows its duration to half a frame alone, here a second."""
    path = make_video(tmp_path / "v.webm", 5, rate=0.5)
    data = bytearray(path.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3
    assert struct.unpack_from(">d", data, place)[0] == pytest.approx(10_000, abs=1)
    struct.pack_into(">d", data, place, 8_700.0)
    path.write_bytes(data)
    frames, errors = read(path)
    assert errors == [] and [f.time for f in frames] == pytest.approx([0, 2, 4, 6, 8])
    assert frames[-1].duration == pytest.approx(0.7)


@pytest.mark.parametrize("seconds", [[1e-6] * 8, [90_000.0] * 8, [1e9] * 8])
def test_durations_that_no_index_holds_are_the_nearest(
    seconds: list[float], tmp_path: Path
) -> None:
    written = VideoFile(tmp_path / "o.mp4", SIZE)
    for number, shown in enumerate(seconds):
        written.write(picture(number), shown)
    written.close()
    assert count_frames(str(tmp_path / "o.mp4")) == 8
