"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option

Annotations = Annotated[Path, Option(help="COCO annotations, .json or .json.gz.")]
Images = Annotated[Path, Option(help="Folder or tar of the images.")]
Model = Annotated[str, Option(help="Shipped model or file.")]
Models = Annotated[list[str], Option("--model", help="Shipped model or file; may be repeated.")]
Weights = Annotated[str, Option(help="Shipped model or .safetensors file.")]
Runtime = Annotated[str, Option(help="auto, onnxruntime or torch.")]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")]
Confidence = Annotated[
    float | None, Option(min=0, max=1, help="Least score of a person; default: the model's.")
]
Json = Annotated[Path | None, Option("--json", help="Write the figures here.")]
Plot = Annotated[Path, Option(help="Plot to draw, .png or .svg.")]


def one_of(*values: str) -> Callable[[str], str]:
    """A callback for an option that takes one of these values and refuses others."""

    def check(value: str) -> str:
        if value not in values:
            raise BadParameter(f"expected {' or '.join(values)}, got '{value}'")
        return value

    return check
