"""The process in which cv_bridge is tried: prints the encodings in which it is right, as JSON."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
from cv_bridge import CvBridge

from kdc_ros.images import PACKED, byte_array, to_rgb

HEIGHT, WIDTH = 6, 8


def is_right(bridge: CvBridge, encoding: str) -> bool:
    """Whether cv_bridge gives what `to_rgb` gives, on a frame of noise."""
    channels = PACKED[encoding][1]
    noise = np.random.default_rng(0).integers(0, 256, HEIGHT * WIDTH * channels, np.uint8)
    frame = SimpleNamespace(
        header=None,
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=0,
        step=WIDTH * channels,
        data=byte_array(noise),
    )
    wanted = to_rgb(frame)
    try:
        got = np.asarray(bridge.imgmsg_to_cv2(frame, desired_encoding="rgb8"))
    except Exception:  # a broken build raises whatever it likes
        return False
    # One gray level of rounding is no error.
    return (
        got.shape == wanted.shape
        and got.dtype == np.uint8
        and bool(np.abs(got.astype(int) - wanted).max() <= 1)
    )


if __name__ == "__main__":
    cv_bridge = CvBridge()
    eight_bits = [name for name, (dtype, _, _) in PACKED.items() if dtype is np.uint8]
    print(json.dumps([name for name in eight_bits if is_right(cv_bridge, name)]), flush=True)
