"""Image files as they come: bits, orientation, pages, names."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from kdc_core.data.bits16 import To8Bits
from kdc_core.data.images import (
    ImageError,
    Images,
    count_pages,
    decode_image,
    decode_pages,
)
from kdc_core.data.orientation import read_orientation
from kdc_core.data.tiff import Tiff


@pytest.mark.parametrize(
    ("largest", "bits"),
    [(0, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (16384, 16), (65535, 16)],
)
def test_sixteen_bits_are_scaled_by_the_fewest_that_hold_the_largest(
    largest: int, bits: int
) -> None:
    pixels = np.linspace(0, largest, 64 * 48 * 3).astype(np.uint16).reshape(48, 64, 3)
    scale = To8Bits()
    scaled = scale(pixels)
    assert scaled.dtype == np.uint8 and scale.bits == bits
    np.testing.assert_array_equal(scaled, pixels // 2 ** (bits - 8))
    assert scale.nearly_black == (largest == 0)


def test_the_range_of_a_stream_only_grows() -> None:
    scale = To8Bits()
    assert scale(np.full((4, 4), 1000, np.uint16)).max() == 250
    assert scale(np.full((4, 4), 4000, np.uint16)).max() == 250
    assert scale(np.full((4, 4), 1000, np.uint16)).max() == 62 and scale.bits == 12


def test_a_bright_spot_makes_an_image_nearly_black() -> None:
    pixels = np.full((48, 64), 1000, np.uint16)
    scale = To8Bits()
    scale(pixels)
    assert not scale.nearly_black
    pixels[3:6, 4:7] = 65535
    scale(pixels)
    assert (scale.nearly_black, scale.bits) == (True, 16)


def test_a_defective_pixel_is_white_and_changes_no_other() -> None:
    pixels = np.full((480, 640), 1000, np.uint16)
    pixels[3, 4] = 65535
    scale = To8Bits()
    scaled = scale(pixels)
    assert scale.bits == 10 and not scale.nearly_black
    assert scaled[3, 4] == 255 and np.count_nonzero(scaled == 250) == pixels.size - 1


# Files


def encoded(image: np.ndarray, kind: str, **options: Any) -> bytes:
    """An RGB image as a file, without loss; what is given goes to Pillow."""
    data = io.BytesIO()
    lossless: dict[str, dict[str, Any]] = {
        "webp": {"lossless": True},
        "jpeg": {"quality": 100, "subsampling": 0},
    }
    Image.fromarray(image).save(data, kind, **lossless.get(kind, {}), **options)
    return data.getvalue()


def flag(height: int = 40, width: int = 60) -> np.ndarray:
    """Four fields of different colors, so that no turn of it is like another."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 255, 0, 0
    image[: height // 2, width // 2 :] = 0, 255, 0
    image[height // 2 :, : width // 2] = 0, 0, 255
    return image


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(flag(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.getexif()[0x0112] == orientation
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    got = decode_image(data, "an image")
    assert got.shape == wanted.shape and np.abs(got.astype(int) - wanted).mean() < 1
    assert read_orientation(data) == orientation


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_a_file_cut_anywhere_has_some_orientation(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(flag(), kind, exif=exif)
    seen = {read_orientation(data[:end]) for end in range(len(data))}
    assert seen == {1, 6}


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_files_of_sixteen_bits_are_as_bright_as_the_camera_saw(kind: str, bits: int) -> None:
    full = np.linspace(0, (1 << bits) - 1, 40 * 60).astype(np.uint16).reshape(40, 60)
    _, data = cv2.imencode(f".{kind}", full)
    got = decode_image(data.tobytes(), "a gray image")
    np.testing.assert_array_equal(got, np.dstack([full >> (bits - 8)] * 3).astype(np.uint8))


def test_files_of_floats_are_read_as_eight_bits() -> None:
    image = flag().astype(np.float32) / 255
    _, data = cv2.imencode(".hdr", image[..., ::-1])
    got = decode_image(data.tobytes(), "floats")
    assert got.dtype == np.uint8 and np.abs(got.astype(int) - flag()).max() <= 2


def test_an_image_that_stays_nearly_black_is_named(caplog: pytest.LogCaptureFixture) -> None:
    dark = np.full((40, 60), 300, np.uint16)
    dark[0, 0] = 65535
    decode_image(cv2.imencode(".png", dark)[1].tobytes(), "dark.png")
    assert "'dark.png' is nearly black" in caplog.text


# Pages


def pages(count: int) -> list[np.ndarray]:
    """Images of one size that all differ."""
    found = [flag() for _ in range(count)]
    for index, image in enumerate(found):
        image[5:9, index : index + 4] = 250, 250, 250
    return found


def paged(images: list[np.ndarray], kind: str, **options: Any) -> bytes:
    first, *others = map(Image.fromarray, images)
    return encoded(np.asarray(first), kind, save_all=True, append_images=others, **options)


ANIMATION = pytest.mark.skipif(
    not hasattr(cv2, "imdecodeanimation"), reason="OpenCV before 4.11 reads the first frame alone"
)
PAGED = ["tiff", *(pytest.param(kind, marks=ANIMATION) for kind in ("webp", "png"))]


@pytest.mark.parametrize("kind", PAGED)
def test_each_page_is_read(kind: str) -> None:
    images = pages(20)
    durations = [100 + 10 * index for index in range(20)]
    data = paged(images, kind, **({} if kind == "tiff" else {"duration": durations}))
    assert count_pages(data) == 20
    read = list(decode_pages(data, "pages"))
    assert [page.index for page in read] == list(range(20))
    for page, image in zip(read, images, strict=True):
        np.testing.assert_array_equal(page.image, image)
    seconds = [None] * 20 if kind == "tiff" else [milliseconds / 1e3 for milliseconds in durations]
    assert [page.seconds for page in read] == seconds
    np.testing.assert_array_equal(decode_image(data, "pages"), images[0])


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_of_a_tiff_in_every_layout(order: str, big: bool) -> None:
    """Written by hand: gray pages of 2 x 2, of which the second is a thumbnail of the first."""
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    magic = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    data = bytearray(magic + (struct.pack(order + "HH", 8, 0) if big else b""))
    data += struct.pack(order + offset, len(data) + struct.calcsize("=" + offset))
    for page, kind in enumerate((0, 1, 0)):
        tags = {254: kind, 256: 2, 257: 2, 258: 8, 259: 1, 262: 1, 277: 1, 278: 2, 279: 4}
        size = struct.calcsize("=" + entry) + struct.calcsize("=" + offset)
        end = len(data) + struct.calcsize("=" + count) + (len(tags) + 2) * size
        end += struct.calcsize("=" + offset)
        tags |= {273: end, 274: 3}
        data += struct.pack(order + count, len(tags))
        for tag in sorted(tags):
            value = struct.pack(order + "I", tags[tag])
            data += struct.pack(order + entry, tag, 4, 1)
            data += value.ljust(struct.calcsize("=" + offset), b"\0")
        data += struct.pack(order + offset, 0 if page == 2 else end + 4)
        data += bytes([10 * page, 10 * page + 1, 10 * page + 2, 10 * page + 3])
    read = [page.image[..., 0].ravel().tolist() for page in decode_pages(bytes(data), "by hand")]
    assert read == [[3, 2, 1, 0], [23, 22, 21, 20]], "the pages, turned by half"


def test_pages_of_a_tiff_are_patched_in_one_copy_of_it() -> None:
    entry = struct.pack("<HHIHH", 274, 3, 1, 6, 0)
    data = b"II" + struct.pack("<HI", 42, 8)
    for end in (26, 0):
        data += struct.pack("<H", 1) + entry + struct.pack("<I", end)
    tiff = Tiff(data)
    first, second = tiff.pages()
    copy = tiff.alone(first)
    for page in (second, first):
        assert tiff.alone(page) is copy and copy == Tiff(data).alone(page)
        assert tiff.orientation(page) == 6
        assert [Tiff(bytes(copy)).orientation(p) for p in (page, 34 - page)] == [1, 6]


def test_a_tiff_whose_directories_lead_in_a_circle() -> None:
    data = bytearray(paged(pages(3), "tiff"))
    offsets = Tiff(bytes(data)).pages()
    entries = struct.unpack_from("<H", data, offsets[-1])[0]
    struct.pack_into("<I", data, offsets[-1] + 2 + 12 * entries, offsets[0])
    assert len(list(decode_pages(bytes(data), "a circle"))) == 3


def test_an_offset_that_no_file_reaches_leads_nowhere() -> None:
    for offset in (100, 2**63, 2**64 - 1):
        data = b"II+\0" + struct.pack("<HHQ", 8, 0, offset)
        assert Tiff(data).orientation() == 0 and read_orientation(data) == 1
        assert count_pages(data) == 1


def test_an_orientation_that_is_cut_off_is_not_there() -> None:
    """A little-endian file that ends behind the entry's count, or in the number itself."""
    entry = struct.pack("<HHI", 274, 3, 1)
    data = b"II" + struct.pack("<HI", 42, 8) + struct.pack("<H", 1) + entry + b"\x06\0"
    assert Tiff(data).orientation() == 6
    for cut in (1, 2):
        tiff = Tiff(data[:-cut])
        assert tiff.orientation() == 0 and tiff.alone(8) == data[:-cut]


@pytest.mark.parametrize("kind", PAGED)
def test_of_a_cut_file_the_pages_that_are_there_are_read(kind: str) -> None:
    data = paged(pages(40), kind, **({} if kind == "tiff" else {"duration": 100}))
    read = list(decode_pages(data[: len(data) * 2 // 3], "cut"))
    assert 10 < len(read) < 40 and len(read) < count_pages(data[: len(data) * 2 // 3])


# Names


def test_linked_images_are_followed(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    there = next(samples.glob("*.jpg"))
    (tmp_path / "linked" / "a.jpg").symlink_to(there)
    (tmp_path / "linked" / "below").symlink_to(samples)
    images = Images(tmp_path / "linked")
    assert images.read_bytes("a.jpg") == images.read_bytes(f"below/{there.name}")
    for name in ("../linked/a.jpg", "below/../a.jpg", str(there)):
        with pytest.raises(ImageError, match="leads out of"):
            images.read_bytes(name)


# Pickles, which loader processes are given


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_images_are_read_from_a_pickle(kind: str, samples: Path, tmp_path: Path) -> None:
    place, name = samples, next(samples.glob("*.jpg")).name
    if kind == "tar":
        place = tmp_path / "images.tar"
        with tarfile.open(place, "w") as tar:
            tar.add(samples / name, name)
    images = pickle.loads(pickle.dumps(Images(place)))
    np.testing.assert_array_equal(images.read(name), Images(samples).read(name))


# Damage


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_an_error_or_an_image(data: st.DataObject) -> None:
    check_damage(data)


@pytest.mark.all
@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_much_damage_anywhere_is_an_error_or_an_image(data: st.DataObject) -> None:
    check_damage(data)


def check_damage(data: st.DataObject) -> None:
    """Also of what says where pages, EXIF and pixels are."""
    kind = data.draw(st.sampled_from(["jpeg", "png", "webp", "tiff", "pages"]))
    exif = Image.Exif()
    exif[0x0112] = 8
    content = bytearray(
        paged(pages(3), "tiff") if kind == "pages" else encoded(flag(), kind, exif=exif)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=8))
        content[start : start + len(noise)] = noise
    end = data.draw(st.integers(0, len(content)))
    some = bytes(content[:end])
    for page in decode_pages(some, "damaged"):
        assert page.image.dtype == np.uint8 and page.image.shape[2] == 3
    assert count_pages(some) >= 1 and 1 <= read_orientation(some) <= 8
