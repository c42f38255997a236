"""From the images of a bag to a bag of the people in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kdc_core.commands.printing import say
from kdc_core.commands.viewing import viewing
from kdc_core.data.bits16 import To8Bits
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.tracking import TIMEOUT_S, Tracker, follow
from kdc_core.show.progress import track
from kdc_core.stopping import Stop, end_stopped, stop_by_signal
from kdc_ros.bag_files import (
    ENDINGS,
    DamagedBag,
    ImageBag,
    PeopleWriter,
    decode,
    new_bag,
    open_bag,
    storage_of,
)
from kdc_ros.images import BadFrame
from kdc_ros.stamps import stamp_s

if TYPE_CHECKING:
    from kdc_core.show.view import View


def run_bag(
    path: Path,
    output: Path,
    topic: str | None,
    open_predictor: Callable[[], Predictor],
    view: bool,
) -> bool:
    """Write the people of a bag's images; what is wrong with images goes to stderr.

    Args:
        path: the bag.
        output: the new one; there is nothing of this name yet.
        topic: of the images; None = the only one.
        open_predictor: called once the images are found.
        view: show the people in a browser, too, which stays until a signal comes.

    Returns:
        Whether no image failed and the bag could be read to its end.

    Raises:
        KdcError: there is no such bag or topic, or the new one cannot be written.
        DamagedBag: no image could be used. No bag is written, as with all that is raised.
        Stopped: by a signal.
    """
    with open_bag(path) as images:
        topic = images.choose(topic)
        predictor = open_predictor()
        storage = ENDINGS.get(output.suffix) or storage_of(path)
        with (
            stop_by_signal() as stop,
            viewing(view, predictor.skeleton, stop, _say) as shown,
            new_bag(output, storage) as writer,
        ):
            people = PeopleWriter(writer, predictor.skeleton, predictor.thresholds.keypoint)
            return _find_people(images, topic, predictor, people, stop, shown)


def _say(error: str) -> None:
    say(f"error: {error}")


def _find_people(
    images: ImageBag,
    topic: str,
    predictor: Predictor,
    people: PeopleWriter,
    stop: Stop,
    shown: View | None,
) -> bool:
    tracker, to_8_bits = Tracker(predictor.skeleton, TIMEOUT_S), To8Bits()
    done = failed = persons = 0
    causes: set[str] = set()
    try:
        for recorded in track(images.read(topic), images.topics[topic], "bag"):
            if stop.signal is not None:
                break
            try:
                header, pixels = decode(recorded, to_8_bits)
            except BadFrame as error:
                failed += 1
                # Each once, but for its numbers: all images may fail alike.
                cause = re.sub(r"\d+", "", str(error))
                if cause not in causes:
                    causes.add(cause)
                    _say(f"image {done + failed}: {error}")
                continue
            time_s = stamp_s(header) or 1e-9 * recorded.log_ns
            found = follow(predictor, tracker, time_s, pixels)
            people.write(recorded.log_ns, header, found)
            if shown is not None:
                threshold = predictor.thresholds.keypoint
                shown.show(pixels, found, threshold, found.timings_ms, time_s)
            done += 1
            persons += len(found)
    except DamagedBag as error:  # the people up to here are all that can be had
        _say(str(error))
    if stop.signal is not None:
        end_stopped(stop.signal)
    read, count = done + failed, images.topics[topic]
    if read < count:
        _say(f"{read} of {count} images could be read")
    typer.echo(f"{done} images of {topic!r}, {persons} persons, {failed} failed")
    typer.echo(f"by {predictor.about}")
    if not done:
        raise DamagedBag("no image could be used: no bag is written")
    return not failed and read >= count
