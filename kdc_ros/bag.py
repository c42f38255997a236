"""`kdc bag`: the people in the images of a bag, as a bag."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer import Argument, Option

from kdc_core.commands.options import Confidence, Device, Model, Rotate, Runtime, View
from kdc_core.commands.outputs import check_outputs
from kdc_core.errors import KdcError

if TYPE_CHECKING:
    from kdc_core.inference.predictor import Predictor
    from kdc_core.inference.rotate import Degrees


def bag(
    path: Annotated[
        Path, Argument(metavar="INPUT", help="Bag of ROS 2: a folder, or a file .mcap or .db3.")
    ],
    output: Annotated[
        Path, Option(help="Bag to write: a file where it ends in .mcap or .db3, else a folder.")
    ],
    image: Annotated[
        str | None,
        Option(metavar="TOPIC", help="Images to read; default: the only topic that has any."),
    ] = None,
    model: Model = "kdc_light",
    runtime: Runtime = "auto",
    device: Device = "auto",
    confidence: Confidence = None,
    rotate: Rotate = 0,
    view: View = False,
) -> None:
    """Find the people in the images of a bag, and write them to another bag.

    It has the topics /kdc/keypoints, /kdc/persons and /kdc/labels as the node publishes them, with
    the headers and the times of the images. Needs no ROS. Ctrl-C, SIGTERM or SIGHUP leaves no bag.
    """
    from kdc_ros.bag_files import DamagedBag, check_name
    from kdc_ros.bag_run import run_bag

    if os.path.lexists(output):
        raise KdcError(f"'{output}' is there already: choose another name, or delete it")
    check_outputs([output])
    if path.is_dir() and path.resolve() in output.resolve().parents:
        raise KdcError(f"'{output}' lies in the bag '{path}' that is read: choose another folder")
    check_name(output)

    def open_predictor() -> Predictor:
        from kdc_core.inference.predictor import Predictor

        predictor = Predictor.from_pretrained(
            model, runtime, device, confidence=confidence, one_size=True
        )
        predictor.rotate = cast("Degrees", rotate)  # the option takes no others
        return predictor

    try:
        whole = run_bag(path, output, image, open_predictor, view)
    except DamagedBag as error:  # a wrong name is refused by 2, this is work that failed
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"people in '{output}'")
    if not whole:
        raise typer.Exit(1)
