"""Image messages to RGB, in every encoding; what cv_bridge does is in test_bridge.py."""

from __future__ import annotations

import re
import sys
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_ros.converter import Converter
from kdc_ros.images import ENCODINGS, LARGEST_SIDE, BadFrame, fill_image, to_rgb

HEIGHT, WIDTH = 24, 32
# The order of an encoding's channels, whatever the depth of their values.
ORDERS = {
    "rgb8": "rgb",
    "bgr8": "bgr",
    "rgba8": "rgba",
    "bgra8": "bgra",
    "rgb16": "rgb",
    "bgr16": "bgr",
    "rgba16": "rgba",
    "bgra16": "bgra",
    "mono8": "m",
    "mono16": "m",
    "8UC1": "m",
    "8UC3": "bgr",
    "8UC4": "bgra",
    "16UC3": "bgr",
    "16UC4": "bgra",
}
BAYER = [f"bayer_{p}{d}" for p in ("rggb", "bggr", "gbrg", "grbg") for d in (8, 16)]
UYVY, YUYV = ("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv")
SUBSAMPLED = ("nv12", "nv21")
IMAGES = (*ORDERS, *BAYER, *UYVY, *YUYV, *SUBSAMPLED, "nv24")
WIDE = [e for e in IMAGES if "16" in e]
REFUSED = [
    *("8UC2", "8SC1", "8SC2", "8SC3", "8SC4", "16UC1", "16UC2"),
    *(f"{depth}C{channels}" for depth in ("16S", "32S", "32F", "64F") for channels in "1234"),
]


def scene() -> np.ndarray:
    """Smooth RGB with channels far apart, so that each mix-up of them shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([170 + x, 60 + 2 * y, 150 - x - y], -1).astype(np.uint8)


def gray() -> np.ndarray:
    """All the gray values."""
    return np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor under this pattern sees; the pattern is read along the first two rows."""
    raw = np.zeros(rgb.shape[:2], rgb.dtype)
    for index, color in enumerate(pattern):
        rows, columns = slice(index // 2, None, 2), slice(index % 2, None, 2)
        raw[rows, columns] = rgb[rows, columns, "rgb".index(color)]
    return raw


def yuv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, U, V of BT.601 in video range, as floats."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    u = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    v = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    return y, u, v


def as_bytes(*planes: np.ndarray) -> np.ndarray:
    return np.rint(np.stack(planes, -1)).astype(np.uint8)


def encode_422(rgb: np.ndarray, luma_first: bool) -> np.ndarray:
    """(H, W, 2): each pair of pixels shares one U and one V."""
    y, u, v = yuv(rgb)
    chroma = np.empty_like(y)
    chroma[:, 0::2] = (u[:, 0::2] + u[:, 1::2]) / 2
    chroma[:, 1::2] = (v[:, 0::2] + v[:, 1::2]) / 2
    return as_bytes(y, chroma) if luma_first else as_bytes(chroma, y)


def encode_nv12(rgb: np.ndarray, order: str = "uv") -> np.ndarray:
    """(3/2 H, W): the Y plane, then rows of U V pairs, one for each 2 x 2 pixels."""
    y, u, v = yuv(rgb)
    blocks = {
        name: p.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean((1, 3))
        for name, p in (("u", u), ("v", v))
    }
    pairs = as_bytes(*(blocks[name] for name in order))
    return np.concatenate([as_bytes(y)[..., 0], pairs.reshape(-1, WIDTH)])


def encode(encoding: str) -> tuple[np.ndarray, np.ndarray, int]:
    """The image in this encoding, the RGB that must come back, and the greatest error."""
    rgb = scene()
    if encoding in ORDERS:
        if ORDERS[encoding] == "m":
            values, wanted = gray(), np.repeat(gray()[..., None], 3, -1)
        else:
            alpha = np.full((HEIGHT, WIDTH, 1), 7, np.uint8)
            channels = dict(zip("rgba", np.dsplit(np.dstack([rgb, alpha]), 4), strict=True))
            values, wanted = np.dstack([channels[name] for name in ORDERS[encoding]]), rgb
        return (values * np.uint16(257) if "16" in encoding else values), wanted, 0
    if encoding in BAYER:
        factor = np.uint16(257) if "16" in encoding else np.uint8(1)
        return mosaic(rgb, encoding[len("bayer_") :][:4]) * factor, rgb, 6
    if encoding in UYVY:
        return encode_422(rgb, luma_first=False), rgb, 6
    if encoding in YUYV:
        return encode_422(rgb, luma_first=True), rgb, 6
    if encoding in SUBSAMPLED:
        return encode_nv12(rgb, {"nv12": "uv", "nv21": "vu"}[encoding]), rgb, 6
    assert encoding == "nv24"
    y, u, v = yuv(rgb)
    # The rows of U V pairs are twice as long: each is written as two rows.
    pairs = as_bytes(u, v).reshape(2 * HEIGHT, WIDTH)
    return np.concatenate([as_bytes(y)[..., 0], pairs]), rgb, 2


def frame(encoding: str, padding: int = 0, /, **changes: Any) -> SimpleNamespace:
    """A message of the image in this encoding, `padding` bytes of rubbish after each row."""
    pixels = encode(encoding)[0]
    if changes.get("is_bigendian"):
        pixels = pixels.byteswap()
    planes = [pixels.reshape(len(pixels), -1).view(np.uint8)]
    if encoding == "nv24":
        planes = [planes[0][:HEIGHT], planes[0][HEIGHT:].reshape(HEIGHT, 2 * WIDTH)]
    message = SimpleNamespace(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=0,
        step=planes[0].shape[1] + padding,
        data=array("B"),
    )
    for plane in planes:
        message.data.frombytes(padded(plane, padding).tobytes())
        padding *= 2  # of nv24's second plane
    message.__dict__.update(changes)
    return message


def padded(rows: np.ndarray, padding: int) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=0xA5)


def assert_is_scene(got: np.ndarray, encoding: str) -> None:
    wanted, tolerance = encode(encoding)[1:]
    assert got.dtype == np.uint8
    assert got.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(got.astype(int) - wanted).max() <= tolerance


@pytest.mark.parametrize("encoding", IMAGES)
def test_every_encoding(encoding: str) -> None:
    assert_is_scene(to_rgb(frame(encoding)), encoding)


@pytest.mark.parametrize("padding", [1, 2, 4, 12])
@pytest.mark.parametrize("encoding", IMAGES)
def test_row_padding_is_skipped(encoding: str, padding: int) -> None:
    assert_is_scene(to_rgb(frame(encoding, padding)), encoding)


@pytest.mark.parametrize("encoding", IMAGES)
def test_last_row_may_come_without_padding(encoding: str) -> None:
    message = frame(encoding, 12)
    message.data = message.data[:-12]
    assert_is_scene(to_rgb(message), encoding)


@pytest.mark.parametrize("encoding", IMAGES)
def test_longer_data_is_accepted(encoding: str) -> None:
    message = frame(encoding)
    message.data.extend([0xA5] * 100)
    assert_is_scene(to_rgb(message), encoding)


@pytest.mark.parametrize("padding", [0, 1, 12])
@pytest.mark.parametrize("encoding", IMAGES)
def test_bytes_are_swapped_where_values_have_two(encoding: str, padding: int) -> None:
    if encoding in WIDE:
        assert_is_scene(to_rgb(frame(encoding, padding, is_bigendian=1)), encoding)
    else:  # single bytes have no order, whatever the message says
        message = frame(encoding, padding)
        message.is_bigendian = 1
        assert_is_scene(to_rgb(message), encoding)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("encoding", WIDE)
def test_sixteen_bits_are_scaled_by_those_that_are_filled(encoding: str, bits: int) -> None:
    values, wanted, tolerance = encode(encoding)
    message = frame(encoding)
    if encoding.endswith(("16UC4", "a16")):
        values[..., 3] = 65535  # alpha is full, however few bits the colors fill
        values[..., :3] >>= 16 - bits
    else:
        values = values >> (16 - bits)
    message.data = array("B", values.astype("<u2").tobytes())
    got = to_rgb(message).astype(int)
    assert np.abs(got - wanted).max() <= tolerance + 1


def test_the_largest_value_of_the_stream_counts() -> None:
    """An image that fills fewer bits than those before it is darker, not scaled anew."""
    converter = Converter()
    converter(frame("mono16"))
    dark = frame("mono16")
    dark.data = array("B", (encode("mono16")[0] >> 6).astype("<u2").tobytes())
    assert abs(int(converter(dark).max()) - 255 // 64) <= 1
    assert "nearly black: its values were taken as of 16 bits" in converter.darkness
    converter(frame("mono16"))
    assert converter.darkness == ""


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (frame("rgb8", encoding="rgb9"), "'rgb9' is not known; expected one of rgb8, .*nv12"),
        (frame("rgb8", encoding=""), "'' is not known"),
        *(
            (frame("rgb8", encoding=encoding), f"'{encoding}' is not.* depth .*: publish mono16")
            for encoding in REFUSED
        ),
        (frame("rgb8", width=0), f"size 0x{HEIGHT}: expected sides of 1 to {LARGEST_SIDE}"),
        (frame("rgb8", height=0), f"size {WIDTH}x0"),
        (frame("mono8", width=LARGEST_SIDE + 1, step=LARGEST_SIDE + 1), "8193x24: expected sides"),
        (frame("mono8", height=LARGEST_SIDE + 1), "32x8193: expected sides"),
        (frame("rgb8", step=3 * WIDTH - 1), "step 95: a row of 32 pixels 'rgb8' has 96 bytes"),
        (frame("rgb8", step=0), "step 0"),
        (frame("mono16", step=2 * WIDTH - 1), "step 63"),
        (frame("rgb8", height=HEIGHT + 1), "data has 2304 bytes, expected at least 2400"),
        (frame("rgb8", data=array("B")), "data has 0 bytes"),
        (frame("rgb8", data=frame("rgb8").data[:-1]), "2303 bytes, expected at least 2304"),
        (frame("nv12", data=frame("nv12").data[: HEIGHT * WIDTH]), "data has 768 bytes"),
        (frame("nv24", data=frame("nv24").data[:-1]), "2303 bytes, expected at least 2304"),
        (frame("uyvy", width=31, step=62), "step 62: a row of 31 pixels 'uyvy' has 64 bytes"),
        (frame("nv12", width=31, step=31), "step 31: a row of 31 pixels 'nv12' has 32 bytes"),
        (frame("bayer_rggb8", height=2), "32x2: 'bayer_rggb8' needs sides of at least 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_frames_are_refused(message: Any, text: str) -> None:
    with pytest.raises(BadFrame, match=text):
        to_rgb(message)


def test_every_encoding_of_sensor_msgs_is_known_or_refused() -> None:
    header = Path(sys.prefix) / "include/sensor_msgs/sensor_msgs/image_encodings.hpp"
    if not header.is_file():
        pytest.skip(f"'{header}' comes with the wheels of sensor_msgs only")
    named = re.findall(r'^const char \w+\[\] = "(.*)";', header.read_text(), re.M)
    assert len(named) > 40
    assert set(named) == {*IMAGES, *REFUSED}
    assert set(ENCODINGS) == set(IMAGES)


# Any bytes, against a plain reference


def unpack(encoding: str, planes: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """(H, W, 3) RGB of planes without padding in native byte order, value by value."""
    if encoding in ORDERS:
        order = ORDERS[encoding]
        values = planes[0].reshape(height, width, len(order))
        channels = [values[..., order.index(c) if order != "m" else 0] for c in "rgb"]
        return to_8_bits(np.stack(channels, -1))
    if encoding in BAYER:
        return demosaic(to_8_bits(planes[0]), encoding[len("bayer_") :][:4])
    rgb = np.zeros((height, width, 3))
    for row, column in np.ndindex(height, width):
        rgb[row, column] = from_yuv(*yuv_at(encoding, planes, row, column))
    return rgb


def to_8_bits(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    bits = next(b for b in (8, 10, 12, 14, 16) if values.max() < 2**b)
    return values // 2 ** (bits - 8)


def yuv_at(encoding: str, planes: list[np.ndarray], row: int, column: int) -> tuple[int, ...]:
    first = planes[0]
    pair = column // 2
    if encoding in UYVY:
        u, _, v, _ = first[row, 4 * pair : 4 * pair + 4]
        return first[row, 2 * column + 1], u, v
    if encoding in YUYV:
        _, u, _, v = first[row, 4 * pair : 4 * pair + 4]
        return first[row, 2 * column], u, v
    if encoding == "nv24":
        return first[row, column], planes[1][row, 2 * column], planes[1][row, 2 * column + 1]
    one, two = planes[1][row // 2, 2 * pair : 2 * pair + 2]
    return (first[row, column], one, two) if encoding == "nv12" else (first[row, column], two, one)


def from_yuv(y: int, u: int, v: int) -> list[float]:
    """BT.601, video range; below its black is black."""
    red, blue = 0.299, 0.114
    luma = (max(int(y), 16) - 16) / 219
    cb, cr = (int(u) - 128) / 224, (int(v) - 128) / 224
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return [255 * min(max(value, 0), 1) for value in (r, g, b)]


def demosaic(raw: np.ndarray, pattern: str) -> np.ndarray:
    """Each missing color is the mean of the nearest pixels that have it; the border repeats."""
    height, width = raw.shape
    inner = np.zeros((height, width, 3))
    for row, column in np.ndindex(height, width):
        if not (0 < row < height - 1 and 0 < column < width - 1):
            continue
        near: dict[str, dict[int, list[float]]] = {"r": {}, "g": {}, "b": {}}
        for dy, dx in np.ndindex(3, 3):
            y, x = row + dy - 1, column + dx - 1
            color = pattern[2 * (y % 2) + x % 2]
            near[color].setdefault(abs(dy - 1) + abs(dx - 1), []).append(raw[y, x])
        inner[row, column] = [np.mean(near[color][min(near[color])]) for color in "rgb"]
    return np.pad(inner[1:-1, 1:-1], ((1, 1), (1, 1), (0, 0)), "edge")


def plane_shapes(encoding: str, height: int, width: int) -> list[tuple[int, int]]:
    """Rows and values of a row, of each plane."""
    even = width + width % 2
    if encoding in ORDERS:
        return [(height, width * len(ORDERS[encoding]))]
    if encoding in BAYER:
        return [(height, width)]
    if encoding in (*UYVY, *YUYV):
        return [(height, 2 * even)]
    if encoding == "nv24":
        return [(height, width), (height, 2 * width)]
    return [(height, width), (height // 2 + height % 2, even)]


@settings(deadline=None, derandomize=True, database=None, max_examples=200)
@given(
    encoding=st.sampled_from(IMAGES),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 9),
    swapped=st.booleans(),
    bits=st.sampled_from([7, 9, 10, 11, 12, 13, 14, 16]),
    cut=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_bytes_are_what_a_plain_reference_makes_of_them(
    encoding: str,
    height: int,
    width: int,
    padding: int,
    swapped: bool,
    bits: int,
    cut: bool,
    seed: int,
) -> None:
    """Odd sizes, padding, byte orders; the last row with or without its padding."""
    noise = np.random.default_rng(seed)
    dtype, highest = (np.uint16, 2**bits) if encoding in WIDE else (np.uint8, 256)
    shapes = plane_shapes(encoding, height, width)
    planes = [noise.integers(0, highest, shape, dtype) for shape in shapes]
    first = planes[0].nbytes // height
    step = first + padding
    data = b""
    for plane in planes:
        rows = plane.byteswap() if swapped else plane
        rows = np.ascontiguousarray(rows).view(np.uint8)
        fill = step * (2 if encoding == "nv24" and data else 1) - rows.shape[1]
        if fill < 0:  # an odd row of luma without padding has no room for the pairs below it
            assert encoding in SUBSAMPLED and width % 2 and not padding
            break
        data += padded(rows, fill).tobytes()
    message = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(swapped),
        step=step,
        data=array("B", data[: len(data) - fill] if cut and fill > 0 else data),
    )
    if fill < 0 or encoding in BAYER and min(height, width) < 3:
        with pytest.raises(BadFrame):
            to_rgb(message)
        return
    got = to_rgb(message)
    assert got.shape == (height, width, 3) and got.dtype == np.uint8
    assert np.abs(got - unpack(encoding, planes, height, width)).max() <= 1.5


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(
    encoding=st.sampled_from(["rgb8", "bgr8"]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    padding=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_what_fill_image_puts_in_comes_out(
    encoding: str, height: int, width: int, padding: int, seed: int
) -> None:
    """Any size and any padding added by the sender; the pixels need not lie contiguous."""
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    message = SimpleNamespace()
    fill_image(message, rgb if encoding == "rgb8" else rgb[..., ::-1], encoding)
    assert (message.height, message.width, message.step) == (height, width, 3 * width)
    rows = np.frombuffer(message.data, np.uint8).reshape(height, -1)
    message.data = array("B", np.pad(rows, ((0, 0), (0, padding))).tobytes())
    message.step += padding
    assert (to_rgb(message) == rgb).all()
