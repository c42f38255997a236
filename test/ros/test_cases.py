"""Case folders, `test/cases/NAME/case.json`: frames and what is to come of them, by the real node.

A case is a `Case`: parameters at the start, and steps, each a frame with what is expected of it.
"""

from __future__ import annotations

import json
import re
import signal
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict
from sensor_msgs.msg import CompressedImage, Image

from kdc_core.bench.frames import SAMPLES, paste_people
from kdc_core.data.images import Images
from kdc_ros.camera import stamp_of
from kdc_ros.images import BadFrame, to_rgb

from .peer import OUTPUTS, MakePeer, Peer, persons
from .process import NodeProcess, Start

pytestmark = pytest.mark.ros

FOLDER = Path(__file__).parents[1] / "cases"
CASES = {path.parent.name: path for path in sorted(FOLDER.glob("*/case.json"))}
FIRST_S, PERIOD_S = 1000.0, 0.1  # stamps of frames
# OpenCV's conversions from RGB. Bytes of sixteen bits are made of these.
LAYOUTS = {
    "rgb8": None,
    "bgr8": cv2.COLOR_RGB2BGR,
    "bgra8": cv2.COLOR_RGB2BGRA,
    "mono8": cv2.COLOR_RGB2GRAY,
    "mono16": cv2.COLOR_RGB2GRAY,
    "yuv422_yuy2": cv2.COLOR_RGB2YUV_YUY2,
}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Expected(Strict):
    """What is to come of a frame.

    Attributes:
        bad: the frame is counted as bad, for a cause that holds this; else it is answered.
        persons: how many.
        ids: theirs, sorted.
        visible: keypoints of all people, least and most.
        inside: x0, y0, x1, y1: all boxes lie within.
        as_step: as many people, in the same places to a few pixels, as at that step.
    """

    bad: str | None = None
    persons: int | None = None
    ids: list[int] | None = None
    visible: tuple[int, int] | None = None
    inside: tuple[int, int, int, int] | None = None
    as_step: int | None = None


class Step(Strict):
    """A frame.

    Attributes:
        expect: what is to come of it.
        parameters: set before.
        refused: other parameters: what the node says when they are asked for.
        sample: a picture of the package, scaled to `width`; else
        people: so many people on gray, of VGA, scaled to `width`; else
        gray: all pixels have this value.
        width: pixels.
        size: (height, width) of a gray frame.
        encoding: of an Image, or png or jpg.
        padding: bytes behind each row.
        big_endian: of sixteen bits.
        message: fields of the message to change.
        data_bytes: the data is cut off there.
        stamp: seconds and nanoseconds; none = a tenth of a second after the last one.
        frame_id: of the header.
    """

    expect: Expected = Expected()
    parameters: dict[str, Any] = {}
    refused: dict[str, tuple[Any, str]] = {}
    sample: str | None = None
    people: int | None = None
    gray: int = 0
    width: int = 320
    size: tuple[int, int] = (48, 64)
    encoding: str = "rgb8"
    padding: int = 0
    big_endian: bool = False
    message: dict[str, int | str] = {}
    data_bytes: int | None = None
    stamp: tuple[int, int] | None = None
    frame_id: str = "camera"


class Case(Strict):
    """One run of the node.

    Attributes:
        about: what it shows.
        parameters: at the start.
        steps: in their order.
        log: what the log holds in the end, as patterns.
        exit_code: of the process; other than 0 it ends by itself.
    """

    about: str
    parameters: dict[str, Any] = {}
    steps: list[Step] = []
    log: list[str] = []
    exit_code: int = 0


def read_case(name: str) -> Case:
    return Case.model_validate_json(CASES[name].read_bytes())


people_on_gray = cache(paste_people)


def pixels_of(step: Step) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    if step.sample is not None:
        pixels = Images(SAMPLES).read(step.sample)
    elif step.people is not None:
        pixels = people_on_gray(step.people)
    else:
        return np.full((*step.size, 3), step.gray, np.uint8)
    height = round(pixels.shape[0] * step.width / pixels.shape[1])
    return cv2.resize(pixels, (step.width, height), interpolation=cv2.INTER_AREA)


def fill(message: Image, step: Step) -> None:
    pixels, conversion = pixels_of(step), LAYOUTS[step.encoding]
    message.height, message.width, message.encoding = *pixels.shape[:2], step.encoding
    if conversion is not None:
        pixels = cv2.cvtColor(pixels, conversion)
    if step.encoding == "mono16":
        pixels = (pixels.astype(np.uint16) * 257).astype(">u2" if step.big_endian else "<u2")
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(message.height, -1)
    rows = np.pad(rows, ((0, 0), (0, step.padding)), constant_values=0xAA)
    message.is_bigendian, message.step = step.big_endian, rows.shape[1]
    message.data = array("B", rows.tobytes()[: step.data_bytes])
    for name, value in step.message.items():
        setattr(message, name, value)


def message_of(step: Step, time_s: float) -> Image | CompressedImage:
    """The message that a step publishes."""
    if step.encoding in ("png", "jpg"):
        data = cv2.imencode(f".{step.encoding}", pixels_of(step)[..., ::-1])[1].tobytes()
        message = CompressedImage(format=step.encoding, data=array("B", data[: step.data_bytes]))
    else:
        message = Image()
        fill(message, step)
    stamp = step.stamp or divmod(round(1e9 * time_s), 10**9)
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    message.header.frame_id = step.frame_id
    return message


class Replay:
    """Shows the frames of a case and checks what comes.

    Args:
        case: it.
        peer: has met nobody yet.
    """

    def __init__(self, case: Case, peer: Peer):
        self._case, self._peer = case, peer
        self._found: list[np.ndarray] = []
        if case.parameters.get("image_transport") == "compressed":
            peer.node.destroy_publisher(peer.publisher)
            peer.publisher = peer.node.create_publisher(CompressedImage, "image/compressed", 1)

    def run(self) -> None:
        self._meet()
        time_s = FIRST_S
        for number, step in enumerate(self._case.steps):
            time_s = (step.stamp[0] + 1e-9 * step.stamp[1] if step.stamp else time_s) + PERIOD_S
            self._found.append(np.zeros(0))
            try:
                self._show(step, time_s)
            except AssertionError as error:
                raise AssertionError(f"step {number}: {error}") from error

    def _meet(self) -> None:
        """Show black frames until one is answered; in them is nobody whose id would count."""
        encoding = "png" if self._peer.publisher.msg_type is CompressedImage else "rgb8"
        black = message_of(Step(encoding=encoding), FIRST_S)

        def answered() -> bool:
            self._peer.publisher.publish(black)
            self._peer.spin_until(complete, 0.3)
            return complete()

        def complete() -> bool:
            return len(self._peer.received.get(stamp_of(black), ())) == len(OUTPUTS)

        self._peer.wait(answered, "the node answers")

    def _show(self, step: Step, time_s: float) -> None:
        peer, expect = self._peer, step.expect
        if step.parameters:
            peer.set_parameters(**step.parameters)
        for name, (value, reason) in step.refused.items():
            result = peer.set_parameter(name, value)
            assert not result.successful and reason in result.reason, result.reason
        message = message_of(step, time_s)
        if expect.bad is not None:
            before = peer.counters()["bad"]
            peer.publisher.publish(message)
            status = peer.status(lambda s: peer.values(s)["bad"] != before, "a bad frame")
            assert expect.bad in peer.values(status)["last_error"]
            assert not peer.received.get(stamp_of(message))
            return
        answers = peer.ask(message)[0]
        assert [answers[topic].header for topic in OUTPUTS] == [message.header] * len(OUTPUTS)
        labels, size = answers["labels"], pixels_of(step).shape[:2]
        assert (labels.height, labels.width) == size
        found = persons(answers)
        self._found[-1] = found
        in_labels = np.unique(np.frombuffer(labels.data, "<u2"))
        assert set(in_labels) - {0} == set(found["id"][found["area"] > 0])
        self._check(expect, found)

    def _check(self, expect: Expected, found: np.ndarray) -> None:
        if expect.persons is not None:
            assert len(found) == expect.persons, found["score"]
        if expect.ids is not None:
            assert found["id"].tolist() == expect.ids
        if expect.visible is not None:
            least, most = expect.visible
            assert least <= found["visible"].sum() <= most, found["visible"]
        if expect.inside is not None:
            x0, y0, x1, y1 = expect.inside
            assert (found["left"] >= x0).all() and (found["top"] >= y0).all(), found
            assert (found["left"] + found["width"] <= x1).all(), found
            assert (found["top"] + found["height"] <= y1).all(), found
        if expect.as_step is not None:
            other = self._found[expect.as_step]
            assert len(found) == len(other) > 0
            places, others = (np.stack([t["u"], t["v"]], 1) for t in (found, other))
            distances = np.linalg.norm(places[:, None] - others, axis=2)
            assert distances.min(1).max() < 4.0, distances


@pytest.mark.all
@pytest.mark.parametrize("name", CASES)
def test_the_node_does_as_the_case_says(name: str, start_once: Start, peer: MakePeer) -> None:
    case = read_case(name)
    words = [f"{key}:={json.dumps(value)}" for key, value in case.parameters.items()]
    arguments = [word for text in words for word in ("-p", text)]
    process = start_once("-r", f"__ns:=/case_{name}", *arguments)
    if case.steps:
        Replay(case, peer(f"/case_{name}")).run()
    check_end(case, process, peer(f"/case_{name}", answers={}))


def check_end(case: Case, process: NodeProcess, peer: Peer) -> None:
    def logged() -> bool:
        return all(re.search(pattern, process.log) for pattern in case.log)

    peer.wait(logged, f"{case.log} in the log")
    if case.exit_code == 0:
        process.process.send_signal(signal.SIGINT)
        process.assert_ends_well()
    else:
        assert process.process.wait(30) == case.exit_code
    assert "Traceback" not in process.log


@pytest.mark.parametrize("name", CASES)
def test_the_converter_does_as_the_case_says(name: str) -> None:
    """The same frames, without a node."""
    case = read_case(name)
    for step in case.steps:
        message = message_of(step, FIRST_S)
        if isinstance(message, CompressedImage):
            continue
        if step.expect.bad is not None:
            with pytest.raises(BadFrame, match=re.escape(step.expect.bad)):
                to_rgb(message)
            continue
        pixels = pixels_of(step)
        converted = to_rgb(message)
        assert converted.shape == pixels.shape
        if "mono" not in step.encoding:
            assert np.abs(converted.astype(int) - pixels).mean() < 6
