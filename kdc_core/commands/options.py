"""Options that several commands take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter, Option

AnnotationFile = Annotated[Path, Option(help="COCO annotations, .json or .json.gz.")]
ImageFolder = Annotated[Path, Option(help="Folder or tar of the images.")]
Category = Annotated[
    str | None,
    Option(
        metavar="ID_OR_NAME",
        help="Category of persons; default: the one named person, else the only one "
        "with keypoints, else the only one.",
    ),
]
Model = Annotated[str, Option(help="Shipped model or file.")]
Models = Annotated[list[str], Option("--model", help="Shipped model or file; may be repeated.")]
Runtime = Annotated[
    str,
    Option(
        help="auto, tensorrt, tensorrt-rtx, onnxruntime-cuda, onnxruntime-tensorrt, onnxruntime, "
        "openvino or torch."
    ),
]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")]
Confidence = Annotated[
    float | None, Option(min=0, max=1, help="Least score of a person; default: the model's.")
]
Json = Annotated[Path | None, Option("--json", help="Write the figures here.")]
View = Annotated[
    bool, Option("--view", help="Show the people in a browser, live, until Ctrl-C; needs rerun.")
]
Plot = Annotated[Path, Option(help="Plot to draw, .png or .svg.")]


def seconds(text: str) -> float:
    """A time such as 90m; refused while the options are read, before anything is opened."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise BadParameter(f"expected e.g. 90m, 2h or 45s, got '{text}'")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def choice(*values: str | int, help: str) -> Any:
    """An option that takes one of these values and refuses others."""

    def check(value: str | int) -> str | int:
        if value not in values:
            raise BadParameter(f"expected {' or '.join(map(str, values))}, got '{value}'")
        return value

    return Option(help=help, callback=check)


Rotate = Annotated[
    int,
    choice(
        0,
        90,
        180,
        270,
        help="Turn images clockwise by 90, 180 or 270 degrees before the network sees them; "
        "people are in pixels of the image as it is.",
    ),
]
