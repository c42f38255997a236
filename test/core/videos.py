"""Small videos, written and changed here, and what is read of them."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from kdc_core.data.sources import Frame, read_frames

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


def set_rate(path: Path, scale: int, rate: int) -> None:
    """What an avi says of its rate: rate / scale frames a second."""
    data = bytearray(path.read_bytes())
    head = data.index(b"strh") + 8
    struct.pack_into("<II", data, head + 20, scale, rate)
    path.write_bytes(data)


def number(data: bytes, at: int) -> tuple[int, int]:
    """Of Matroska's with its mark, and where it ends."""
    end = at + 9 - data[at].bit_length()
    return int.from_bytes(data[at:end], "big"), end


def element(name: int, content: bytes) -> bytes:
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (
        (1 << 56 | len(content)).to_bytes(8, "big") + content
    )
