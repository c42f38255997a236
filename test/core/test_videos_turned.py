"""Videos that are turned and mirrored: by a matrix of mp4, by a pose of Matroska."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdc_core.data.matroska import read_matroska
from kdc_core.data.mp4 import read_mp4

from .videos import element, make_video, number, picture, read

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
