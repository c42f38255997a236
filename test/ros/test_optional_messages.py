"""People as messages of vision_msgs and hri_msgs: what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_ros.parameters import Settings

pytestmark = pytest.mark.usefixtures("optional_messages")

SIZE = (40, 60)
HEADER = Header(stamp=Time(sec=5, nanosec=6), frame_id="left_eye")
# Of the released packages (RIHS01), as `ros2 topic info --verbose` shows them.
HASHES = {
    "vision_msgs/msg/Detection2DArray": (
        "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"
    ),
    "vision_msgs/msg/LabelInfo": (
        "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783"
    ),
}


def person(id: int | None, score: float, box: tuple[float, float, float, float]) -> Person:
    """Keypoint k at (k, 2 k), all of score .5."""
    keypoints = np.full((17, 3), 0.5, np.float32)
    keypoints[:, 0], keypoints[:, 1] = np.arange(17), 2 * np.arange(17)
    return Person(
        score=score,
        keypoints=keypoints,
        box=np.array(box, np.float32),
        mask=np.ones((4, 6), bool),
        mask_origin=(10, 20),
        centroids=np.zeros((0, 4), np.float32),
        id=id,
    )


@pytest.fixture
def two() -> Prediction:
    """The one of the larger id has the higher score."""
    one, other = (9.5, 19.5, 15.5, 23.5), (-0.5, -0.5, 59.5, 39.5)
    return Prediction(SIZE, (person(17, 0.75, one), person(3, 0.5, other)))


def test_the_types_are_those_of_the_released_vision_msgs() -> None:
    import vision_msgs.msg

    for name, known in HASHES.items():
        file = Path(vision_msgs.msg.__file__).parent / f"{name.rpartition('/')[2]}.json"
        if not file.is_file():
            pytest.skip("vision_msgs is that of a ROS 2 installation")
        hashes = json.loads(file.read_text())["type_hashes"]
        assert {h["type_name"]: h["hash_string"] for h in hashes}[name] == known


def test_detections_have_box_class_score_and_id(two: Prediction) -> None:
    from kdc_ros.vision import detections

    message = detections(HEADER, two)
    assert message.header == HEADER
    first, second = message.detections
    assert (first.id, second.id) == ("3", "17")
    assert (first.header, second.header) == (HEADER, HEADER)
    box = second.bbox
    assert (box.center.position.x, box.center.position.y, box.center.theta) == (12.5, 21.5, 0)
    assert (box.size_x, box.size_y) == (6, 4)
    assert [(r.hypothesis.class_id, r.hypothesis.score) for r in second.results] == [
        ("person", 0.75)
    ]


def test_nobody_gives_no_detections() -> None:
    from kdc_ros.vision import detections

    message = detections(HEADER, Prediction(SIZE, ()))
    assert (message.header, list(message.detections)) == (HEADER, [])


def test_label_info_names_what_the_label_image_holds() -> None:
    from kdc_ros.vision import label_info

    message = label_info(HEADER, [3, 65535], 0.25)
    assert message.header == HEADER
    assert [(c.class_id, c.class_name) for c in message.class_map] == [
        (0, "background"),
        (3, "person_3"),
        (65535, "person_65535"),
    ]
    assert message.threshold == 0.25


def test_labels_are_told_again_where_people_or_threshold_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kdc_ros import vision

    told: list[float] = []
    publisher = SimpleNamespace(
        get_subscription_count=lambda: 0, publish=lambda info: told.append(info.threshold)
    )
    monkeypatch.setattr(vision, "create_output", lambda *_, **__: publisher)
    detections = vision.Detections(cast(Any, None))
    for confidence in (0.5, 0.5, 0.25, 0.25):
        detections.publish(HEADER, Prediction(SIZE, ()), Settings(confidence=confidence))
    assert told == [0.5, 0.25]


def test_ids_of_bodies_are_fit_for_topics() -> None:
    from kdc_ros.hri import body_id

    assert (body_id(17), body_id(65535)) == ("b00017", "b65535")


def test_a_skeleton_has_18_points_from_0_to_1(two: Prediction) -> None:
    from hri_msgs.msg import Skeleton2D

    from kdc_ros.hri import skeleton2d

    message = skeleton2d(HEADER, two.persons[0], COCO17, SIZE, 0.3)
    assert (message.header, len(message.skeleton)) == (HEADER, 18)
    for index, name in enumerate(COCO17.keypoints):
        point = message.skeleton[getattr(Skeleton2D, name.upper())]
        at = (point.x, point.y, point.c)
        assert at == pytest.approx(((index + 0.5) / 60, (2 * index + 0.5) / 40, 0.5)), name
    neck = message.skeleton[Skeleton2D.NECK]
    assert (neck.x, neck.y, neck.c) == pytest.approx((6 / 60, 11.5 / 40, 0.5))


def test_points_that_are_not_visible_are_zero_and_the_neck_needs_both_shoulders(
    two: Prediction,
) -> None:
    from hri_msgs.msg import Skeleton2D

    from kdc_ros.hri import skeleton2d

    left, right = COCO17.keypoints.index("left_shoulder"), COCO17.keypoints.index("right_shoulder")
    keypoints = two.persons[0].keypoints
    keypoints[left, 2] = 0.4

    def point(threshold: float, name: str) -> tuple[float, float, float]:
        message = skeleton2d(HEADER, two.persons[0], COCO17, SIZE, threshold)
        found = message.skeleton[getattr(Skeleton2D, name)]
        return found.x, found.y, found.c

    assert point(0.3, "NECK")[2] == pytest.approx(0.4)
    assert point(0.45, "LEFT_SHOULDER") == point(0.45, "NECK") == (0, 0, 0)
    assert point(0.45, "RIGHT_SHOULDER")[0] == pytest.approx((right + 0.5) / 60)


def test_places_outside_of_the_image_are_on_its_border(two: Prediction) -> None:
    from hri_msgs.msg import Skeleton2D

    from kdc_ros.hri import skeleton2d

    two.persons[0].keypoints[0, :2] = -100, 100
    nose = skeleton2d(HEADER, two.persons[0], COCO17, SIZE, 0.3).skeleton[Skeleton2D.NOSE]
    assert (nose.x, nose.y, nose.c) == (0, 1, 0.5)


def test_a_region_of_interest_is_the_box_from_0_to_1(two: Prediction) -> None:
    from kdc_ros.hri import region_of_interest

    whole = region_of_interest(HEADER, two.persons[1], SIZE)
    assert (whole.header, whole.xmin, whole.ymin, whole.xmax, whole.ymax, whole.c) == (
        HEADER,
        0,
        0,
        1,
        1,
        0.5,
    )
    part = region_of_interest(HEADER, two.persons[0], SIZE)
    corners = (part.xmin, part.ymin, part.xmax, part.ymax)
    assert corners == pytest.approx((10 / 60, 20 / 40, 16 / 60, 24 / 40))
