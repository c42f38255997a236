"""Topics beside keypoints, persons and labels: of a node in a process of its own, and what is not
made while nobody listens."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from kdc_core.codec.results import Person
from kdc_ros.camera import ANSWERS
from kdc_ros.images import to_rgb
from kdc_ros.outputs import Outputs
from kdc_ros.tables import KEYPOINT

from .local import Local, local_node
from .peer import BLACK, MakePeer, Peer, persons
from .process import Start

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("optional_messages")]

BODIES = "/humans/bodies"
PICTURES = {"mask": Image, "annotated": Image, "anonymized": Image}
GRAY = np.full((48, 64, 3), 90, np.uint8)


def listen(peer: Peer, kind: type, topic: str, latched: bool = False) -> list[Any]:
    """Messages of a topic, as they come."""
    qos = QoSProfile(depth=10)
    if latched:
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    got: list[Any] = []
    peer.node.create_subscription(kind, topic, got.append, qos)
    return got


def labels(answers: dict[str, Any]) -> np.ndarray:
    image = answers["labels"]
    return np.frombuffer(image.data, "<u2").reshape(image.height, image.width)


# A real model in a process of its own


@dataclass
class Everything:
    """All that a node says of one image with people, and of one without.

    Attributes:
        people: the image.
        some: answers by topic to the image with people, with its header as `header`.
        nobody: answers to the black one, likewise.
        label_info: what was told of the labels.
    """

    people: np.ndarray
    some: dict[str, Any]
    nobody: dict[str, Any]
    label_info: list[Any]


class Listener:
    """Subscribes to every topic of a node, those of bodies too.

    Args:
        peer: subscribed to the topics whose names do not change.
        people: an image of the people whose bodies there will be.
    """

    def __init__(self, peer: Peer, people: np.ndarray):
        from hri_msgs.msg import IdsList, NormalizedRegionOfInterest2D, Skeleton2D
        from vision_msgs.msg import LabelInfo

        self.peer = peer
        self.texts = listen(peer, String, f"{peer.namespace}/kdc/persons/json")
        self.label_info = listen(peer, LabelInfo, f"{peer.namespace}/kdc/labels/info", True)
        self.tracked = listen(peer, IdsList, f"{BODIES}/tracked")
        peer.meet()
        self.bodies: dict[int, dict[str, list[Any]]] = {}
        for id in persons(peer.answer(people))["id"].tolist():
            topic = f"{BODIES}/b{id:05d}"
            self.bodies[id] = {
                "skeleton2d": listen(peer, Skeleton2D, f"{topic}/skeleton2d"),
                "roi": listen(peer, NormalizedRegionOfInterest2D, f"{topic}/roi"),
            }
        each = [got for body in self.bodies.values() for got in body.values()]
        peer.wait(lambda: peer.answer(people) and all(each), "bodies")

    def ask(self, pixels: np.ndarray) -> dict[str, Any]:
        """Answers to an image by topic, and its `header`."""
        frame = self.peer.frame(pixels)
        frame.header.frame_id = "left_eye"
        answers = self.peer.ask(frame)[0]
        stamp = {"sec": frame.header.stamp.sec, "nanosec": frame.header.stamp.nanosec}

        def of_frame(got: list[Any]) -> Any:
            self.peer.wait(lambda: any(m.header == frame.header for m in got), "an answer")
            return next(m for m in got if m.header == frame.header)

        def text() -> Any:
            told = (json.loads(message.data) for message in self.texts)
            return next((content for content in told if content["stamp"] == stamp), None)

        self.peer.wait(text, "json")
        answers["bodies"] = {
            id: {name: of_frame(got) for name, got in self.bodies[id].items()}
            for id in persons(answers)["id"].tolist()
        }
        tracked = of_frame(self.tracked)
        return {**answers, "json": text(), "tracked": tracked, "header": frame.header}


@pytest.fixture(scope="module")
def everything(optional_messages: None, start: Start, people: np.ndarray) -> Everything:
    from vision_msgs.msg import Detection2DArray

    start("-r", "__ns:=/outputs", "-p", "hri:=true", "-p", "track_timeout:=60.0")
    topics = {
        **ANSWERS,
        **PICTURES,
        "annotated/compressed": CompressedImage,
        "detections": Detection2DArray,
    }
    with closing(Peer("/outputs", answers=topics)) as peer:
        listener = Listener(peer, people)
        some, nobody = listener.ask(people), listener.ask(GRAY)
        return Everything(people, some, nobody, listener.label_info)


def test_every_answer_carries_the_header_of_the_image(everything: Everything) -> None:
    for answers in (everything.some, everything.nobody):
        header = answers["header"]
        stamped = {name: m for name, m in answers.items() if hasattr(m, "header")}
        assert len(stamped) == 9
        assert [m.header for m in stamped.values()] == [header] * len(stamped)
        assert answers["json"]["frame_id"] == header.frame_id == "left_eye"


def test_ids_are_the_same_in_every_answer(everything: Everything) -> None:
    answers = everything.some
    ids = persons(answers)["id"].tolist()
    assert len(ids) > 1 and ids == sorted(ids)
    rows = np.frombuffer(answers["keypoints"].data, KEYPOINT).reshape(len(ids), -1)
    assert rows["id"][:, 0].tolist() == ids
    assert [person["id"] for person in answers["json"]["persons"]] == ids
    assert [int(detection.id) for detection in answers["detections"].detections] == ids
    assert answers["tracked"].ids == [f"b{id:05d}" for id in ids]
    assert list(answers["bodies"]) == ids
    assert set(np.unique(labels(answers))) == {0, *ids}


def test_people_are_the_same_in_every_answer(everything: Everything) -> None:
    answers = everything.some
    height, width = everything.people.shape[:2]
    for row, told, detection in zip(
        persons(answers),
        answers["json"]["persons"],
        answers["detections"].detections,
        strict=True,
    ):
        box = [row["left"], row["top"], row["left"] + row["width"], row["top"] + row["height"]]
        assert told["box"] == pytest.approx(box, abs=0.01)
        assert (told["area"], len(told["keypoints"])) == (row["area"], row["visible"])
        assert (detection.bbox.size_x, detection.bbox.size_y) == (row["width"], row["height"])
        assert detection.results[0].hypothesis.score == pytest.approx(row["score"])
        body = answers["bodies"][int(row["id"])]
        roi = body["roi"]
        corners = (np.array(box) + 0.5) / [width, height, width, height]
        assert (roi.xmin, roi.ymin, roi.xmax, roi.ymax) == pytest.approx(
            np.clip(corners, 0, 1).tolist(), abs=1e-5
        )
        seen = sum(point.c > 0 for point in body["skeleton2d"].skeleton)
        shoulders = {"left_shoulder", "right_shoulder"} <= set(told["keypoints"])
        assert seen == row["visible"] + shoulders


def test_the_mask_is_where_the_labels_are(everything: Everything) -> None:
    for answers in (everything.some, everything.nobody):
        mask = answers["mask"]
        pixels = np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width)
        assert mask.encoding == "mono8"
        assert (pixels == np.where(labels(answers) > 0, 255, 0)).all()
    assert pixels.shape == GRAY.shape[:2] and not pixels.any()


def test_the_compressed_picture_is_the_annotated_one(everything: Everything) -> None:
    drawn = to_rgb(everything.some["annotated"]).astype(int)
    data = np.frombuffer(everything.some["annotated/compressed"].data, np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    assert np.abs(decoded[..., ::-1] - drawn).mean() < np.abs(everything.people - drawn).mean()


def test_nobody_is_seen_in_the_anonymized_picture(everything: Everything) -> None:
    anonymized = everything.some["anonymized"]
    assert anonymized.encoding == "bgr8"
    changed = (to_rgb(anonymized) != everything.people).any(-1)
    somebody = labels(everything.some) > 0
    assert changed[somebody].mean() > 0.95
    assert not changed.all(), "nothing is left of the image"
    assert (to_rgb(everything.nobody["anonymized"]) == GRAY).all()


def test_an_empty_scene_is_told_on_every_topic(everything: Everything) -> None:
    nobody = everything.nobody
    assert len(persons(nobody)) == len(nobody["detections"].detections) == 0
    assert nobody["json"]["persons"] == [] and nobody["tracked"].ids == []


def test_label_info_names_the_people_of_each_image_that_has_others(
    everything: Everything,
) -> None:
    ids = persons(everything.some)["id"].tolist()
    names = [[c.class_name for c in info.class_map] for info in everything.label_info]
    of_some = ["background", *(f"person_{id}" for id in ids)]
    assert of_some in names and ["background"] in names
    assert all(a != b for a, b in zip(names, names[1:], strict=False)), "told without a change"


# A stub of the model in this process


def somebody(score: float = 0.9, x: int = 10) -> Person:
    keypoints = np.full((17, 3), 0.9, np.float32)
    keypoints[:, :2] = x + 4, 20
    return Person(
        score=score,
        keypoints=keypoints,
        box=np.array([x - 0.5, 9.5, x + 9.5, 39.5], np.float32),
        mask=np.ones((30, 10), bool),
        mask_origin=(x, 10),
        centroids=np.zeros((0, 4), np.float32),
    )


COLORS = np.random.default_rng(0).integers(0, 255, BLACK.shape, np.uint8)
MADE = {
    "persons/json": (String, "kdc_ros.messages.persons_json"),
    "mask": (Image, "kdc_ros.messages.mask_image"),
    "annotated": (Image, "kdc_ros.outputs.draw_people"),
    "annotated/compressed": (CompressedImage, "kdc_ros.messages.jpeg_image"),
    "anonymized": (Image, "kdc_ros.outputs.hide_people"),
    "detections": (None, "kdc_ros.vision.detections"),  # of a type that is not there yet
}


def count_calls(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> dict[str, int]:
    """How often each function was called since."""
    calls = dict.fromkeys(names, 0)
    for name in names:
        module, _, function = name.rpartition(".")
        original = getattr(importlib.import_module(module), function)

        def counted(*args: Any, name: str = name, original: Any = original, **kw: Any) -> Any:
            calls[name] += 1
            return original(*args, **kw)

        monkeypatch.setattr(name, counted)
    return calls


@pytest.mark.parametrize("topic", MADE)
def test_an_output_is_made_while_somebody_subscribes_and_no_longer(
    local: Local, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    from vision_msgs.msg import Detection2DArray

    kind, maker = MADE[topic]
    kind = kind or Detection2DArray
    calls = count_calls(monkeypatch, [name for _, name in MADE.values()])
    local.predictor.persons = (somebody(),)
    local.peer.answer(COLORS)
    assert set(calls.values()) == {0}
    name = f"{local.node.get_namespace()}/kdc/{topic}"
    got: list[Any] = []
    subscription = local.peer.node.create_subscription(kind, name, got.append, 10)
    local.peer.send_until(lambda: got, topic)
    drawn = {"kdc_ros.outputs.draw_people"} if topic.startswith("annotated") else set()
    assert {name for name, count in calls.items() if count} == {maker} | drawn
    local.peer.node.destroy_subscription(subscription)
    local.peer.wait(lambda: not local.node.count_subscribers(name), "nobody listens")
    calls.update(dict.fromkeys(calls, 0))
    local.peer.answer(COLORS)
    assert set(calls.values()) == {0}


@pytest.fixture
def anonymized(local: Local) -> list[Image]:
    """Pictures that a node of a stub publishes."""
    got = listen(local.peer, Image, f"{local.node.get_namespace()}/kdc/anonymized")
    local.peer.send_until(lambda: got, "a picture")
    got.clear()
    return got


def picture(local: Local, got: list[Image]) -> np.ndarray:
    """What is published of COLORS."""
    frame = local.peer.frame(COLORS)
    local.peer.ask(frame)
    local.peer.wait(lambda: any(m.header == frame.header for m in got), "a picture")
    return to_rgb(next(m for m in got if m.header == frame.header))


def test_unsure_people_are_hidden_and_not_published(local: Local, anonymized: list[Image]) -> None:
    """The model is asked for them only while somebody wants a picture without people."""
    local.predictor.persons = (somebody(), somebody(score=0.2, x=40))
    hidden = picture(local, anonymized)
    assert local.predictor.thresholds.confidence < 0.2
    for x in (10, 40):
        changed = (hidden[10:40, x : x + 10] != COLORS[10:40, x : x + 10]).any(-1)
        assert changed.mean() > 0.95
    assert (hidden[:, 60:] == COLORS[:, 60:]).all()
    assert persons(local.peer.answer(COLORS))["score"].tolist() == pytest.approx([0.9])


def test_without_a_listener_the_model_is_not_asked_for_unsure_people(local: Local) -> None:
    local.peer.answer(COLORS)
    assert local.predictor.thresholds.confidence > 0.2
    assert local.predictor.thresholds.keypoint == 0.3


def test_the_style_may_change_while_the_node_runs(local: Local, anonymized: list[Image]) -> None:
    local.predictor.persons = (somebody(),)
    local.peer.set_parameters(anonymize="fill")
    assert len(np.unique(picture(local, anonymized)[10:40, 10:20])) == 1
    local.peer.set_parameters(anonymize="pixelate")
    assert len(np.unique(picture(local, anonymized)[10:40, 10:20])) > 1


def test_outside_of_the_region_that_is_processed_everything_is_hidden(
    local: Local, anonymized: list[Image]
) -> None:
    local.peer.set_parameters(roi="20,10,30,30", anonymize="fill")
    hidden = picture(local, anonymized)
    assert (hidden[10:40, 20:50] == COLORS[10:40, 20:50]).all()
    hidden[10:40, 20:50] = hidden[0, 0]
    assert len(np.unique(hidden)) == 1


@pytest.mark.parametrize("fault", ["model", "hiding"])
def test_of_a_frame_that_failed_no_picture_is_published(
    local: Local, anonymized: list[Image], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    local.predictor.persons = (somebody(),)
    failed = local.peer.frame(COLORS)
    with monkeypatch.context() as patch:
        if fault == "model":
            patch.setattr(local.predictor, "error", RuntimeError("no memory"))
        else:
            patch.setattr("kdc_ros.outputs.hide_people", None)
        before = local.node._monitor.faults
        local.peer.publisher.publish(failed)
        local.peer.wait(lambda: local.node._monitor.faults > before, "a fault")
    picture(local, anonymized)
    assert failed.header not in [image.header for image in anonymized]


def test_a_frame_begun_before_somebody_listened_is_not_shown(
    local: Local, anonymized: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsure people were not asked for, so they would be seen."""
    local.peer.answer()
    listened = iter([False])
    monkeypatch.setattr(Outputs, "hides_people", property(lambda self: next(listened, True)))
    begun = local.peer.frame(COLORS)
    local.peer.ask(begun)
    picture(local, anonymized)
    assert begun.header not in [image.header for image in anonymized]


# REP-155


@pytest.fixture
def hri(domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer) -> Iterator[Local]:
    """A node that publishes bodies, of a stub, and a peer."""
    with local_node(monkeypatch, True, autostart=True, hri=True, tracking=False) as (
        node,
        predictor,
    ):
        camera = peer(node.get_namespace())
        camera.meet()
        yield Local(node, predictor, camera)


def bodies(local: Local) -> set[str]:
    """Topics of bodies that this node publishes."""
    found = local.node.get_publisher_names_and_types_by_node(
        local.node.get_name(), local.node.get_namespace()
    )
    return {topic.removeprefix(f"{BODIES}/") for topic, _ in found if BODIES in topic}


def test_topics_of_bodies_come_and_go_with_the_people(hri: Local) -> None:
    assert bodies(hri) == {"tracked"}
    hri.predictor.persons = (somebody(), somebody(x=40))
    hri.peer.answer(COLORS)
    one, two = ({f"{id}/skeleton2d", f"{id}/roi"} for id in ("b00001", "b00002"))
    hri.peer.wait(lambda: bodies(hri) == {"tracked"} | one | two, "two bodies")
    hri.predictor.persons = hri.predictor.persons[:1]
    hri.peer.answer(COLORS)
    assert bodies(hri) == {"tracked"} | one | two, "who was seen a moment ago may come back"
    hri.peer.set_parameters(track_timeout=0.0)
    hri.peer.send_until(lambda: bodies(hri) == {"tracked"} | one, "one body")
    hri.predictor.persons = ()
    hri.peer.send_until(lambda: bodies(hri) == {"tracked"}, "no body")


def test_there_are_topics_of_so_many_bodies_at_most(
    hri: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ids change with every image, as of two cameras on one topic."""
    monkeypatch.setattr("kdc_ros.hri.MOST", 2)
    hri.peer.set_parameters(track_timeout=60.0)
    for id in range(1, 6):
        hri.predictor.persons = (replace(somebody(), id=id),)
        hri.peer.answer(COLORS)
    left = {f"b{id:05d}/{name}" for id in (4, 5) for name in ("skeleton2d", "roi")}
    hri.peer.wait(lambda: bodies(hri) == {"tracked"} | left, "the last two bodies")


@pytest.mark.parametrize("end", ["pause", "deactivate", "shutdown", "no images", "bad", "hang"])
def test_who_follows_bodies_is_told_that_the_node_sees_nobody_any_more(
    hri: Local, end: str
) -> None:
    from hri_msgs.msg import IdsList

    told = listen(hri.peer, IdsList, f"{BODIES}/tracked")
    hri.peer.wait(
        lambda: hri.node.count_subscribers(f"{BODIES}/tracked") and hri.peer.answer(COLORS), "ears"
    )
    hri.predictor.persons = (somebody(),)
    hri.peer.answer(COLORS)
    hri.peer.wait(lambda: told and told[-1].ids, "somebody")
    if end == "pause":
        hri.peer.enable(False)
    elif end == "no images":
        hri.peer.set_parameters(input_timeout=0.3)
    elif end == "bad":
        hri.peer.set_parameters(input_timeout=0.3)
        bad = hri.peer.frame(COLORS)
        bad.encoding = "no such"

        def nobody() -> bool:
            hri.peer.publisher.publish(bad)
            return not told[-1].ids

        hri.peer.wait(nobody, "nobody, though images come")
    elif end == "hang":
        hri.peer.set_parameters(stall_timeout=1.0)
        hri.predictor.while_busy = lambda: time.sleep(3)
        hri.peer.publisher.publish(hri.peer.frame(COLORS))
        hri.peer.wait(lambda: hri.node._monitor._begun_s, "it is in work")
        assert hri.peer.change_state("deactivate")
    else:
        assert hri.peer.change_state(end)
    hri.peer.wait(lambda: not told[-1].ids, "nobody")
    assert told[-1].header.stamp.sec


def test_cleanup_takes_the_topics_of_bodies_down(hri: Local) -> None:
    hri.predictor.persons = (somebody(),)
    hri.peer.answer(COLORS)
    hri.peer.wait(lambda: len(bodies(hri)) == 3, "a body")
    hri.node.trigger_deactivate()
    hri.node.trigger_cleanup()
    hri.peer.wait(lambda: not bodies(hri), "no topic")


def test_whoever_listens_to_one_body_alone_is_served(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer
) -> None:
    """With `lazy`, nothing is processed for nobody."""
    from hri_msgs.msg import Skeleton2D

    with local_node(
        monkeypatch, spin=True, autostart=True, hri=True, tracking=False, lazy=False
    ) as (node, predictor):
        predictor.persons = (somebody(),)
        camera = peer(node.get_namespace(), answers={})
        local = Local(node, predictor, camera)
        camera.send_until(lambda: len(bodies(local)) == 3, "a body")
        assert node._loaded is not None
        outputs = node._loaded.outputs
        assert not outputs.subscribed
        camera.set_parameters(lazy=True)
        got = listen(camera, Skeleton2D, f"{BODIES}/b00001/skeleton2d")
        camera.wait(lambda: outputs.subscribed, "somebody listens")
        got.clear()
        camera.send_until(lambda: got, "a skeleton")


def test_without_the_parameter_there_are_no_bodies(local: Local) -> None:
    assert not bodies(local)


# Without the packages


def test_without_vision_msgs_and_hri_msgs_the_rest_is_published(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("kdc_ros.vision", "kdc_ros.hri"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("vision_msgs", "vision_msgs.msg", "hri_msgs", "hri_msgs.msg"):
        monkeypatch.setitem(sys.modules, name, None)
    with local_node(monkeypatch, True, autostart=True, hri=True) as (node, predictor):
        camera = peer(node.get_namespace())
        camera.meet()
        assert not bodies(Local(node, predictor, camera))
    log = capfd.readouterr().err
    assert "no ~/detections and ~/labels/info without vision_msgs" in log
    assert "the parameter hri does nothing without hri_msgs" in log
