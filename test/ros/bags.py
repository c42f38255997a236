"""Bags that rosbags writes and reads, and a stub in the place of the model. No ROS."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.inference.assembly import Thresholds

rosbags = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
STORE = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
TYPES: Any = STORE.types
TOPIC = "/camera/image_raw"
SHAPE = (240, 320, 3)
STAMP_S, LOG_S = 1_700_000_000, 1_800_000_000  # of the first image
BRIGHT = 100  # a picture of one person, to the stub


class Message(NamedTuple):
    """What a bag is made of, and what is in one."""

    topic: str
    log_ns: int
    kind: str
    content: Any


def header(number: int) -> Any:
    return TYPES["std_msgs/msg/Header"](
        TYPES["builtin_interfaces/msg/Time"](STAMP_S + number, 7), "left_eye"
    )


def raw(number: int, pixels: np.ndarray, topic: str = TOPIC, **other: Any) -> Message:
    """An image (H, W, 3) as bgr8; fields of the message may be given instead."""
    values = {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": "bgr8",
        "is_bigendian": 0,
        "step": 3 * pixels.shape[1],
        "data": pixels.ravel(),
    }
    content = TYPES[IMAGE](header=header(number), **{**values, **other})
    return Message(topic, (LOG_S + number) * 10**9 + 3, IMAGE, content)


def compressed(number: int, data: bytes, topic: str = TOPIC) -> Message:
    content = TYPES[COMPRESSED](header(number), "jpeg", np.frombuffer(data, np.uint8))
    return Message(topic, (LOG_S + number) * 10**9 + 3, COMPRESSED, content)


def gray(level: int) -> np.ndarray:
    return np.full(SHAPE, level, np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def write_bag(path: Path, *messages: Message, storage: str = "MCAP", packed: bool = False) -> Path:
    """A bag with these messages, its folder."""
    writer = rosbags.Writer(path, version=9, storage_plugin=rosbags.StoragePlugin[storage])
    if packed:
        writer.set_compression(rosbags.CompressionMode.STORAGE, rosbags.CompressionFormat.ZSTD)
    with writer:
        connections: dict[tuple[str, str], Any] = {}
        for topic, log_ns, kind, content in messages:
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=STORE)
            data = STORE.serialize_cdr(content, kind)
            writer.write(connections[topic, kind], log_ns, data)
    return path


def read_bag(path: Path) -> list[Message]:
    with rosbags.Reader(path) as reader:
        return [
            Message(c.topic, log_ns, c.msgtype, STORE.deserialize_cdr(data, c.msgtype))
            for c, log_ns, data in reader.messages()
        ]


def log_times(path: Path, topic: str = "/kdc/persons") -> list[int]:
    """Numbers of the images whose people are in a bag."""
    found = [(m.log_ns - 3) / 10**9 - LOG_S for m in read_bag(path) if m.topic == topic]
    return [int(number) for number in found]


def people_in(path: Path) -> list[int]:
    """How many people each image of a bag has."""
    return [m.content.width for m in read_bag(path) if m.topic == "/kdc/persons"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Stub:
    """Finds one person in bright images and nobody in dark ones.

    Attributes:
        seen: mean of each image.
    """

    def __init__(self) -> None:
        self.skeleton, self.config = COCO17, SimpleNamespace(name="stub")
        self.thresholds = Thresholds(0.5, 0.3, 0.5)
        self.rotate, self.about = 0, "a stub"
        self.seen: list[float] = []

    def __call__(self, image: np.ndarray, thresholds: Thresholds) -> Prediction:
        self.seen.append(float(image.mean()))
        size = (image.shape[0], image.shape[1])
        if image.mean() < BRIGHT:
            return Prediction(size, ())
        keypoints = np.tile(np.array([10, 20, 0.9], np.float32), (17, 1))
        box = np.array([5, 5, 25, 45], np.float32)
        centroids = np.zeros((0, 4), np.float32)
        person = Person(0.9, keypoints, box, np.ones((40, 20), bool), (5, 5), centroids)
        return Prediction(size, (person,))


def assert_nothing_left(folder: Path, *inputs: str) -> None:
    assert sorted(os.listdir(folder)) == sorted(inputs)
