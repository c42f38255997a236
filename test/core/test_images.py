"""Image files as they come: bits, orientation, pages, names."""

from __future__ import annotations

import numpy as np
import pytest

from kdc_core.data.bits16 import To8Bits


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


def test_a_bright_speck_makes_an_image_nearly_black() -> None:
    pixels = np.full((48, 64), 1000, np.uint16)
    scale = To8Bits()
    scale(pixels)
    assert not scale.nearly_black
    pixels[3, 4] = 65535
    scale(pixels)
    assert scale.nearly_black
