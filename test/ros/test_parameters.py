"""The parameter table: declared, checked, changed, and written in config/kdc.yaml."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parameter_table
import pytest
import yaml
from rcl_interfaces.msg import ParameterDescriptor, ParameterType
from rclpy.parameter import Parameter

from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.tracking import tracking_thresholds
from kdc_ros import env
from kdc_ros.node import KdcNode
from kdc_ros.outputs import Outputs
from kdc_ros.parameters import TABLE, BadParameter, Settings, try_change

from .local import local_node, process_frame

pytestmark = pytest.mark.ros

# name: default, lowest and highest value, may change while the node runs
DOCUMENTED: dict[str, tuple[Any, tuple[Any, Any] | None, bool]] = {
    "autostart": (True, None, False),
    "image_transport": ("raw", None, False),
    "reliability": ("auto", None, False),
    "model": ("", None, False),
    "runtime": ("auto", None, False),
    "device": ("auto", None, False),
    "precision": ("auto", None, False),
    "input_size": ("", None, False),
    "engine_cache": ("", None, False),
    "engine_policy": ("build", None, False),
    "threads": (0, (0, 256), False),
    "pipeline": (False, None, False),
    "enable_3d": (False, None, False),
    "hri": (False, None, False),
    "view": (False, None, False),
    "confidence": (0.5, (0.0, 1.0), True),
    "keypoint_threshold": (0.3, (0.0, 1.0), True),
    "mask_threshold": (0.5, (0.0, 1.0), True),
    "max_persons": (32, (1, 32), True),
    "min_area": (0, (0, 10_000_000), True),
    "tracking": (True, None, True),
    "track_timeout": (1.0, (0.0, 60.0), True),
    "smoothing": (False, None, True),
    "roi": ("", None, True),
    "rotate": (0, None, True),
    "sync_slop": (0.02, (0.0, 1.0), True),
    "depth_max": (10.0, (0.1, 100.0), True),
    "anonymize": ("pixelate", None, True),
    "jpeg_quality": (80, (1, 100), True),
    "lazy": (True, None, True),
    "max_rate": (0.0, (0.0, 1000.0), True),
    "input_timeout": (2.0, (0.0, 60.0), True),
    "stall_timeout": (5.0, (1.0, 600.0), True),
}
FIXED = [name for name, (_, _, dynamic) in DOCUMENTED.items() if not dynamic]
TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
}
OUT_OF_RANGE = [
    ("confidence", 1.01),
    ("confidence", -0.1),
    ("confidence", float("nan")),
    ("keypoint_threshold", 2.0),
    ("mask_threshold", -1.0),
    ("max_persons", 0),
    ("max_persons", 33),
    ("max_rate", -1.0),
    ("max_rate", 1001.0),
    ("max_rate", 1e-9),
    ("input_timeout", 61.0),
    ("input_timeout", 1e-12),
    ("roi", "1,2,3"),
    ("roi", "0,0,0,10"),
    ("roi", "-1,0,10,10"),
    ("roi", "9" * 100_000),
    ("roi", "8000,0,193,10"),
    ("roi", "\u0660,\u0660,\u0663,\u0663"),
    ("rotate", 45),
    ("anonymize", "blur"),
]


@pytest.fixture
def node(domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[KdcNode]:
    with local_node(monkeypatch) as (node, _):
        yield node


def change(node: KdcNode, name: str, value: Any) -> Any:
    return node.set_parameters([Parameter(name, value=value)])[0]


def in_force(node: KdcNode, name: str) -> Any:
    return node.get_parameter(name).value


def descriptor(node: KdcNode, name: str) -> ParameterDescriptor:
    return node.describe_parameter(name)


def test_the_documented_parameters_and_no_others_are_declared(node: KdcNode) -> None:
    assert list(TABLE) == list(DOCUMENTED)
    own = {"use_sim_time", "start_type_description_service"}  # rclpy's
    assert set(node.get_parameters_by_prefix("")) - own == set(DOCUMENTED)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_each_has_its_default_type_range_and_description(node: KdcNode, name: str) -> None:
    default, limits, _ = DOCUMENTED[name]
    found = descriptor(node, name)
    if name != "autostart":  # off in these tests
        assert in_force(node, name) == default
    assert found.type == TYPES[type(default)]
    assert len(found.description) > 5
    assert not found.dynamic_typing
    ranges = [*found.floating_point_range, *found.integer_range]
    assert [(r.from_value, r.to_value) for r in ranges] == ([limits] if limits else [])


@pytest.mark.parametrize("name", ["image_transport", "reliability", "runtime"])
def test_choices_are_described(node: KdcNode, name: str) -> None:
    for choice in TABLE[name].metadata["choices"]:
        assert choice in descriptor(node, name).additional_constraints


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_out_of_range_is_refused_with_a_reason(node: KdcNode, name: str, value: float) -> None:
    before = in_force(node, name)
    result = change(node, name, value)
    assert not result.successful
    assert name in result.reason
    assert in_force(node, name) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confidence", 1),
        ("max_persons", 2.0),
        ("confidence", "high"),
        ("model", 3),
        ("confidence", None),
    ],
)
def test_a_wrong_type_is_refused_with_a_reason(node: KdcNode, name: str, value: Any) -> None:
    before = in_force(node, name)
    result = change(node, name, value)
    assert not result.successful
    assert result.reason
    assert in_force(node, name) == before


@pytest.mark.parametrize("name", ["image_transport", "reliability", "runtime"])
def test_a_value_that_is_no_choice_is_refused_and_the_choices_named(
    node: KdcNode, name: str
) -> None:
    result = change(node, name, "banana")
    assert not result.successful
    assert "expected one of " + ", ".join(TABLE[name].metadata["choices"]) in result.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confidence", 0.0),
        ("confidence", 1.0),
        ("max_persons", 1),
        ("max_persons", 32),
        ("model", "other.onnx"),
        ("reliability", "best_effort"),
        ("autostart", True),
    ],
)
def test_good_values_are_taken_before_configure(node: KdcNode, name: str, value: Any) -> None:
    assert change(node, name, value).successful
    assert in_force(node, name) == value


@pytest.mark.parametrize("name", FIXED)
def test_fixed_parameters_are_refused_while_configured(node: KdcNode, name: str) -> None:
    """Even with the value that they have: the same for any value is easier to explain."""
    before = in_force(node, name)
    other = {
        "autostart": True,
        "image_transport": "raw",
        "reliability": "reliable",
        "model": "other.onnx",
        "runtime": "torch",
        "device": "cpu",
        "precision": "fp32",
        "input_size": "448x576",
        "engine_cache": "engines",
        "engine_policy": "prebuilt",
        "threads": 2,
        "pipeline": True,
        "enable_3d": True,
        "hri": True,
        "view": True,
    }[name]
    node.trigger_configure()
    result = change(node, name, other)
    assert not result.successful
    assert name in result.reason and "run cleanup first" in result.reason
    assert in_force(node, name) == before


def test_fixed_parameters_may_change_again_after_cleanup(node: KdcNode) -> None:
    node.trigger_configure()
    node.trigger_cleanup()
    assert change(node, "model", "other.onnx").successful


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if name not in FIXED])
def test_dynamic_parameters_may_change_while_configured(node: KdcNode, name: str) -> None:
    node.trigger_configure()
    others = {"track_timeout": 2.5, "roi": "1,2,30,40", "rotate": 90, "anonymize": "fill"}
    default = DOCUMENTED[name][0]
    usual = {bool: not default, int: 7, float: 1.0}
    value = others.get(name, usual.get(type(default)))
    assert change(node, name, value).successful
    assert in_force(node, name) == value


@pytest.mark.parametrize("tracking", [False, True])
def test_thresholds_reach_the_predictor(
    tracking: bool, domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both those given at start and those changed later; a tracker wants fainter people, too."""
    given: dict[str, Any] = {"confidence": 0.125, "tracking": tracking, "lazy": False}
    with local_node(monkeypatch, **given) as (node, predictor):
        node.trigger_configure()
        changes = {"keypoint_threshold": 0.25, "mask_threshold": 0.75, "max_persons": 3}
        node.set_parameters([Parameter(name, value=value) for name, value in changes.items()])
        process_frame(node)
        wanted = Thresholds(0.125, 0.25, 0.75, 3)
        assert predictor.thresholds == (tracking_thresholds(wanted) if tracking else wanted)


def test_a_change_while_a_frame_is_in_work_counts_from_the_next(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predictor and all outputs of a frame use one threshold."""
    predicted, published = [], []

    def publish(self: Outputs, *arguments: Any) -> None:
        published.append(next(a for a in arguments if isinstance(a, Settings)).keypoint_threshold)

    monkeypatch.setattr(Outputs, "publish", publish)
    with local_node(monkeypatch, keypoint_threshold=0.25, lazy=False) as (node, predictor):

        def change_it() -> None:
            predicted.append(predictor.thresholds.keypoint)
            assert change(node, "keypoint_threshold", 0.75).successful
            predicted.append(predictor.thresholds.keypoint)

        node.trigger_configure()
        predictor.while_busy = change_it
        for _ in range(2):
            process_frame(node)
    assert predicted == [0.25, 0.25, 0.75, 0.75]
    assert published == [0.25, 0.75]


def test_of_several_changes_at_once_all_or_none_are_taken() -> None:
    before = Settings()
    changes: list[Parameter[Any]] = [
        Parameter("confidence", value=0.25),
        Parameter("max_persons", value=99),
    ]
    after, result = try_change(before, changes, configured=False)
    assert after == before
    assert not result.successful


def test_several_good_changes_at_once_are_all_taken() -> None:
    changes: list[Parameter[Any]] = [
        Parameter("confidence", value=0.25),
        Parameter("max_persons", value=9),
    ]
    after, result = try_change(Settings(), changes, configured=True)
    assert result.successful
    assert (after.confidence, after.max_persons) == (0.25, 9)


def test_parameters_of_rclpy_are_left_alone(node: KdcNode) -> None:
    assert change(node, "use_sim_time", True).successful


def test_a_bad_value_at_start_is_told_with_name_expectation_and_value(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = r"parameter max_persons: expected a whole number from 1 to 32, got 33"
    with pytest.raises(BadParameter, match=text):
        with local_node(monkeypatch, max_persons=33):
            pass


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "confidence:=1",
            "parameter confidence: expected a decimal number (1.0) from 0.0 to 1.0, got 1",
        ),
        (
            "confidence:=1.5",
            "parameter confidence: expected a decimal number (1.0) from 0.0 to 1.0, got 1.5",
        ),
        (
            "reliability:=maybe",
            "parameter reliability: expected one of auto, reliable, best_effort, got 'maybe'",
        ),
    ],
)
def test_the_process_ends_with_2_and_one_line(domain: int, argument: str, message: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "kdc_ros.main", "--ros-args", "-p", argument],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr.strip()) == (2, f"kdc_node: {message}")


def test_the_parameter_file_lists_the_table_with_its_defaults() -> None:
    with open(env.find_config("kdc.yaml"), encoding="utf-8") as file:
        content = yaml.safe_load(file)["/**"]["ros__parameters"]
    wanted = [(name, default, type(default)) for name, (default, _, _) in DOCUMENTED.items()]
    assert [(name, value, type(value)) for name, value in content.items()] == wanted


def test_the_document_lists_the_table() -> None:
    written = (Path(__file__).parents[2] / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert written == parameter_table.text(), (
        "python tools/parameter_table.py > docs/parameters.md"
    )
