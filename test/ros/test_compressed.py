"""Compressed images: what they decode to, and what is refused before it is decoded."""

from __future__ import annotations

import struct
import zlib
from array import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_ros.compressed import compressed_to_rgb
from kdc_ros.images import LARGEST_SIDE, BadFrame

PICTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8), (64, 48)
)  # smooth, so that a jpeg of it is close


def encoded(suffix: str, pixels: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def message(data: bytes, form: str = "") -> SimpleNamespace:
    return SimpleNamespace(format=form, data=array("B", data))


def bad(data: bytes, form: str = "") -> str:
    with pytest.raises(BadFrame) as caught:
        compressed_to_rgb(message(data, form))
    return str(caught.value)


@pytest.mark.parametrize("form", ["jpeg", "rgb8; jpeg compressed bgr8", "png", "nonsense"])
@pytest.mark.parametrize(("suffix", "tolerance"), [(".jpg", 40), (".png", 0)])
def test_colors_come_in_order_whatever_the_format_says(
    form: str, suffix: str, tolerance: int
) -> None:
    found = compressed_to_rgb(message(encoded(suffix), form))
    assert found.shape == PICTURE.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - PICTURE).max() <= tolerance


def test_sixteen_bits_and_gray_become_rgb_of_eight() -> None:
    gray = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    found = compressed_to_rgb(message(encoded(".png", gray), "mono16; png compressed"))
    assert (found == (gray >> 4).astype(np.uint8)[..., None]).all(), "of 12 bits"


def test_an_exif_orientation_turns_nothing() -> None:
    """camera_info and depth are of the pixels as they are stored."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    data = encoded(".jpg")
    found = compressed_to_rgb(message(data[:2] + segment + data[2:]))
    assert (found == compressed_to_rgb(message(data))).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@given(part=st.floats(0, 0.999))
@settings(max_examples=60, deadline=None)
def test_an_image_cut_anywhere_is_refused(suffix: str, part: float) -> None:
    data = encoded(suffix)
    assert bad(data[: int(part * (len(data) - 1))])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_bytes_behind_the_end_do_no_harm(suffix: str) -> None:
    data = encoded(suffix)
    found = compressed_to_rgb(message(data + b"\0\xff\xda\0" * 100))
    assert (found == compressed_to_rgb(message(data))).all()


def test_a_jpeg_that_is_cut_behind_a_preview_is_refused() -> None:
    preview = encoded(".jpg", PICTURE[:8, :8])
    segment = b"\xff\xe2" + struct.pack(">H", len(preview) + 2) + preview
    data = encoded(".jpg")
    whole = data[:2] + segment + data[2:]
    assert compressed_to_rgb(message(whole)).shape == PICTURE.shape
    assert "cut off" in bad(whole[:-30])


def png_of(width: int, height: int) -> bytes:
    """A few hundred bytes that say they are a picture of any size."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 1000)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


@pytest.mark.parametrize(
    "size", [(LARGEST_SIDE + 1, 1), (1, LARGEST_SIDE + 1), (2**31, 2**31), (0, 5)]
)
def test_the_size_is_checked_before_anything_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert f"size {size[0]}x{size[1]}" in bad(png_of(*size))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"GIF89a", b"\0" * 12 + encoded(".png"), encoded(".bmp")]
)
def test_what_is_no_jpeg_or_png_is_refused(data: bytes) -> None:
    text = bad(data, "16UC1; compressedDepth png")
    assert f"{len(data)} bytes" in text


def test_a_png_whose_pixels_are_broken_is_refused() -> None:
    data = bytearray(encoded(".png"))
    start = data.index(b"IDAT") + 4
    data[start : start + 2] = b"\0\0"  # no stream of zlib's
    assert "cannot be decoded" in bad(bytes(data))
