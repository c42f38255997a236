"""`kdc bag`: bags that rosbags writes, and what comes of them. None of it needs ROS."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from kdc_core import cli
from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.tracking import TIMEOUT_S, Tracker
from kdc_ros.images import ENCODINGS
from kdc_ros.tables import KEYPOINT, PERSON, keypoint_rows, label_pixels, person_rows

rosbags = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
STORE = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
TYPES: Any = STORE.types
TOPIC = "/camera/image_raw"
OUTPUTS = {"/kdc/keypoints", "/kdc/persons", "/kdc/labels"}
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


@pytest.fixture
def bag(capsys: pytest.CaptureFixture[str]) -> Any:
    """bag(*arguments): `kdc bag` in this process."""

    def bag(*arguments: object) -> Done:
        code = cli.run(["bag", *map(str, arguments)])
        return Done(code, *capsys.readouterr())

    return bag


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


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """In the place of the model, which takes its time."""
    stub = Stub()
    monkeypatch.setattr(Predictor, "from_pretrained", lambda *_, **given: stub)
    return stub


class Model:
    """The real one, and what it found so far.

    Args:
        predictor: of it.
    """

    def __init__(self, predictor: Predictor):
        self._predictor, self.skeleton = predictor, predictor.skeleton
        self.about = predictor.about
        self.thresholds = predictor.thresholds
        self.found: list[Prediction] = []

    def __call__(self, image: np.ndarray, thresholds: Thresholds) -> Prediction:
        self.found.append(self._predictor(image, thresholds))
        return self.found[-1]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("kdc_light")


@pytest.fixture
def model(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model(predictor)
    monkeypatch.setattr(Predictor, "from_pretrained", lambda *_, **given: model)
    return model


def assert_nothing_left(folder: Path, *inputs: str) -> None:
    assert sorted(os.listdir(folder)) == sorted(inputs)


# What is in the new bag


@pytest.mark.parametrize("storage", ["MCAP", pytest.param("SQLITE3", marks=pytest.mark.all)])
def test_the_bag_has_what_the_node_would_publish(
    storage: str, bag: Any, model: Model, people: np.ndarray, tmp_path: Path
) -> None:
    shown = np.ascontiguousarray(people[..., ::-1])
    given = write_bag(
        tmp_path / "in", raw(0, shown), raw(1, gray(0)), raw(2, shown), storage=storage
    )
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    found = read_bag(tmp_path / "out")
    assert [m.topic for m in found[:3]] == ["/kdc/keypoints", "/kdc/persons", "/kdc/labels"]
    assert len(found) == 9 and {m.topic for m in found} == OUTPUTS

    tracker = Tracker(COCO17, TIMEOUT_S)
    tracker.confidence = model.thresholds.confidence
    for number, prediction in enumerate(model.found):
        keypoints, persons, labels = (m.content for m in found[3 * number : 3 * number + 3])
        expected = tracker(prediction, STAMP_S + number + 7e-9)
        rows = keypoint_rows(expected, COCO17, model.thresholds.keypoint)
        assert np.frombuffer(keypoints.data, KEYPOINT).tobytes() == rows.tobytes()
        rows = person_rows(expected, model.thresholds.keypoint)
        assert np.frombuffer(persons.data, PERSON).tobytes() == rows.tobytes()
        assert labels.encoding == "mono16" and (labels.height, labels.width) == prediction.size
        assert labels.data.tobytes() == label_pixels(expected).tobytes()
        for message in found[3 * number : 3 * number + 3]:
            stamp = message.content.header.stamp
            assert (stamp.sec, stamp.nanosec) == (STAMP_S + number, 7)
            assert message.content.header.frame_id == "left_eye"
            assert message.log_ns == (LOG_S + number) * 10**9 + 3
    first, nobody, again = people_in(tmp_path / "out")
    assert first == again > 1 and nobody == 0


@pytest.mark.parametrize(
    ("storage", "output", "written"),
    [
        ("MCAP", "out", "out/out.mcap"),
        ("SQLITE3", "out", "out/out.db3"),
        ("MCAP", "out.db3", "out.db3"),
        ("SQLITE3", "out.mcap", "out.mcap"),
    ],
)
def test_the_storage_is_that_of_the_output_s_ending_or_the_input_s(
    storage: str, output: str, written: str, bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(200)), raw(1, gray(0)), storage=storage)
    done = bag(given, "--output", tmp_path / output)
    assert done.code == 0, done.err
    assert (tmp_path / written).is_file()
    assert people_in(tmp_path / output) == [1, 0]
    assert_nothing_left(tmp_path, "in", output)


def test_single_files_and_packed_chunks_are_read(bag: Any, stub: Stub, tmp_path: Path) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(200)), packed=True)
    done = bag(given / "in.mcap", "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert people_in(tmp_path / "out") == [1]


def test_a_file_packed_whole_is_refused_alone(bag: Any, stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "in.mcap.zstd").write_bytes(b"(\xb5/\xfd")
    done = bag(tmp_path / "in.mcap.zstd", "--output", tmp_path / "out")
    assert done.code == 2 and "a compressed file is read in its folder" in done.err, done


def test_nothing_is_written_into_the_bag_that_is_read(
    bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(200)))
    done = bag(given, "--output", given / "people.mcap")
    assert done.code == 2 and "lies in the bag" in done.err, done
    assert not (given / "people.mcap").exists()


def test_a_person_keeps_the_id_over_the_images(bag: Any, stub: Stub, tmp_path: Path) -> None:
    """By the stamps of the images, which are closer than the times of recording."""
    images = [raw(n, gray(level)) for n, level in enumerate((200, 200, 0, 200))]
    for number, image in enumerate(images):
        stamp = image.content.header.stamp
        stamp.sec, stamp.nanosec = STAMP_S, 10**8 * number
    given = write_bag(tmp_path / "in", *images)
    bag(given, "--output", tmp_path / "out")
    ids = [
        np.frombuffer(m.content.data, PERSON)["id"].tolist()
        for m in read_bag(tmp_path / "out")
        if m.topic == "/kdc/persons"
    ]
    assert ids == [[1], [1], [], [1]]


# Which images


def test_images_of_every_encoding_are_read(bag: Any, stub: Stub, tmp_path: Path) -> None:
    data = np.full(3 * 48 * 256, 200, np.uint8)
    size: dict[str, Any] = {"height": 48, "width": 32, "step": 256, "data": data}
    images = [raw(n, gray(0), encoding=encoding, **size) for n, encoding in enumerate(ENCODINGS)]
    done = bag(write_bag(tmp_path / "in", *images), "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(stub.seen) == len(ENCODINGS) and min(stub.seen) > 0
    assert log_times(tmp_path / "out") == list(range(len(ENCODINGS)))


def test_compressed_images_are_read(bag: Any, stub: Stub, tmp_path: Path) -> None:
    png = cv2.imencode(".png", gray(0))[1].tobytes()
    given = write_bag(tmp_path / "in", compressed(0, jpeg(gray(200))), compressed(1, png))
    assert bag(given, "--output", tmp_path / "out").code == 0
    assert people_in(tmp_path / "out") == [1, 0]


def test_a_topic_is_chosen_where_several_have_images(bag: Any, stub: Stub, tmp_path: Path) -> None:
    other = raw(1, gray(0), topic="/depth")
    given = write_bag(
        tmp_path / "in", raw(0, gray(200)), other, compressed(2, jpeg(gray(200)), "/jpeg")
    )
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 2
    assert all(f"'{topic}'" in done.err for topic in (TOPIC, "/depth", "/jpeg"))
    assert "--image" in done.err
    assert_nothing_left(tmp_path, "in")
    for topic, numbers in ((TOPIC, [0]), ("depth", [1]), ("/jpeg", [2])):
        output = tmp_path / topic.replace("/", "_")
        assert bag(given, "--output", output, "--image", topic).code == 0
        assert log_times(output) == numbers


def test_what_a_node_publishes_is_no_camera(bag: Any, stub: Stub, tmp_path: Path) -> None:
    mine = raw(1, gray(0), topic="/robot/kdc/labels")
    given = write_bag(tmp_path / "in", raw(0, gray(200)), mine)
    assert bag(given, "--output", tmp_path / "out").code == 0
    assert log_times(tmp_path / "out") == [0]
    done = bag(tmp_path / "out", "--output", tmp_path / "again")
    assert done.code == 2 and "has no images of a camera" in done.err
    done = bag(tmp_path / "out", "--output", tmp_path / "again", "--image", "/kdc/labels")
    assert done.code == 0, done.err


def test_a_topic_without_images_is_refused(bag: Any, stub: Stub, tmp_path: Path) -> None:
    text = Message("/text", 1, "std_msgs/msg/String", TYPES["std_msgs/msg/String"]("hello"))
    given = write_bag(tmp_path / "in", text)
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 2 and "has no images" in done.err
    given = write_bag(tmp_path / "both", text, raw(0, gray(0)))
    for topic in ("/text", "/nothing"):
        done = bag(given, "--output", tmp_path / "out", "--image", topic)
        assert done.code == 2 and f"no images on '{topic}'" in done.err and TOPIC in done.err
    assert_nothing_left(tmp_path, "in", "both")


# What is refused


def test_nothing_is_overwritten(bag: Any, stub: Stub, tmp_path: Path) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(0)))
    before = (given / "in.mcap").read_bytes()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "full").mkdir()
    for output in (given, given / "in.mcap", tmp_path / "link", tmp_path / "full"):
        done = bag(given, "--output", output)
        assert done.code == 2 and "there already" in done.err
    assert (given / "in.mcap").read_bytes() == before and not os.listdir(tmp_path / "full")


@pytest.mark.parametrize("name", ["out", "out.mcap"])
def test_what_comes_meanwhile_is_not_overwritten(
    name: str, bag: Any, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, output = write_bag(tmp_path / "in", raw(0, gray(0))), tmp_path / name
    find = Stub.__call__

    def write_and_find(self: Stub, image: np.ndarray, thresholds: Thresholds) -> Prediction:
        output.write_text("of another")
        return find(self, image, thresholds)

    monkeypatch.setattr(Stub, "__call__", write_and_find)
    done = bag(given, "--output", output)
    assert done.code == 1 and "came meanwhile" in done.err and "people in" not in done.out
    assert output.read_text() == "of another"
    assert_nothing_left(tmp_path, "in", name)


def test_what_cannot_be_written_or_is_no_bag_is_refused(
    bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(0)))
    (tmp_path / "text.txt").write_text("no bag")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.mcap")
    os.mkfifo(write_bag(tmp_path / "piped", raw(0, gray(0))) / "pipe.mcap")
    for path, output, text in (
        (given, tmp_path / "no" / "out", "there is no folder"),
        (given, tmp_path / "a?b", "may have no ?"),
        (given, tmp_path / "a\nb", "may have no ?"),
        (tmp_path / "nothing", tmp_path / "out", "does not exist"),
        (tmp_path / "text.txt", tmp_path / "out", "is no bag"),
        (tmp_path / "empty", tmp_path / "out", "is no bag"),
        (tmp_path / "pipe.mcap", tmp_path / "out", "is no bag"),
        (tmp_path / "piped", tmp_path / "out", "'pipe.mcap' in it is no file"),
    ):
        done = bag(path, "--output", output)
        assert done.code == 2 and text in done.err, (path, done.err)
    assert_nothing_left(tmp_path, "in", "text.txt", "empty", "pipe.mcap", "piped")


# Damage


def test_a_bad_image_is_counted_and_the_rest_goes_on(bag: Any, stub: Stub, tmp_path: Path) -> None:
    bad = raw(1, gray(0), encoding="32FC1")
    given = write_bag(
        tmp_path / "in",
        raw(0, gray(200)),
        bad,
        raw(2, gray(0), height=60_000),
        raw(3, gray(0), encoding="32FC1"),
        compressed(4, jpeg(gray(200))[:900]),
        compressed(5, png_of(60_000, 60_000)),
        raw(6, gray(200)),
    )
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 1
    assert f"2 images of '{TOPIC}', 2 persons, 5 failed" in done.out
    lines = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 4, "each cause once"
    assert "image 2: encoding '32FC1'" in lines[0] and "320x60000" in lines[1]
    assert "cut off" in lines[2] and "60000x60000" in lines[3]
    assert log_times(tmp_path / "out") == [0, 6]


def png_of(width: int, height: int) -> bytes:
    """A png that says this size and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_messages_that_are_none_are_bad_images(bag: Any, stub: Stub, tmp_path: Path) -> None:
    whole = bytes(STORE.serialize_cdr(raw(0, gray(200)).content, IMAGE))
    claims = bytearray(whole)
    length = len(whole) - gray(0).size - 4
    assert struct.unpack_from("<I", whole, length)[0] == gray(0).size
    struct.pack_into("<I", claims, length, 2**32 - 1)
    with rosbags.Writer(tmp_path / "in", version=9) as writer:
        camera = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        for number, data in enumerate((b"", b"\0\1\0\0", whole[:1000], bytes(claims), whole)):
            writer.write(camera, (LOG_S + number) * 10**9 + 3, data)
    done = bag(tmp_path / "in", "--output", tmp_path / "out")
    assert done.code == 1 and "1 persons, 4 failed" in done.out
    assert log_times(tmp_path / "out") == [4]


def test_a_time_that_no_bag_can_have_is_a_bad_image(bag: Any, stub: Stub, tmp_path: Path) -> None:
    early = raw(0, gray(0))._replace(log_ns=-5)
    given = write_bag(tmp_path / "in", early, raw(1, gray(0)), storage="SQLITE3")
    done = bag(given / "in.db3", "--output", tmp_path / "out.mcap")
    assert done.code == 1 and "1 failed" in done.out and "-5 ns" in done.err
    assert log_times(tmp_path / "out.mcap") == [1]


def test_no_bag_is_written_where_no_image_can_be_used(
    bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(0), encoding="16UC1"))
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 1 and "16UC1" in done.err and "no bag is written" in done.err
    assert_nothing_left(tmp_path, "in")


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_cut_bag_leaves_nothing_and_fails(
    storage: str, share: float, bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", *(raw(n, gray(0)) for n in range(6)), storage=storage)
    file = next(file for file in given.iterdir() if file.suffix != ".yaml")
    os.truncate(file, int(share * file.stat().st_size))
    for path in (given, file):
        done = bag(path, "--output", tmp_path / "out")
        assert done.code == 1 and "cut off or damaged" in done.err, done
        assert_nothing_left(tmp_path, "in")


@pytest.mark.parametrize(
    "content", [None, "", "a: [", "rosbag2_bagfile_information: {version: 5}"]
)
def test_a_bag_whose_metadata_cannot_be_read_fails(
    content: str | None, bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(0)))
    if content is None:
        (given / "metadata.yaml").unlink()
    else:
        (given / "metadata.yaml").write_text(content)
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 1 and "cut off or damaged" in done.err
    assert ("reindex" in done.err) == (content is None)


def test_what_can_be_read_of_a_damaged_bag_is_kept(bag: Any, stub: Stub, tmp_path: Path) -> None:
    given = write_bag(tmp_path / "in", *(raw(n, gray(200)) for n in range(12)))
    file = given / "in.mcap"
    data = bytearray(file.read_bytes())
    third = [at for at in range(len(data)) if data.startswith(b"\x06", at)]
    with rosbags.Reader(file) as reader:
        chunk = reader.storage.chunks[-1]
    assert chunk.chunk_start_offset in third and chunk.message_start_time > LOG_S * 10**9 + 10**9
    begin = chunk.chunk_start_offset + 9 + 40
    data[begin : begin + 1000] = b"\xff" * 1000
    file.write_bytes(data)
    done = bag(given, "--output", tmp_path / "out")
    read = log_times(tmp_path / "out")
    assert 0 < len(read) < 12 and read == list(range(len(read)))
    assert done.code == 1 and f"{len(read)} of 12 images could be read" in done.err


def test_a_chunk_that_unpacks_to_more_than_memory_fails(
    bag: Any, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdc_ros.bag_files.MOST_MEMORY", 100 << 20)
    small = [raw(n, gray(200)) for n in range(6)]
    large = raw(6, gray(0), data=np.zeros(200 << 20, np.uint8))
    given = write_bag(tmp_path / "in", *small, large, packed=True)
    assert (given / "in.mcap").stat().st_size < 1 << 20
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 1 and "of 7 images could be read" in done.err, done
    assert people_in(tmp_path / "out") == [1] * 5, "those of the chunk before"


# What breaks it off


@pytest.mark.parametrize("ending", [".mcap", ".db3"])
def test_a_full_disk_leaves_nothing(ending: str, bag: Any, stub: Stub, tmp_path: Path) -> None:
    given = write_bag(tmp_path / "in", *(raw(n, gray(0)) for n in range(20)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        done = bag(given, "--output", tmp_path / f"out{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code == 1 and "cannot write" in done.err, done
    assert_nothing_left(tmp_path, "in")


def process(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kdc_core", "bag", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.all
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_half_bag_is_left_by_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    given = write_bag(tmp_path / "in", *(raw(n, gray(0)) for n in range(400)))
    running = process(given, "--output", tmp_path / "out")
    while not list(tmp_path.glob(".kdc-*/out/*")):  # the bag under way
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 128 + number and f"stopped by {number.name}" in err
    assert "Traceback" not in err and "people in" not in out
    assert_nothing_left(tmp_path, "in")


@pytest.mark.all
def test_a_view_stays_until_ctrl_c_with_the_bag_written(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun is not installed (extra `view`)")
    given = write_bag(tmp_path / "in", *(raw(n, gray(0)) for n in range(3)))
    running = process(given, "--output", tmp_path / "out", "--view")
    try:
        assert running.stderr is not None
        lines: list[str] = []
        while not lines or "stays until Ctrl-C" not in lines[-1]:
            assert (line := running.stderr.readline()), lines
            lines.append(line)
        assert any("live view: http://127.0.0.1:" in line for line in lines)
        assert people_in(tmp_path / "out") == [0, 0, 0]
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0 and "error" not in err.lower(), err
        assert "people in" in out
    finally:
        running.kill()


def test_what_is_missing_is_named_with_its_extra(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules['rosbags'] = sys.modules['rclpy'] = None\n"
        "from kdc_core import cli\n"
        f"print(cli.run(['bag', 'x', '--output', {str(tmp_path / 'out')!r}]), cli.run(['echo']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "2"], done.stderr
    assert "'rosbags': pip install 'kdc_ros[bag]'" in done.stderr
    assert "'rclpy': source /opt/ros/DISTRIBUTION/setup.bash, or where no ROS" in done.stderr
    assert "pip install 'kdc_ros[ros-wheels]'" in done.stderr
