"""Videos that are damaged, cut, or whose boxes say what is not so."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdc_core.data import mp4
from kdc_core.data.mp4 import MOST_BOXES, Box, NoIndex, read_mp4

from .videos import CODECS, make_video, picture, read


@pytest.mark.parametrize("suffix", CODECS)
def test_a_whole_video_is_read_whole(suffix: str, tmp_path: Path) -> None:
    frames, errors = read(make_video(tmp_path / f"v{suffix}"))
    assert errors == [] and [frame.index for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([n / 10 for n in range(30)])
    assert [frame.duration for frame in frames] == pytest.approx([0.1] * 30, abs=0.002)
    for number in (0, 29):
        image = frames[number].image
        assert image is not None and np.abs(image.astype(int) - picture(number)).mean() < 12


@pytest.mark.parametrize("suffix", CODECS)
def test_a_damaged_frame_costs_no_other(suffix: str, tmp_path: Path) -> None:
    """What FFmpeg still makes of the damaged place counts as read."""
    path = make_video(tmp_path / f"v{suffix}")
    data = bytearray(path.read_bytes())
    start = len(data) // 3
    data[start : start + len(data) // 10] = random.Random(1).randbytes(len(data) // 10)
    path.write_bytes(data)
    frames, errors = read(path)
    # Of Matroska all frames up to the next cluster are lost with the head of one.
    assert (12 if suffix in (".mkv", ".webm") else 24) <= len(frames) <= 30
    assert (frames[-1].time or 0) > 2
    if len(frames) < 30:
        assert errors == [f"'{path}': {len(frames)} of 30 frames could be read"]


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".webm"])
def test_of_a_cut_video_what_is_there_is_read(suffix: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / f"v{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    frames, errors = read(path)
    assert 10 < len(frames) < 30
    assert errors == [f"'{path}': {len(frames)} of 30 frames could be read"]
    # The last frame lasts as long as others, not to the end that the header says.
    assert frames[-1].duration == pytest.approx(0.1, abs=0.002)


def test_boxes_within_boxes_without_end_are_no_index(tmp_path: Path) -> None:
    data = b""
    for _ in range(5000):
        data = struct.pack(">I4s", 8 + len(data), b"moov") + data
    (tmp_path / "v.mp4").write_bytes(data)
    with open(tmp_path / "v.mp4", "rb") as file:
        assert read_mp4(file) == (1, None, True)
    assert len(read(tmp_path / "v.mp4")[1]) == 1


def test_boxes_within_boxes_take_no_memory_each(tmp_path: Path) -> None:
    data = struct.pack(">I4s", 100_008, b"free") + bytes(100_000)
    for _ in range(400):
        data = struct.pack(">I4s", 8 + len(data), b"moov") + data
    with pytest.raises(NoIndex, match="without end"):
        Box(b"moov", data)
    (tmp_path / "v.mp4").write_bytes(data)
    with open(tmp_path / "v.mp4", "rb") as file:
        tracemalloc.start()
        try:
            assert read_mp4(file) == (1, None, True)
            assert tracemalloc.get_traced_memory()[1] < 20 * len(data)
        finally:
            tracemalloc.stop()


def test_an_index_of_boxes_without_number_is_none() -> None:
    with pytest.raises(NoIndex, match="more than 65536 boxes"):
        Box(b"moov", struct.pack(">I4s", 8, b"free") * (MOST_BOXES + 1))


def test_boxes_of_a_file_are_walked_over_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "v.mp4")
    index_first(path)
    data = path.read_bytes()
    many = struct.pack(">I4s", 8, b"free") * 100
    monkeypatch.setattr(mp4, "MOST_OUTER", 100)
    for content, frames in ((data + many, 30), (many + data, None)):
        path.write_bytes(content)
        with open(path, "rb") as file:
            told = read_mp4(file)
        assert told is not None and told.frames == frames


def test_hundreds_of_damaged_frames_cost_no_other(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.avi", 900)
    data = bytearray(path.read_bytes())
    places = [place for place in range(len(data) - 8) if data[place : place + 4] == b"00dc"][:900]
    for place in places[100:700]:
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        data[place + 8 : place + 8 + length] = bytes(length)
    path.write_bytes(data)
    frames, errors = read(path)
    assert len(frames) >= 300 and frames[-1].time == pytest.approx(89.9)
    if len(frames) < 900:
        assert errors == [f"'{path}': {len(frames)} of 900 frames could be read"]


def index_first(path: Path) -> None:
    """Move the index of an mp4 to its beginning, as files for the web have it."""
    data = path.read_bytes()
    where, parts = 0, {}
    while where < len(data):
        length = int.from_bytes(data[where : where + 4], "big")
        parts[data[where + 4 : where + 8]] = data[where : where + length]
        where += length
    index = Box(b"moov", parts[b"moov"][8:])
    chunks = index.find("trak/mdia/minf/stbl/stco")
    for number in range(chunks.numbers(4)[0]):
        place = 8 + 4 * number
        chunks.put(place, chunks.numbers(place)[0] + len(parts[b"moov"]))
    rest = b"".join(part for name, part in parts.items() if name not in (b"ftyp", b"moov"))
    path.write_bytes(parts[b"ftyp"] + index.encode() + rest)


def test_an_mp4_that_is_cut(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert read(path) == ([], [f"'{path}' cannot be opened as a video: the file is cut off"])
    path.write_bytes(whole)
    index_first(path)
    data = path.read_bytes()
    assert len(read(path)[0]) == 30
    path.write_bytes(data[: len(data) * 2 // 3])
    frames, errors = read(path)
    assert 10 < len(frames) < 30
    assert errors == [f"'{path}': {len(frames)} of 30 frames could be read"]


def test_what_tools_append_to_an_mp4_is_no_cut(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", 5)
    path.write_bytes(path.read_bytes() + b"\xff\xff\xff\xffnote and more")
    frames, errors = read(path)
    assert len(frames) == 5 and errors == []


def test_a_video_whose_edit_list_hides_frames_misses_none(tmp_path: Path) -> None:
    """As phones leave a video that was trimmed."""
    path = make_video(tmp_path / "v.mp4", 30)
    data = bytearray(path.read_bytes())
    edit = data.index(b"elst") + 12
    ticks = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    struct.pack_into(">Ii", data, edit, 2000, ticks)  # two seconds, from the first on
    path.write_bytes(data)
    frames, errors = read(path)
    assert 15 <= len(frames) < 30 and errors == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damage_anywhere_ends_nothing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_damage(data, tmp_path_factory)


@pytest.mark.all
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_much_damage_anywhere_ends_nothing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_damage(data, tmp_path_factory)


def check_damage(data: st.DataObject, factory: pytest.TempPathFactory) -> None:
    """Times rise, and what is missing of an exact count is said."""
    suffix = data.draw(st.sampled_from(sorted(CODECS)))
    path = make_video(factory.mktemp("damaged") / f"v{suffix}", 12)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=300))
        content[start : start + len(noise)] = noise
    end = data.draw(st.integers(len(content) // 2, len(content)))
    path.write_bytes(content[:end])
    frames, errors = read(path)
    assert len(errors) <= 1 and (frames or errors)
    times = [frame.time or 0.0 for frame in frames]
    assert all(before < after for before, after in itertools.pairwise(times))
    assert all(frame.duration and frame.duration > 0 for frame in frames)
