"""How avif files are turned and mirrored: by properties of their own, not by EXIF."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from kdc_core.data.images import decode_image
from kdc_core.data.orientation import read_orientation

from .test_images import encoded, flag

AVIF = pytest.mark.skipif(
    not (features.check("avif") and cv2.haveImageWriter("x.avif")),
    reason="Pillow writes no avif here, or OpenCV reads none",
)


def avif(orientation: int, exif_orientation: int = 1) -> bytes:
    """A flag that is turned by its properties, with EXIF that says something else."""
    exif = Image.Exif()
    # Pillow turns EXIF's orientation into properties: this one it is to leave alone.
    exif[0x0112], exif[0x0103] = orientation, exif_orientation
    data = encoded(flag(), "avif", exif=exif, quality=100, subsampling="4:4:4")
    tag = struct.pack(">HHIH", 0x0103, 3, 1, exif_orientation)
    assert data.count(tag) == 1
    return data.replace(tag, struct.pack(">HHIH", 0x0112, 3, 1, exif_orientation))


@AVIF
@pytest.mark.parametrize("exif_orientation", [1, 6])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_as_its_properties_say(orientation: int, exif_orientation: int) -> None:
    data = avif(orientation, exif_orientation)
    with Image.open(io.BytesIO(data)) as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    got = decode_image(data, "an avif")
    assert got.shape == wanted.shape and np.abs(got.astype(int) - wanted).mean() < 3
    assert read_orientation(data) == orientation


def box(name: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), name) + b"".join(content)


def properties(*said: tuple[bytes, int], wide: bool = False) -> bytes:
    """The boxes of a HEIF file whose item 7 has these properties, as the last of its own."""
    known = [box(b"ispe", bytes(12)), *(box(name, bytes([value])) for name, value in said)]
    numbers = [0x8000 | n if wide else 0x80 | n for n in range(1, len(known) + 1)]
    entries = [(6, []), (7, numbers)]
    item, number = (">I", ">H") if wide else (">H", ">B")
    table = b"".join(
        struct.pack(item, which) + bytes([len(of)]) + b"".join(struct.pack(number, n) for n in of)
        for which, of in entries
    )
    head = bytes([wide, 0, 0, wide])
    first = box(b"pitm", bytes([wide, 0, 0, 0]), struct.pack(item, 7))
    said_of = box(b"ipma", head, struct.pack(">I", len(entries)), table)
    inside = box(b"iprp", box(b"ipco", *known), said_of)
    return box(b"ftyp", b"avif", bytes(4)) + box(b"meta", bytes(4), first, inside)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("said", "orientation"),
    [
        ((), 1),
        (((b"irot", 1),), 8),
        (((b"irot", 2),), 3),
        (((b"irot", 3),), 6),
        (((b"imir", 0),), 4),
        (((b"imir", 1),), 2),
        (((b"irot", 1), (b"imir", 0)), 5),
        (((b"imir", 0), (b"irot", 1)), 7),
        (((b"irot", 0xFD), (b"imir", 0xFE)), 5),  # bits that are reserved
    ],
)
def test_turns_and_mirrors_apply_in_their_order(
    said: tuple[tuple[bytes, int], ...], orientation: int, wide: bool
) -> None:
    data = properties(*said, wide=wide)
    assert read_orientation(data) == orientation
    assert {read_orientation(data[:end]) for end in range(len(data))} <= set(range(1, 9))


def test_boxes_that_lie_of_their_length_turn_nothing() -> None:
    whole = properties((b"irot", 1))
    start = whole.index(b"meta") - 4
    for length in (2, 7, 9, 2**32 - 1):
        data = bytearray(whole)
        struct.pack_into(">I", data, start, length)
        assert read_orientation(bytes(data)) == (8 if length > 9 else 1)
    assert read_orientation(whole[:start] + struct.pack(">I4sQ", 1, b"free", 3) + whole) == 1
    assert read_orientation(box(b"ftyp") * 100_000 + whole) == 1, "behind too many"


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_anywhere_leaves_some_orientation(data: st.DataObject) -> None:
    wide = data.draw(st.booleans())
    content = bytearray(properties((b"irot", 1), (b"imir", 0), wide=wide))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=8))
        content[start : start + len(noise)] = noise
    assert 1 <= read_orientation(bytes(content)) <= 8
