"""config/kdc.rviz and config/foxglove.json name what the node has; neither program is here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rclpy.lifecycle import State, TransitionCallbackReturn

from kdc_ros.lifting import KEYPOINT_3D

from .local import local_node

pytestmark = pytest.mark.ros

CONFIG = Path(__file__).parents[2] / "config"
IMAGE, CLOUD = "sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2"
MARKERS, DIAGNOSTICS = "visualization_msgs/msg/MarkerArray", "diagnostic_msgs/msg/DiagnosticArray"
# Type of message that each display of RViz takes; "" = none.
DISPLAYS = {
    "rviz_default_plugins/Axes": "",
    "rviz_default_plugins/Image": IMAGE,
    "rviz_default_plugins/MarkerArray": MARKERS,
    "rviz_default_plugins/PointCloud2": CLOUD,
}
OTHER_CLASSES = {
    "",
    "rviz_common/Displays",
    "rviz_common/Views",
    "rviz_default_plugins/Interact",
    "rviz_default_plugins/MoveCamera",
    "rviz_default_plugins/Orbit",
    "rviz_default_plugins/Select",
    "rviz_default_plugins/TF",
}
QOS = {
    "Durability Policy": {"Volatile", "Transient Local"},
    "History Policy": {"Keep Last", "Keep All"},
    "Reliability Policy": {"Reliable", "Best Effort"},
}
TRANSFORMERS = {"AxisColor", "FlatColor", "Intensity", "RGB8"}


@pytest.fixture(scope="module")
def published(domain: int) -> Iterator[dict[str, str]]:
    """Types by topic of a node `/kdc` with all outputs."""
    with pytest.MonkeyPatch.context() as patch, local_node(patch, enable_3d=True) as (node, _):
        assert node.on_configure(State("unconfigured", 0)) == TransitionCallbackReturn.SUCCESS
        found = node.get_publisher_names_and_types_by_node(node.get_name(), node.get_namespace())
        yield {topic.removeprefix(node.get_namespace()): types[0] for topic, types in found}


def values(tree: Any, key: str) -> list[Any]:
    """All values of a key, at any depth."""
    if isinstance(tree, dict):
        below = [found for value in tree.values() for found in values(value, key)]
        return [tree[key], *below] if key in tree else below
    if isinstance(tree, list):
        return [found for value in tree for found in values(value, key)]
    return []


def test_rviz_shows_topics_of_the_node(published: dict[str, str]) -> None:
    content = yaml.safe_load((CONFIG / "kdc.rviz").read_text())
    manager = content["Visualization Manager"]
    assert set(values(content, "Class")) <= set(DISPLAYS) | OTHER_CLASSES
    topics = set()
    for display in manager["Displays"]:
        assert display["Enabled"] is display["Value"] is True and display["Name"]
        if kind := DISPLAYS[display["Class"]]:
            topic = display["Topic"]
            topics.add(topic["Value"])
            assert published[topic["Value"]] == kind
            assert all(topic[policy] in allowed for policy, allowed in QOS.items())
            assert topic["Durability Policy"] == "Volatile" and topic["Depth"] >= 1
    assert topics == {"/kdc/annotated", "/kdc/markers", "/kdc/keypoints_3d"}
    cloud = next(d for d in manager["Displays"] if d["Class"].endswith("PointCloud2"))
    assert cloud["Color Transformer"] in TRANSFORMERS and cloud["Position Transformer"] == "XYZ"
    assert cloud["Channel Name"] in (KEYPOINT_3D.names or ())
    assert manager["Global Options"]["Fixed Frame"].endswith("_optical_frame")
    # The camera of an optical frame is at the origin and looks along z, with y down.
    view = manager["Views"]["Current"]
    assert np.sin(view["Pitch"]) == pytest.approx(-1, abs=1e-3), "along z"
    assert np.sin(view["Yaw"]) == pytest.approx(-1, abs=1e-3), "y down"


def panels(layout: dict[str, Any] | str) -> list[str]:
    """The panels of a layout, each as often as it is shown."""
    if isinstance(layout, str):
        return [layout]
    assert layout["direction"] in ("row", "column") and 0 < layout["splitPercentage"] < 100
    return panels(layout["first"]) + panels(layout["second"])


def test_foxglove_shows_topics_of_the_node(published: dict[str, str]) -> None:
    content = json.loads((CONFIG / "foxglove.json").read_text())
    configs = content["configById"]
    assert set(content) == {
        "configById",
        "globalVariables",
        "layout",
        "playbackConfig",
        "userNodes",
    }
    assert sorted(panels(content["layout"])) == sorted(configs)
    kinds = {name.split("!")[0] for name in configs}
    assert kinds == {"3D", "DiagnosticStatusPanel", "Image", "RawMessages"}
    assert published[configs["Image!kdc"]["imageMode"]["imageTopic"]] == IMAGE
    assert published[configs["DiagnosticStatusPanel!kdc"]["topicToRender"]] == DIAGNOSTICS
    scene = configs["3D!kdc"]
    shown = {topic: published[topic] for topic in scene["topics"]}
    assert shown == {"/kdc/keypoints_3d": CLOUD, "/kdc/markers": MARKERS}
    assert scene["topics"]["/kdc/keypoints_3d"]["colorField"] in (KEYPOINT_3D.names or ())
    for name in ("RawMessages!people", "RawMessages!info"):
        topic, field = configs[name]["topicPath"].rsplit(".", 1)
        assert published[topic] == "std_msgs/msg/String" and field == "data"
