"""Every parameter of the node: name, type, default, range and meaning, declared once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, cast

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.manifest import PRECISIONS
from kdc_core.inference.rotate import ROTATIONS, Degrees
from kdc_core.inference.runtimes.choice import RUNTIMES
from kdc_ros.region import Region

TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a decimal number (1.0)",
    str: "a string",
}
# Parameters that rclpy itself declares.
FOREIGN = ("use_sim_time", "start_type_description_service", "qos_overrides.")


LONGEST = 100  # characters of a value that a message repeats


class BadParameter(ValueError):
    """A parameter given at start that cannot be used."""


def parameter(
    default: Any,
    text: str,
    limits: tuple[Any, Any] | None = None,
    choices: tuple[str, ...] | tuple[int, ...] = (),
    dynamic: bool = False,
    parse: Callable[[str], object] | None = None,
    least: float = 0.0,
) -> Any:
    """One row of the table.

    Args:
        default: also gives the type.
        text: meaning, shown by `ros2 param describe`.
        limits: lowest and highest value.
        choices: the values allowed; none = any.
        dynamic: may change while the node runs; else only before configure.
        parse: reads a string, and raises ValueError where that cannot be done.
        least: smallest value of a decimal number that is not 0.
    """
    row = {
        "text": text,
        "limits": limits,
        "choices": choices,
        "dynamic": dynamic,
        "parse": parse,
        "least": least,
    }
    return field(default=default, metadata=row)


@dataclass(frozen=True)
class Settings:
    """The table, and an immutable snapshot of its values, which the worker reads."""

    autostart: bool = parameter(True, "Configure and activate without a lifecycle manager.")
    image_transport: str = parameter(
        "raw",
        "Form of the input: raw on `image`, compressed (JPEG, PNG) on `image/compressed`.",
        choices=("raw", "compressed"),
    )
    reliability: str = parameter(
        "auto",
        "QoS of the input; auto follows the publisher.",
        choices=("auto", "reliable", "best_effort"),
    )
    model: str = parameter("", "Model's name or file (.onnx, .safetensors); empty = kdc_light.")
    runtime: str = parameter("auto", "What executes the model.", choices=("auto", *RUNTIMES))
    device: str = parameter("auto", "auto, cpu, cuda or cuda:N.")
    precision: str = parameter(
        "auto",
        "Of the network; auto tries fp16 on TensorRT and int8 in OpenVINO.",
        choices=("auto", *PRECISIONS),
    )
    input_size: str = parameter(
        "",
        "HEIGHTxWIDTH of the network's input; empty: as the first image needs it.",
    )
    engine_cache: str = parameter(
        "", "Folder of TensorRT's engines; empty: in the user's cache folder."
    )
    engine_policy: str = parameter(
        "build",
        "Build an engine that is missing, or run prebuilt ones only.",
        choices=("build", "prebuilt"),
    )
    threads: int = parameter(
        0, "CPU threads of the model; 0 = as many as there are cores, at most 4.", (0, 256)
    )
    pipeline: bool = parameter(False, "Hand the next image to the GPU while this one runs.")
    enable_3d: bool = parameter(
        False, "Subscribe to `depth` and `camera_info`, publish people in metres."
    )
    hri: bool = parameter(False, "Publish REP-155's topics, where hri_msgs is installed.")
    view: bool = parameter(False, "Serve a live view to a browser, where rerun is installed.")
    confidence: float = parameter(
        0.5,
        "Score from which a person is published; with tracking, who has an id from 0.9 of it.",
        (0.0, 1.0),
        dynamic=True,
    )
    keypoint_threshold: float = parameter(
        0.3, "Score from which a keypoint counts as visible.", (0.0, 1.0), dynamic=True
    )
    mask_threshold: float = parameter(
        0.5, "Mask probability from which a pixel belongs to a person.", (0.0, 1.0), dynamic=True
    )
    max_persons: int = parameter(32, "Most people published, the best.", (1, 32), dynamic=True)
    min_area: int = parameter(
        0, "People with fewer pixels are not published.", (0, 10_000_000), dynamic=True
    )
    tracking: bool = parameter(True, "People keep their ids over frames.", dynamic=True)
    track_timeout: float = parameter(
        1.0,
        "Seconds for which a lost person keeps its id; lost is who was not found for 0.75 s.",
        (0.0, 60.0),
        dynamic=True,
    )
    smoothing: bool = parameter(
        False, "Smooth each person's keypoints over frames; needs tracking.", dynamic=True
    )
    roi: str = parameter(
        "",
        "Process only this part of the image: X,Y,WIDTH,HEIGHT; empty = all of it.",
        dynamic=True,
        parse=Region.parse,
    )
    rotate: int = parameter(
        0,
        "Degrees to turn the image clockwise for the model; outputs are as the image came.",
        choices=ROTATIONS,
        dynamic=True,
    )
    sync_slop: float = parameter(
        0.02, "Seconds that the stamps of image and depth may differ by.", (0.0, 1.0), dynamic=True
    )
    depth_max: float = parameter(
        10.0, "Metres; what is farther counts as no depth.", (0.1, 100.0), dynamic=True
    )
    anonymize: str = parameter(
        "pixelate",
        "What hides people on `~/anonymized`.",
        choices=("pixelate", "fill"),
        dynamic=True,
    )
    jpeg_quality: int = parameter(80, "Of `~/annotated/compressed`.", (1, 100), dynamic=True)
    lazy: bool = parameter(
        True, "Images are not processed while nobody subscribes to any output.", dynamic=True
    )
    max_rate: float = parameter(
        0.0,
        "Frames per second processed at most; 0 = all.",
        (0.0, 1000.0),
        dynamic=True,
        least=0.001,
    )
    input_timeout: float = parameter(
        2.0,
        "Seconds without an image before a warning; 0 = never.",
        (0.0, 60.0),
        dynamic=True,
        least=0.05,
    )

    stall_timeout: float = parameter(
        5.0,
        "Seconds for which a frame may be in work before an error, or hold up a transition.",
        (1.0, 600.0),
        dynamic=True,
    )

    @property
    def region(self) -> Region | None:
        """`roi`, None = the whole image."""
        return Region.parse(self.roi)

    @property
    def rotation(self) -> Degrees:
        """`rotate`, which takes no other values."""
        return cast("Degrees", self.rotate)

    @property
    def thresholds(self) -> Thresholds:
        """Those of these values that the predictor applies."""
        return Thresholds(
            confidence=self.confidence,
            keypoint=self.keypoint_threshold,
            mask=self.mask_threshold,
            max_persons=self.max_persons,
        )


TABLE: dict[str, Field[Any]] = {row.name: row for row in fields(Settings)}


def declare(node: Node) -> Settings:
    """Declare every parameter on a node and read the values given at start.

    Names that are given but not declared are warned of: a misspelt one would do nothing.

    Raises:
        BadParameter: a value of the wrong type or out of range; the text says which.
    """
    for name, row in TABLE.items():
        try:
            node.declare_parameter(name, row.default, descriptor=_descriptor(row))
        except ParameterAlreadyDeclaredException:
            continue
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            given = getattr(node, "_parameter_overrides", {}).get(name)
            value = given.value if given is not None else error
            text = f"parameter {name}: {_expected(row)}, got {_shortened(value)}"
            raise BadParameter(text) from error
        check(name, node.get_parameter(name).value)
    for name in getattr(node, "_parameter_overrides", {}):
        if name not in TABLE and not name.startswith(FOREIGN):
            node.get_logger().warning(
                f"parameter '{name}' does not exist and does nothing; there are: "
                f"{', '.join(TABLE)}"
            )
    return Settings(**{name: node.get_parameter(name).value for name in TABLE})


def check(name: str, value: Any) -> None:
    """Raise BadParameter unless a declared parameter may have this value."""
    row = TABLE[name]
    choices, limits = row.metadata["choices"], row.metadata["limits"]
    good = type(value) is type(row.default)
    good = good and (not choices or value in choices)
    good = good and (limits is None or limits[0] <= value <= limits[1])
    good = good and (not row.metadata["least"] or value == 0 or value >= row.metadata["least"])
    if not good:
        raise BadParameter(f"parameter {name}: {_expected(row)}, got {_shortened(value)}")
    if row.metadata["parse"]:
        try:
            row.metadata["parse"](value)
        except ValueError as error:
            raise BadParameter(f"parameter {name}: {error}, got {_shortened(value)}") from error


def try_change(
    settings: Settings, changes: list[Parameter], configured: bool
) -> tuple[Settings, SetParametersResult]:
    """Check a request to change parameters and apply it to the snapshot.

    Args:
        settings: the values in force.
        changes: what is asked for.
        configured: the node is past configure; only dynamic parameters may change.

    Returns:
        The new snapshot (the old one where refused) and the answer to the request.
    """
    values = {name: getattr(settings, name) for name in TABLE}
    for change in changes:
        if change.name not in TABLE:
            continue
        if configured and not TABLE[change.name].metadata["dynamic"]:
            reason = f"'{change.name}' cannot be changed while configured: run cleanup first"
            return settings, SetParametersResult(successful=False, reason=reason)
        try:
            check(change.name, change.value)
        except BadParameter as error:
            return settings, SetParametersResult(successful=False, reason=str(error))
        values[change.name] = change.value
    return Settings(**values), SetParametersResult(successful=True)


def _shortened(value: Any) -> str:
    """A value from outside, as text of a bounded length."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _expected(row: Field[Any]) -> str:
    choices, limits = row.metadata["choices"], row.metadata["limits"]
    if choices:
        return f"expected one of {', '.join(map(str, choices))}"
    span = f" from {limits[0]} to {limits[1]}" if limits else ""
    if least := row.metadata["least"]:
        span = f", 0 or from {least} to {limits[1]}"
    return f"expected {TYPE_NAMES[type(row.default)]}{span}"


def _descriptor(row: Field[Any]) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=row.metadata["text"])
    if not row.metadata["dynamic"]:
        descriptor.additional_constraints = "changes need cleanup and configure"
    if row.metadata["choices"]:
        descriptor.additional_constraints += (
            f"; one of {', '.join(map(str, row.metadata['choices']))}"
        )
    if row.metadata["limits"]:
        low, high = row.metadata["limits"]
        if isinstance(row.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
            if least := row.metadata["least"]:
                descriptor.additional_constraints += f"; 0 or at least {least}"
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor
