"""Code shown in the documentation, run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

rosbags = pytest.importorskip("rosbags.rosbag2")
DOCS = Path(__file__).parents[2] / "docs"


def test_images_come_out_of_a_bag(tmp_path: Path) -> None:
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types: Any = store.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "camera")
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[..., 0] = 200  # blue
    with rosbags.Writer(tmp_path / "bag", version=9) as writer:
        known = "sensor_msgs/msg/Image"
        camera = writer.add_connection("/camera", known, typestore=store)
        other = writer.add_connection("/other", known, typestore=store)
        for index in range(25):
            image = types[known](header, 24, 32, "bgr8", 0, 96, pixels.ravel())
            raw = store.serialize_cdr(image, known)
            writer.write(camera, index * 100_000_000, raw)
            writer.write(other, index * 100_000_000, raw)
    block = re.search(r"```python\n(.*?)```", (DOCS / "training.md").read_text(), re.S)
    assert block is not None
    code: dict[str, Any] = {}
    exec(block[1], code)
    assert code["extract"](tmp_path / "bag", "/camera", tmp_path / "out") == 3
    written = sorted((tmp_path / "out").iterdir(), key=lambda p: int(p.stem))
    assert [p.stem for p in written] == ["0", "1000000000", "2000000000"]
    first = cv2.imread(str(written[0]))
    assert first is not None and abs(int(first[5, 5, 0]) - 200) < 8 and first[5, 5, 2] < 20
