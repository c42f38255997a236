"""`kdc bag`: what it writes, of which images, and what it refuses. It needs no ROS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.tracking import TIMEOUT_S, Tracker
from kdc_ros.images import ENCODINGS
from kdc_ros.tables import KEYPOINT, PERSON, keypoint_rows, label_pixels, person_rows

from .bags import (
    LOG_S,
    STAMP_S,
    TOPIC,
    TYPES,
    Message,
    Stub,
    assert_nothing_left,
    compressed,
    gray,
    jpeg,
    log_times,
    people_in,
    raw,
    read_bag,
    write_bag,
)

OUTPUTS = {"/kdc/keypoints", "/kdc/persons", "/kdc/labels"}


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
