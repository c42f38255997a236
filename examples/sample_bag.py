"""Write a bag of the sample video, to try the node with. Needs no ROS: `pip install rosbags`.

python3 examples/sample_bag.py sample_bag
ros2 bag play --loop sample_bag
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

TOPIC = "/camera/image_raw"
IMAGE = "sensor_msgs/msg/Image"
SECOND_NS = 10**9


def main() -> None:
    """Write the images of the video, the first with the stamp 1 s."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path, help="folder to write, which must not be there")
    path = parser.parse_args().bag

    store = get_typestore(Stores.ROS2_HUMBLE)
    types: Any = store.types
    video = cv2.VideoCapture(str(files("kdc_core") / "samples" / "people.mp4"))
    interval_ns = round(SECOND_NS / video.get(cv2.CAP_PROP_FPS))
    with Writer(path, version=8) as writer:  # Humble reads no later ones
        connection = writer.add_connection(TOPIC, IMAGE, typestore=store)
        stamp_ns = SECOND_NS
        while (got := video.read())[0]:
            pixels = np.ascontiguousarray(got[1])
            height, width = pixels.shape[:2]
            stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND_NS))
            header = types["std_msgs/msg/Header"](stamp, "camera")
            image = types[IMAGE](header, height, width, "bgr8", 0, 3 * width, pixels.ravel())
            writer.write(connection, stamp_ns, store.serialize_cdr(image, IMAGE))
            stamp_ns += interval_ns
    print(f"{(stamp_ns - SECOND_NS) // interval_ns} images on {TOPIC} in '{path}'")


if __name__ == "__main__":
    main()
