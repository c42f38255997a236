"""`kdc bag`: the people in the images of a bag, as a bag."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer import Argument, Option

from kdc_core.commands.ending import say_stopped
from kdc_core.commands.options import Confidence, Device, Model, Rotate, Runtime
from kdc_core.commands.outputs import check_outputs
from kdc_core.errors import KdcError
from kdc_core.show.progress import track
from kdc_core.stopping import Stopped, stop_by_signal

if TYPE_CHECKING:
    from kdc_core.inference.predictor import Predictor
    from kdc_core.inference.rotate import Degrees
    from kdc_ros.bag_files import ImageBag, PeopleWriter

TRACK_TIMEOUT_S = 1.0  # the node's default


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
) -> None:
    """Find the people in the images of a bag, and write them to another bag.

    It has the topics /kdc/keypoints, /kdc/persons and /kdc/labels as the node publishes them, with
    the headers and the times of the images. Needs no ROS. Ctrl-C or SIGTERM leaves no bag.
    """
    from kdc_core.inference.predictor import Predictor
    from kdc_ros.bag_files import (
        ENDINGS,
        DamagedBag,
        PeopleWriter,
        check_name,
        new_bag,
        open_bag,
        storage_of,
    )

    if os.path.lexists(output):
        raise KdcError(f"'{output}' is there already: choose another name, or delete it")
    check_outputs([output])
    check_name(output)
    try:
        with open_bag(path) as images:
            topic = images.choose(image)
            predictor = Predictor.from_pretrained(model, runtime, device, confidence=confidence)
            predictor.rotate = cast("Degrees", rotate)  # the option takes no others
            storage = ENDINGS.get(output.suffix) or storage_of(path)
            with new_bag(output, storage) as writer:
                threshold = predictor.thresholds.keypoint
                people = PeopleWriter(writer, predictor.skeleton, threshold)
                whole = _find_people(images, topic, predictor, people)
    except DamagedBag as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"people in '{output}'")
    if not whole:
        raise typer.Exit(1)


def _find_people(images: ImageBag, topic: str, predictor: Predictor, people: PeopleWriter) -> bool:
    """Read, predict and write; whether no image failed and the bag could be read to its end.

    Raises:
        Stopped: by a signal.
        DamagedBag: not one image could be used.
    """
    from kdc_core.data.bits16 import To8Bits
    from kdc_core.inference.tracking import Tracker
    from kdc_ros.bag_files import DamagedBag, decode
    from kdc_ros.images import BadFrame

    follow, to_8_bits = Tracker(predictor.skeleton, TRACK_TIMEOUT_S), To8Bits()
    done = failed = persons = 0
    causes: set[str] = set()
    whole = True
    with stop_by_signal() as stop:
        try:
            for recorded in track(images.read(topic), images.topics[topic], "bag"):
                if stop.signal is not None:
                    break
                try:
                    header, pixels = decode(recorded, to_8_bits)
                except BadFrame as error:
                    failed += 1
                    if str(error) not in causes:  # each once: all images may fail alike
                        causes.add(str(error))
                        typer.echo(f"error: image {done + failed}: {error}", err=True)
                    continue
                stamp_s = header.stamp.sec + 1e-9 * header.stamp.nanosec
                found = follow(predictor(pixels), stamp_s or 1e-9 * recorded.log_ns)
                people.write(recorded.log_ns, header, found)
                done += 1
                persons += len(found)
        except DamagedBag as error:  # the people up to here are all that can be had
            whole = False
            typer.echo(f"error: {error}", err=True)
    if stop.signal is not None:
        say_stopped(stop.signal)
        raise Stopped(stop.signal)
    typer.echo(f"{done} images of '{topic}', {persons} persons, {failed} failed")
    if not done:
        raise DamagedBag("no image could be used: no bag is written")
    return whole and not failed
