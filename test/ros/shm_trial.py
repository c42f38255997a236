"""A node and a camera that shows it five VGA frames; run where /dev/shm cannot be used."""

from __future__ import annotations

import sys
from contextlib import closing

import numpy as np

from kdc_ros import env
from kdc_ros.camera import Camera, node_process


def answered(namespace: str) -> int:
    """How many of five frames are answered."""
    with (
        node_process("-r", f"__ns:={namespace}"),
        closing(Camera(namespace=namespace)) as camera,
    ):
        camera.wait_for_node()
        frame = np.zeros((480, 640, 3), np.uint8)
        return sum(len(camera.ask(camera.image(frame))[0]) == 3 for _ in range(5))


if __name__ == "__main__":
    env.prepare()
    print("answered", answered("/shm"))
    sys.exit(0)
