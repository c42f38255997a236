"""The topics of people in metres: when there are any, and how often they are subscribed to."""

from __future__ import annotations

import time

import pytest
from sensor_msgs.msg import CameraInfo, Image

from .depth_camera import BODY, MASK, DepthCamera, meet, outputs_of, table
from .local import Local, local_node
from .peer import MakePeer
from .scene import person_of, project

pytestmark = pytest.mark.ros


def test_a_subscriber_in_metres_alone_keeps_the_node_from_idling(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer
) -> None:
    with local_node(monkeypatch, spin=True, autostart=True, enable_3d=True) as (node, predictor):
        predictor.persons = (person_of(MASK, project(BODY)),)
        camera = DepthCamera(peer(node.get_namespace(), answers={}))
        _, cloud = camera.lifted()
        assert table(cloud).shape == (1, 17)


@pytest.mark.parametrize("overridden", ["depth", "camera_info"])
def test_an_overridden_subscription_is_made_once(
    domain: int, monkeypatch: pytest.MonkeyPatch, peer: MakePeer, overridden: str
) -> None:
    override = f"qos_overrides./elsewhere/{overridden}.subscription.depth"
    arguments = ["--ros-args", "-p", f"{override}:=9"]
    for topic in ("depth", "camera_info"):
        arguments += ["-r", f"{topic}:=/elsewhere/{topic}"]
    with local_node(monkeypatch, True, arguments, autostart=True, enable_3d=True) as (node, found):
        local = Local(node, found, peer(node.get_namespace()))
        camera = DepthCamera(local.peer)
        meet(local, local.peer)
        publishers = [
            camera.peer.node.create_publisher(kind, f"/elsewhere/{topic}", 1)
            for topic, kind in (("depth", Image), ("camera_info", CameraInfo))
        ]
        outputs = outputs_of(node)
        depth = outputs._input
        local.peer.wait(lambda: all(not why for why in depth._absent.values()), "publishers")
        before = dict(depth._subscriptions)
        looks: list[float] = []
        look = depth.follow_publishers

        def counted() -> None:
            look()
            looks.append(time.monotonic())

        monkeypatch.setattr(depth, "follow_publishers", counted)
        local.peer.wait(lambda: len(looks) >= 3, "three looks")
        assert depth._subscriptions == before
        for publisher in publishers:
            camera.peer.node.destroy_publisher(publisher)


def test_without_enable_3d_there_are_no_topics(local: Local) -> None:
    names = [name for name, _ in local.node.get_topic_names_and_types()]
    mine = [name for name in names if name.startswith(local.node.get_namespace())]
    assert mine and not [n for n in mine if n.endswith(("_3d", "markers", "depth", "camera_info"))]
    assert "lifted" not in local.peer.counters()
