"""Bags of ROS 2 by the library rosbags, without ROS: images out of one, people into another."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.bits16 import To8Bits
from kdc_core.errors import KdcError
from kdc_core.memory import limited_growth
from kdc_ros.compressed import compressed_to_rgb
from kdc_ros.images import BadFrame, to_rgb
from kdc_ros.tables import IMAGES, fill_cloud, keypoint_rows, label_pixels, person_rows

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
OUTPUTS = tuple(f"/kdc/{name}" for name in IMAGES)  # how a node's own topics end
CLOUD, FIELD = "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/PointField"
ENDINGS = {".mcap": StoragePlugin.MCAP, ".db3": StoragePlugin.SQLITE3}
BAG_VERSION: Literal[8] = 8  # Humble cannot read how later ones write QoS
MOST_MEMORY = 2 << 30  # bytes, for opening and for each image: a chunk unpacks to what it likes
NOT_IN_NAMES = "?#%"  # SQLite is given the name of its file within a URI

# Of the messages that are used here, which all distributions have alike. The definitions in a bag
# are not read: rosbags makes code of them.
_STORE = get_typestore(Stores.ROS2_HUMBLE)
_TYPES: Any = _STORE.types


class DamagedBag(KdcError):
    """A bag of which no more can be read."""


class Recorded(NamedTuple):
    """One image of a bag.

    Attributes:
        log_ns: when it was recorded.
        kind: message type.
        data: the message in CDR.
    """

    log_ns: int
    kind: str
    data: bytes


class ImageBag:
    """A bag's topics of images.

    Args:
        path: for messages.
        reader: open.

    Attributes:
        topics: number of images by topic.
    """

    def __init__(self, path: Path, reader: Reader):
        self._path, self._reader = path, reader
        self._connections: dict[str, list[Connection]] = {}
        for connection in reader.connections:
            if connection.msgtype in (IMAGE, COMPRESSED):
                self._connections.setdefault(str(connection.topic), []).append(connection)
        self.topics = {
            topic: sum(max(0, int(connection.msgcount)) for connection in connections)
            for topic, connections in self._connections.items()
        }

    def choose(self, topic: str | None) -> str:
        """The topic that is asked for, or the only one that has images and is no node's output.

        Raises:
            KdcError: it has no images, or several topics have; says which.
        """
        full = [name for name, count in self.topics.items() if count]
        cameras = [name for name in full if not name.endswith(OUTPUTS)]
        there = f"topics with images: {', '.join(map(repr, sorted(full))) or 'none'}"
        if topic is not None:
            topic = f"/{topic.removeprefix('/')}"
            if topic not in full:
                raise KdcError(f"'{self._path}' has no images on '{topic}'; {there}")
            return topic
        if not cameras:
            raise KdcError(
                f"'{self._path}' has no images of a camera: expected a topic of {IMAGE} or "
                f"{COMPRESSED}; {there}"
            )
        if len(cameras) > 1:
            raise KdcError(f"'{self._path}' has several {there}; choose one with --image")
        return cameras[0]

    def read(self, topic: str) -> Iterator[Recorded]:
        """The images of a topic, in the order in which they were recorded.

        Raises:
            DamagedBag: the bag cannot be read on.
        """
        messages = self._reader.messages(self._connections[topic])
        while True:
            with _reading(self._path):
                found = next(messages, None)
            if found is None:
                return
            connection, log_ns, data = found
            yield Recorded(log_ns, connection.msgtype, data)


@contextmanager
def open_bag(path: Path) -> Iterator[ImageBag]:
    """Open a bag: a folder with metadata.yaml, or one file of it.

    Raises:
        KdcError: there is no bag of that name.
        DamagedBag: it cannot be read.
    """
    if not path.exists():
        raise KdcError(f"'{path}' does not exist")
    if not _files(path):
        raise KdcError(
            f"'{path}' is no bag of ROS 2: expected a folder with metadata.yaml, or a file ending "
            "in .mcap or .db3 (rosbags-convert makes one of a .bag of ROS 1; a compressed file is "
            "read in its folder)"
        )
    check_name(path)
    for entry in path.iterdir() if path.is_dir() else ():
        if entry.exists() and not (entry.is_file() or entry.is_dir()):  # a pipe is waited for
            raise KdcError(f"'{path}' is no bag of ROS 2: '{entry.name}' in it is no file")
    with _reading(path):
        reader = Reader(path)
        reader.open()
        bag = ImageBag(path, reader)
    try:
        yield bag
    finally:
        reader.close()


def storage_of(bag: Path) -> StoragePlugin:
    """How a bag keeps its messages."""
    return StoragePlugin.MCAP if ".mcap" in _files(bag)[0].suffixes else StoragePlugin.SQLITE3


def check_name(path: Path) -> None:
    """Refuse a name that a library would take for another.

    Raises:
        KdcError: says what cannot be in it.
    """
    name = str(path)
    if any(c in name for c in NOT_IN_NAMES) or not name.isprintable():
        raise KdcError(
            f"'{path}': names of bags may have no {' '.join(NOT_IN_NAMES)} and must be printable "
            "UTF-8; rename it, or make a link"
        )


def decode(recorded: Recorded, to_8_bits: To8Bits) -> tuple[Any, np.ndarray]:
    """Header of an image, and its pixels (H, W, 3) uint8 RGB.

    Args:
        recorded: the image.
        to_8_bits: of the topic.

    Raises:
        BadFrame: it cannot be used.
    """
    if not 0 <= recorded.log_ns < 1 << 63:  # which not every storage can hold
        raise BadFrame(f"it was recorded at {recorded.log_ns} ns, which is no time")
    try:
        message: Any = _STORE.deserialize_cdr(recorded.data, recorded.kind)
    except Exception as error:  # a damaged message makes rosbags raise anything
        raise BadFrame(f"message of {len(recorded.data)} bytes: {error}") from error
    convert = to_rgb if recorded.kind == IMAGE else compressed_to_rgb
    return message.header, convert(message, to_8_bits)


class PeopleWriter:
    """Writes the topics that the node `/kdc` publishes for every frame.

    Args:
        writer: of the bag.
        skeleton: of the keypoints.
        threshold: keypoints below are not visible.
    """

    def __init__(self, writer: Writer, skeleton: Skeleton, threshold: float):
        self._writer, self._skeleton, self._threshold = writer, skeleton, threshold
        self._keypoints = self._connect("/kdc/keypoints", CLOUD)
        self._persons = self._connect("/kdc/persons", CLOUD)
        self._labels = self._connect("/kdc/labels", IMAGE)

    def _connect(self, topic: str, kind: str) -> Connection:
        return self._writer.add_connection(topic, kind, typestore=_STORE)

    def write(self, log_ns: int, header: Any, prediction: Prediction) -> None:
        """Write the people of an image under its header and time of recording."""
        keypoints = keypoint_rows(prediction, self._skeleton, self._threshold)
        self._write(self._keypoints, log_ns, _cloud(header, keypoints))
        persons = person_rows(prediction, self._threshold)
        self._write(self._persons, log_ns, _cloud(header, persons))
        self._write(self._labels, log_ns, _image(header, label_pixels(prediction)))

    def _write(self, connection: Connection, log_ns: int, message: object) -> None:
        data = _STORE.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, log_ns, data)


@contextmanager
def new_bag(output: Path, storage: StoragePlugin) -> Iterator[Writer]:
    """Write a bag that has its name only when the block ends without error.

    Args:
        output: a file where it ends as those of the storage do, else a folder.
        storage: how messages are kept.

    Raises:
        KdcError: it cannot be written.
    """
    single = output.suffix in ENDINGS
    try:
        with TemporaryDirectory(prefix=".kdc-", dir=output.parent) as place:
            folder = Path(place) / (output.stem if single else output.name)
            with Writer(folder, version=BAG_VERSION, storage_plugin=storage) as writer:
                yield writer
            for file in folder.iterdir():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
            if os.path.lexists(output):
                raise FileExistsError("something of this name came meanwhile, which is kept")
            os.rename(folder / output.name if single else folder, output)
    except (OSError, sqlite3.Error) as error:
        raise KdcError(f"cannot write '{output}': {error}") from error


def _files(bag: Path) -> list[Path]:
    """Those that hold messages."""
    if not bag.is_dir():
        return [bag] if bag.is_file() and bag.suffix in ENDINGS else []
    found = sorted(bag.iterdir())
    return [file for file in found if file.is_file() and ENDINGS.keys() & set(file.suffixes)]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Have whatever rosbags raises of a bag that is damaged, or made to harm, be a DamagedBag."""
    try:
        with limited_growth(MOST_MEMORY):
            yield
    except Exception as error:
        reason = str(error).removesuffix(".") or type(error).__name__
        if path.is_dir() and not (path / "metadata.yaml").exists():
            reason += "; `ros2 bag reindex` writes metadata.yaml anew"
        elif path.suffix == ".mcap":
            reason += "; `mcap recover` makes a whole file of what is left"
        raise DamagedBag(
            f"'{path}' is cut off or damaged, it cannot be read on: {reason}"
        ) from error


def _cloud(header: Any, rows: np.ndarray) -> object:
    return fill_cloud(_TYPES[CLOUD], _TYPES[FIELD], header, rows, _bytes(rows))


def _image(header: Any, labels: np.ndarray) -> object:
    height, width = labels.shape
    return _TYPES[IMAGE](
        header=header,
        height=height,
        width=width,
        encoding="mono16",
        is_bigendian=0,
        step=labels.itemsize * width,
        data=_bytes(labels),
    )


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.tobytes(), np.uint8)
