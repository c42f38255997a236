"""Missing of a video is what is stored and cannot be decoded, not what was never recorded."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_core.data import avi, matroska
from kdc_core.data.avi import count_repeats
from kdc_core.data.matroska import count_frames

from .videos import element, make_video, number, read

SEGMENT, CLUSTER, TRACKS, TRACK, VIDEO = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0
SIMPLE, GROUP, BLOCK, VOID = 0xA3, 0xA0, 0xA1, 0xEC


def elements(data: bytes | bytearray, at: int = 0) -> list[tuple[int, int, int, int]]:
    """Name, place, place of the length and of the content, those in segments and clusters too."""
    data, found = bytes(data), []
    while at < len(data):
        name, middle = number(data, at)
        length, begin = number(data, middle)
        found.append((name, at, middle, begin))
        inside = name in (SEGMENT, CLUSTER)
        at = begin if inside else begin + (length & ~(1 << length.bit_length() - 1))
    return found


def leave_out(path: Path) -> list[int]:
    """Every fifth frame of a Matroska video, as a camera that drops some; those that are left."""
    data = bytearray(path.read_bytes())
    places = [place for name, place, _, _ in elements(data) if name == SIMPLE]
    for place in places[2:-1:5]:
        data[place] = VOID
    path.write_bytes(data)
    return [index for index in range(len(places)) if index not in range(len(places))[2:-1:5]]


def spoil(path: Path, first: int, last: int) -> None:
    """Overwrite what is in some of the stored frames of a Matroska video."""
    data = bytearray(path.read_bytes())
    found = [place for place in elements(data) if place[0] == SIMPLE]
    for _, _, middle, begin in found[first:last]:
        length = number(bytes(data[middle:begin]), 0)[0]
        end = begin + (length & ~(1 << length.bit_length() - 1))
        data[begin + 4 : end] = b"\xff" * (end - begin - 4)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_frames_that_were_not_recorded_are_not_missing(suffix: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / f"v{suffix}", 60)
    left = leave_out(path)
    frames, errors = read(path)
    assert errors == [] and len(left) == 48
    assert [frame.time for frame in frames] == pytest.approx([n / 10 for n in left], abs=0.001)


def test_of_a_variable_rate_the_damaged_frames_are_missing(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", 60)
    leave_out(path)
    spoil(path, 20, 25)
    frames, errors = read(path)
    # FFV1 needs the frame before, up to the next whole one.
    assert 38 < len(frames) < 44
    assert errors == [f"'{path}': {len(frames)} of 48 frames could be read"]


def test_hundreds_of_damaged_frames_of_matroska_cost_no_other(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", 700)
    spoil(path, 100, 600)
    frames, errors = read(path)
    assert len(frames) == 200 and frames[-1].time == pytest.approx(69.9)
    assert errors == [f"'{path}': 200 of 700 frames could be read"]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_live_recording_has_what_is_in_it(suffix: str, tmp_path: Path) -> None:
    """Segment and clusters have no length in it, and it may end within a frame."""
    path = make_video(tmp_path / f"v{suffix}", 60)
    left = leave_out(path)
    data = bytearray(path.read_bytes())
    blocks = []
    for name, place, middle, begin in elements(data):
        if name in (SEGMENT, CLUSTER):
            width = begin - middle
            data[middle:begin] = ((1 << 7 * width + 1) - 1).to_bytes(width, "big")
        blocks += [place] if name == SIMPLE else []
    path.write_bytes(data)
    frames, errors = read(path)
    assert len(frames) == len(left) and errors == []
    path.write_bytes(data[: blocks[30] + 9])
    frames, errors = read(path)
    assert len(frames) == 30 and errors == []


def recording(
    *content: bytes, video: bytes = b"", sound: bytes = b"", name: bytes = b"V_FFV1"
) -> bytes:
    """A Matroska file of one cluster, whose video is track 1 and whose sound is track 2."""
    seen = element(TRACK, element(0xD7, b"\1") + element(0x86, name) + element(VIDEO, video))
    tracks = element(TRACKS, seen + element(TRACK, element(0xD7, b"\2") + sound))
    cluster = element(CLUSTER, element(0xE7, b"\0") + b"".join(content))
    return element(0x1A45DFA3, b"") + element(SEGMENT, tracks + cluster)


def block(content: bytes = b"frame", flags: int = 0, track: int = 1) -> bytes:
    return element(SIMPLE, bytes([0x80 | track, 0, 0, flags]) + content)


FRAME = block()
GROUPED = element(GROUP, element(BLOCK, b"\x81\0\0\0frame") + element(0x9B, b"\5"))
RECORDINGS = {
    "blocks": (recording(FRAME, FRAME), 2),
    "groups": (recording(GROUPED, FRAME, GROUPED), 3),
    "sound": (recording(FRAME, block(track=2), FRAME), 2),
    "nothing in it": (recording(FRAME, block(b"")), 1),
    "invisible": (recording(FRAME, block(flags=0x08)), 1),
    "laced": (recording(FRAME, block(b"\2...", flags=0x04)), 4),
    "VP8's alternate reference": (
        recording(block(b"\x10vp8"), block(b"\x01alt"), block(b"\x11vp8"), name=b"V_VP8"),
        2,
    ),
    "interlaced": (recording(FRAME, video=element(0x9A, b"\1")), None),
    "progressive": (recording(FRAME, video=element(0x9A, b"\2")), 1),
    "two videos": (recording(FRAME, sound=element(VIDEO, b"")), None),
    "an unknown name": (recording(FRAME, element(0x86, b"x"), FRAME), None),
    "a length past the cluster": (recording(FRAME, b"\xa3\x08\x7f\xff\xff\xff"), None),
    "a length past all": (recording(FRAME, b"\xa3\x01" + b"\xff" * 6 + b"\xfe"), None),
    "zeros": (recording(FRAME, bytes(50)), None),
    "no segment": (element(0x1A45DFA3, b""), None),
    "another file": (b"RIFF\0\0\0\0AVI ", None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("what", RECORDINGS)
def test_the_frames_of_a_matroska_file_are_counted(what: str) -> None:
    data, frames = RECORDINGS[what]
    assert count_frames(io.BytesIO(data), len(data)) == frames


def test_a_walk_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data = recording(*[FRAME] * 100)
    monkeypatch.setattr(matroska, "MOST_ELEMENTS", 50)
    assert count_frames(io.BytesIO(data), len(data)) is None
    data = riff(*[(b"00dc", b"")] * 100)
    assert count_repeats(io.BytesIO(data), len(data)) == 100
    monkeypatch.setattr(avi, "MOST_CHUNKS", 50)
    assert count_repeats(io.BytesIO(data), len(data)) < 50


# AVI


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def riff(*content: tuple[bytes, bytes], streams: tuple[bytes, ...] = (b"vids",)) -> bytes:
    heads = b"".join(
        chunk(b"LIST", b"strl" + chunk(b"strh", kind + bytes(52))) for kind in streams
    )
    frames = b"movi" + b"".join(chunk(*one) for one in content)
    inside = chunk(b"LIST", b"hdrl" + heads) + chunk(b"LIST", frames)
    return chunk(b"RIFF", b"AVI " + inside)


def repeat(path: Path) -> int:
    """Have every fifth frame of an avi be the one before it again; how many that are."""
    data = path.read_bytes()
    start = data.index(b"movi") - 8
    length = struct.unpack_from("<I", data, start + 4)[0]
    at, number, frames, index = start + 12, 0, b"movi", b""
    while at < start + 8 + length:
        size = struct.unpack_from("<I", data, at + 4)[0]
        content = b"" if number % 5 == 2 else data[at + 8 : at + 8 + size]
        index += struct.pack("<4s3I", data[at : at + 4], 16, len(frames), len(content))
        frames += chunk(data[at : at + 4], content)
        at, number = at + 8 + size + size % 2, number + 1
    inside = data[12:start] + chunk(b"LIST", frames) + chunk(b"idx1", index)
    path.write_bytes(chunk(b"RIFF", b"AVI " + inside))
    return len(range(2, number, 5))


def test_a_frame_that_is_shown_again_is_not_missing(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.avi", 60)
    assert repeat(path) == 12
    frames, errors = read(path)
    assert errors == [] and [round(frame.time or 0, 3) for frame in frames] == [
        n / 10 for n in range(60) if n % 5 != 2
    ]
    data = path.read_bytes()
    place = next(at for at in range(len(data) // 2, len(data)) if data[at : at + 4] == b"00dc")
    size = struct.unpack_from("<I", data, place + 4)[0]
    path.write_bytes(data[: place + 8] + bytes(size) + data[place + 8 + size :])
    assert size > 0
    assert read(path)[1] == [f"'{path}': 47 of 48 frames could be read"]
    path.write_bytes(data[: len(data) // 2])
    frames, errors = read(path)
    assert 20 < len(frames) < 48 and len(errors) == 1


@pytest.mark.parametrize(
    ("data", "repeats"),
    [
        (riff((b"00dc", b"."), (b"00dc", b""), (b"00dc", b"..")), 1),
        (riff((b"00dc", b""), (b"01dc", b""), streams=(b"auds", b"vids", b"vids")), 1),
        (riff((b"00dc", b""), (b"\xff\xff\xff\xff", b""), (b"00dc", b"")), 1),
        (riff((b"LIST", b"rec " + chunk(b"00dc", b""))), 1),
        (riff((b"00dc", b""), streams=()), 0),
        (b"RIFF\0\0\0\0WEBP", 0),
        (b"", 0),
    ],
)
def test_the_repeats_of_an_avi_are_counted(data: bytes, repeats: int) -> None:
    assert count_repeats(io.BytesIO(data), len(data)) == repeats


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_anywhere_ends_no_counting(data: st.DataObject) -> None:
    wholes = [recording(FRAME, GROUPED, FRAME), riff((b"00dc", b""), (b"00dc", b"."))]
    content = bytearray(data.draw(st.sampled_from(wholes)))
    start = data.draw(st.integers(0, len(content) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=12))
    content[start : start + len(noise)] = noise
    end = data.draw(st.integers(0, len(content)))
    file = io.BytesIO(content)
    assert (count_frames(file, end) or 0) >= 0 and count_repeats(file, end) >= 0
