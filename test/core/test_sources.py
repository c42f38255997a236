"""Videos and folders as they come: damage, rates, time stamps, matrices, names."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kdc_core.data import gif, mp4
from kdc_core.data.images import ImageError, Images
from kdc_core.data.matroska import read_matroska
from kdc_core.data.mp4 import MOST_BOXES, Box, NoIndex, read_mp4, retime
from kdc_core.data.sources import Frame, SourceError, count_frames, list_sources, read_frames
from kdc_core.show.video_file import VideoFile

SIZE = (96, 128)  # of the videos made here
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "FFV1", ".webm": "VP80"}


def picture(number: int) -> np.ndarray:
    """(H, W, 3) RGB noise that moves, with no two corners alike."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[0], 4 * SIZE[1], 3), np.uint8)
    left = number % (3 * SIZE[1])
    image = cv2.GaussianBlur(noise, (9, 9), 3)[:, left : left + SIZE[1]].copy()
    image[: SIZE[0] // 2, : SIZE[1] // 2, 0] = 255
    image[: SIZE[0] // 2, SIZE[1] // 2 :, 1] = 255
    return image


def make_video(path: Path, frames: int = 30, rate: float = 10.0) -> Path:
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODECS[path.suffix]), rate, SIZE[::-1]
    )
    for number in range(frames):
        writer.write(cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def read(path: str | Path) -> tuple[list[Frame], list[str]]:
    """Frames with an image, and the errors after them."""
    found = list(read_frames(str(path)))
    return [f for f in found if f.image is not None], [f.error for f in found if f.error]


def duration(path: Path) -> float:
    """Of a video, seconds, as OpenCV counts it."""
    capture = cv2.VideoCapture(str(path))
    return capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)


# Damage


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


# Rates and time stamps


def set_rate(path: Path, scale: int, rate: int) -> None:
    """What an avi says of its rate: rate / scale frames a second."""
    data = bytearray(path.read_bytes())
    head = data.index(b"strh") + 8
    struct.pack_into("<II", data, head + 20, scale, rate)
    path.write_bytes(data)


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


# Orientation

MATRICES = {  # of a display, rows of a, b, c, d; and the turn that it stands for
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
SHOWN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: np.fliplr(np.rot90(image, -1)),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.fliplr(np.rot90(image, 1)),
    8: lambda image: np.rot90(image, 1),
}


@pytest.mark.parametrize("orientation", MATRICES)
def test_a_video_is_turned_as_its_matrix_says(orientation: int, tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", 3)
    data = bytearray(path.read_bytes())
    a, b, c, d = (value * 0x10000 for value in MATRICES[orientation])
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with open(path, "rb") as file:
        said = read_mp4(file)
    assert said is not None and said.orientation == orientation and said.frames == 3
    [first, *_], _ = read(path)
    wanted = SHOWN[orientation](picture(0))
    assert first.image is not None and first.image.shape == wanted.shape
    assert np.abs(first.image.astype(int) - wanted).mean() < 12


VIDEO_TRACK = (0x18538067, 0x1654AE6B, 0xAE, 0xE0)  # of Matroska: segment, tracks, track, video
# Degrees of its yaw, which mirrors, and of its roll to the left.
POSES = {1: (0, 0), 2: (180, 0), 3: (0, 180), 4: (-180, -180)} | {
    5: (180, 90),
    6: (0, -90),
    7: (180, 270),
    8: (0, 90),
}


def number(data: bytes, at: int) -> tuple[int, int]:
    """Of Matroska's with its mark, and where it ends."""
    end = at + 9 - data[at].bit_length()
    return int.from_bytes(data[at:end], "big"), end


def element(name: int, content: bytes) -> bytes:
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (
        (1 << 56 | len(content)).to_bytes(8, "big") + content
    )


def with_pose(data: bytes, yaw: float, roll: float, *path: int) -> bytes:
    """A Matroska file, or the element of it at a path, whose video has a projection."""
    if not path:
        pose = element(0x7673, struct.pack(">d", yaw)) + element(0x7675, struct.pack(">f", roll))
        return data + element(0x7670, element(0x7671, b"\0") + pose)
    at = 0
    while True:
        name, begin = number(data, at)
        length, begin = number(data, begin)
        end = begin + (length & ~(1 << length.bit_length() - 1))
        if name == path[0]:
            inside = with_pose(data[begin:end], yaw, roll, *path[1:])
            return data[:at] + element(name, inside) + data[end:]
        at = end


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
@pytest.mark.parametrize("orientation", POSES)
def test_a_matroska_video_is_turned_as_its_pose_says(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    path = make_video(tmp_path / f"v{suffix}", 3)
    path.write_bytes(with_pose(path.read_bytes(), *POSES[orientation], *VIDEO_TRACK))
    with open(path, "rb") as file:
        said = read_matroska(file)
    assert said is not None and said.orientation == orientation
    [first, *_], _ = read(path)
    wanted = SHOWN[orientation](picture(0))
    assert first.image is not None and first.image.shape == wanted.shape
    assert np.abs(first.image.astype(int) - wanted).mean() < 12


# Gifs, animations and floats


def make_gif(path: Path, frames: int) -> bytes:
    """A gif of random frames, each with a table of colors of its own; its bytes."""
    pictures = [Image.fromarray(picture(40 * n)).quantize(64) for n in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    return path.read_bytes()


def test_a_cut_gif_says_that_frames_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    whole = make_gif(path, 6)
    frames, errors = read(path)
    assert len(frames) == 6 and not errors
    for length in (len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:length])
        frames, errors = read(path)
        assert frames and len(errors) == 1 and "frames could be read" in errors[0], length
    path.write_bytes(whole[:-1])  # some programs leave the mark of the end out
    frames, errors = read(path)
    assert len(frames) == 6 and not errors


@given(data=st.binary(max_size=400))
def test_what_only_begins_as_a_gif_is_cut_or_unknown(data: bytes) -> None:
    assert gif.is_cut(io.BytesIO(b"GIF89a" + data)) in (True, False)


@pytest.mark.skipif(not hasattr(cv2, "imencodeanimation"), reason="OpenCV before 4.11")
def test_frames_of_an_animation_that_says_no_times_follow_each_other(tmp_path: Path) -> None:
    animation = cv2.Animation()
    animation.frames = [picture(10 * n) for n in range(4)]
    animation.durations = [0] * 4
    path = tmp_path / "a.webp"
    assert cv2.imwriteanimation(str(path), animation)
    frames, errors = read(path)
    assert not errors
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("suffix", [".pfm", ".tiff", ".hdr"])
def test_white_is_one_in_images_of_floats(suffix: str, tmp_path: Path) -> None:
    values = picture(0)[..., ::-1].astype(np.float32) / 255
    values[:4] = 7.0  # brighter than white
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), values)
    [frame], errors = read(path)
    assert not errors and frame.image is not None and frame.image.dtype == np.uint8
    assert (frame.image[:4] == 255).all()
    assert np.abs(frame.image[4:].astype(int) - picture(0)[4:]).mean() < 2


# Folders and names


def test_of_a_folder_what_opencv_reads_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b.ppm", "a.JPG", "c.avif", "d.mp4", "e.heic", "f.heic", "g", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "below.jpg").mkdir()
    found = [Path(source).name for source in list_sources([str(tmp_path)])]
    assert [n for n in found if n != "c.avif"] == ["a.JPG", "b.ppm", "d.mp4"]
    assert ("c.avif" in found) == cv2.haveImageWriter("x.avif")
    left = "" if cv2.haveImageWriter("x.avif") else "1 .avif, "
    assert f"left out by ending: 2 .heic, 1 folder, {left}1 without" in caplog.text
    with pytest.raises(SourceError, match=r"got 1 \.heic"):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.heic").write_bytes(b"")
        list_sources([str(tmp_path / "other")])
    hidden = str(tmp_path / ".hidden.jpg")
    assert list_sources([hidden]) == [hidden], "who names a hidden file wants it"


def test_pipes_and_devices_are_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jpg", "b.mp4"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "c.png").symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="got 3 pipe or device"):
        list_sources([str(tmp_path)])
    (tmp_path / "d.jpg").symlink_to(tmp_path / "nowhere")
    assert list_sources([str(tmp_path)]) == [str(tmp_path / "d.jpg")], "that is told as an error"
    assert "left out by ending: 3 pipe or device" in caplog.text
    for name in ("a.jpg", "c.png"):
        with pytest.raises(ImageError, match="a regular file"):
            Images(tmp_path).read_bytes(name)


def test_there_is_no_camera_of_a_number_past_all_counting() -> None:
    for digits in (10, 5000):
        with pytest.raises(SourceError, match="there is no camera 99999"):
            list_sources(["9" * digits])


NAMES = [b"\xff\xfe.png", b"%03d.png", b"a\nb.png", b"x" * 251 + b".png", b"'\"\\.png", b"-.png"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [b".png", b".mp4"])
def test_files_of_any_name_are_read(name: bytes, suffix: bytes, tmp_path: Path) -> None:
    check_name(name.removesuffix(b".png"), suffix, tmp_path)


@settings(max_examples=20, deadline=None)
@given(name=st.binary(min_size=1, max_size=251))
def test_files_of_random_bytes_as_names(
    name: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = name.replace(b"/", b"_").replace(b"\0", b"_")
    check_name(b"n" + name[:249], b".mp4", tmp_path_factory.mktemp("names"))


def check_name(name: bytes, suffix: bytes, folder: Path) -> None:
    """It is found in its folder, read, and told by JSON."""
    plain = make_video(folder / "plain.mp4", 2)
    if suffix == b".png":
        plain.write_bytes(cv2.imencode(".png", picture(0))[1].tobytes())
    below = os.fsencode(folder) + b"/below"
    os.mkdir(below)
    os.rename(plain, below + b"/" + name + suffix)
    [source] = list_sources([os.fsdecode(below)])
    frames, errors = read(source)
    assert errors == [] and len(frames) == (1 if suffix == b".png" else 2)
    told = json.loads(json.dumps(frames[0].source))
    assert os.fsencode(told) == below + b"/" + name + suffix
