"""Image messages to RGB: with numpy and OpenCV, and through cv_bridge.

cv_bridge itself cannot be had here; a stub (test/stub/cv_bridge) stands in for it. It converts
in earnest and has the real one's habits.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdc_ros.images import ENCODINGS, LARGEST_SIDE, BadFrame, Converter, fill_image, to_rgb

STUBS = Path(__file__).parents[1] / "stub"
HEIGHT, WIDTH = 24, 32
SUBSAMPLED = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12")
Convert = Callable[[Any], np.ndarray]


def scene() -> np.ndarray:
    """Smooth RGB with channels far apart, so that each mix-up of them shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([170 + x, 60 + 2 * y, 150 - x - y], -1).astype(np.uint8)


def gray() -> np.ndarray:
    """All the gray values."""
    return np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor under this pattern sees; the pattern is read along the first two rows."""
    raw = np.zeros(rgb.shape[:2], np.uint8)
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


def encode_nv12(rgb: np.ndarray) -> np.ndarray:
    """(3/2 H, W): the Y plane, then rows of U V pairs, one for each 2 x 2 pixels."""
    y, u, v = yuv(rgb)
    blocks = [p.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean((1, 3)) for p in (u, v)]
    return np.concatenate([as_bytes(y)[..., 0], as_bytes(*blocks).reshape(-1, WIDTH)])


def encode(encoding: str) -> tuple[np.ndarray, np.ndarray, int]:
    """The image in this encoding, the RGB that must come back, and the greatest error."""
    rgb = scene()
    alpha = np.full((HEIGHT, WIDTH, 1), 7, np.uint8)
    if encoding in ("mono8", "8UC1", "mono16"):
        values = gray()
        wanted = np.repeat(values[..., None], 3, -1)
        return (values * np.uint16(257) if encoding == "mono16" else values), wanted, 0
    if encoding.startswith("bayer_"):
        return mosaic(rgb, encoding[len("bayer_") : -1]), rgb, 6
    if encoding in ("yuv422", "uyvy"):
        return encode_422(rgb, luma_first=False), rgb, 6
    if encoding in ("yuv422_yuy2", "yuyv"):
        return encode_422(rgb, luma_first=True), rgb, 6
    if encoding == "nv12":
        return encode_nv12(rgb), rgb, 6
    layouts = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], -1),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], -1),
        "8UC3": rgb[..., ::-1],
        "8UC4": np.concatenate([rgb[..., ::-1], alpha], -1),
    }
    return layouts[encoding], rgb, 0


def frame(encoding: str, padding: int = 0, /, **changes: Any) -> SimpleNamespace:
    """A message of the image in this encoding, `padding` bytes of rubbish after each row."""
    pixels = encode(encoding)[0]
    if changes.get("is_bigendian"):
        pixels = pixels.byteswap()
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xA5)
    message = SimpleNamespace(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )
    message.__dict__.update(changes)
    return message


def assert_is_scene(got: np.ndarray, encoding: str) -> None:
    wanted, tolerance = encode(encoding)[1:]
    assert got.dtype == np.uint8
    assert got.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(got.astype(int) - wanted).max() <= tolerance


@pytest.fixture
def cv_bridge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stub of cv_bridge, in place of whatever is installed."""
    monkeypatch.syspath_prepend(str(STUBS))
    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
    import cv_bridge

    yield cv_bridge
    sys.modules.pop("cv_bridge", None)


@pytest.fixture(params=["numpy", "cv_bridge stub"])
def convert(request: pytest.FixtureRequest) -> Convert:
    """Both paths; the second leaves to a stub of cv_bridge what that does well."""
    if request.param == "numpy":
        return to_rgb
    request.getfixturevalue("cv_bridge")
    converter = Converter()
    assert converter.bridged, "the stub was not used"
    return converter


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding(convert: Convert, encoding: str) -> None:
    assert_is_scene(convert(frame(encoding)), encoding)


@pytest.mark.parametrize("padding", [1, 2, 4, 12])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_row_padding_is_skipped(convert: Convert, encoding: str, padding: int) -> None:
    assert_is_scene(convert(frame(encoding, padding)), encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_last_row_may_come_without_padding(convert: Convert, encoding: str) -> None:
    message = frame(encoding, 12)
    message.data = message.data[:-12]
    assert_is_scene(convert(message), encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_longer_data_is_accepted(convert: Convert, encoding: str) -> None:
    message = frame(encoding)
    message.data.extend([0xA5] * 100)
    assert_is_scene(convert(message), encoding)


@pytest.mark.parametrize("padding", [0, 1, 12])
def test_big_endian_mono16_is_swapped(convert: Convert, padding: int) -> None:
    pixels = (np.uint16(257) * gray()).astype(">u2")
    rows = np.pad(pixels.view(np.uint8), ((0, 0), (0, padding)))
    message = frame("mono16", is_bigendian=1)
    message.step, message.data = rows.shape[1], array("B", rows.tobytes())
    assert_is_scene(convert(message), "mono16")


def test_mono16_keeps_the_upper_eight_bits(convert: Convert) -> None:
    low_bits = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH))
    values = (256 * gray().astype(int) + low_bits).astype("<u2")
    message = frame("mono16")
    message.data = array("B", values.tobytes())
    # cv_bridge rounds where numpy cuts off.
    assert np.abs(convert(message)[..., 0].astype(int) - gray()).max() <= 1


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (frame("rgb8", encoding="rgb9"), "'rgb9' is not known; expected one of rgb8, .*nv12"),
        (frame("rgb8", encoding=""), "'' is not known"),
        (frame("rgb8", encoding="32FC1"), "'32FC1' is not known"),
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
        (frame("uyvy", width=WIDTH - 1), "'uyvy' needs even sides"),
        (frame("nv12", width=WIDTH - 1), "'nv12' needs even sides"),
        (frame("nv12", height=HEIGHT - 1), "'nv12' needs even sides"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_frames_are_refused(convert: Convert, message: Any, text: str) -> None:
    with pytest.raises(BadFrame, match=text):
        convert(message)


@pytest.mark.parametrize("pixels", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)], ids=str)
@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if e not in SUBSAMPLED])
def test_tiny_images(convert: Convert, encoding: str, pixels: tuple[int, int]) -> None:
    """Either the image in its size or a BadFrame: a few pixels are too few for some."""
    height, width = pixels
    message = frame(encoding, height=height, width=width)
    try:
        got = convert(message)
    except BadFrame:
        assert encoding.startswith("bayer_")
    else:
        assert got.shape == (height, width, 3)


class Raising:
    """Stub of the leftover of ROS 1 on PyPI with color images: raises."""

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> Any:
        raise AttributeError("'numpy.ndarray' object has no attribute 'tostring'")


class WrongType:
    """Stub of the same with gray images: sixteen bits come back as bytes, no RGB."""

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> Any:
        return np.frombuffer(img_msg.data, np.uint8)[: img_msg.height * img_msg.width].reshape(
            img_msg.height, img_msg.width
        )


class WrongOrder:
    """Stub of a build that returns BGR where RGB was asked for."""

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> Any:
        return to_rgb(img_msg)[..., ::-1]


class WrongDepth:
    """Stub of a build whose values are right and whose type is not."""

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> Any:
        return to_rgb(img_msg).astype(np.float32)


class NotConstructed:
    """Stub of a build that fails when it is first used."""

    def __init__(self) -> None:
        raise RuntimeError("initialization failed")


@pytest.mark.parametrize("broken", [Raising, WrongType, WrongDepth, NotConstructed])
def test_a_broken_cv_bridge_is_not_used(
    cv_bridge: Any, monkeypatch: pytest.MonkeyPatch, broken: type
) -> None:
    monkeypatch.setattr(cv_bridge, "CvBridge", broken)
    converter = Converter()
    assert converter.bridged == frozenset()
    assert_is_scene(converter(frame("bgr8")), "bgr8")


def test_a_cv_bridge_of_swapped_colors_is_used_for_gray_at_most(
    cv_bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv_bridge, "CvBridge", WrongOrder)
    assert Converter().bridged <= {"mono8", "mono16", "8UC1"}


def test_a_cv_bridge_that_does_not_import_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # import raises ImportError
    converter = Converter()
    assert converter.bridged == frozenset()
    assert_is_scene(converter(frame("bgr8")), "bgr8")


def test_a_good_cv_bridge_is_used_where_it_knows_the_encoding(cv_bridge: Any) -> None:
    """The stub's own list: all but the OpenCV types and nv12, as in the real one."""
    assert Converter().bridged == set(ENCODINGS) - {"8UC1", "8UC3", "8UC4", "nv12"}


def test_a_bridged_frame_goes_through_cv_bridge(
    cv_bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = Converter()
    marked = np.full((HEIGHT, WIDTH, 3), 9, np.uint8)
    monkeypatch.setattr(cv_bridge.CvBridge, "imgmsg_to_cv2", lambda *_, **__: marked)
    assert (converter(frame("mono8")) == 9).all()


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
