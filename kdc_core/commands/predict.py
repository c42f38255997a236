"""`kdc predict`: overlays and people of images, folders, videos and cameras."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer import Argument, Option

from kdc_core.commands.options import Confidence, Device, Model, Rotate, Runtime, View
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import say
from kdc_core.commands.viewing import viewing
from kdc_core.errors import KdcError
from kdc_core.show.progress import track
from kdc_core.stopping import end_stopped, stop_by_signal

if TYPE_CHECKING:
    from kdc_core.batch import Job
    from kdc_core.codec.results import Prediction
    from kdc_core.data.sources import Frame
    from kdc_core.inference.predictor import Predictor
    from kdc_core.inference.rotate import Degrees


def predict(
    paths: Annotated[list[str], Argument(help="Images, folders, videos or camera numbers.")],
    model: Model = "kdc_light",
    runtime: Runtime = "auto",
    device: Device = "auto",
    output: Annotated[
        Path, Option(help="Folder of the overlays; with --ray, of the parts.")
    ] = Path("kdc_output"),
    json_file: Annotated[Path | None, Option("--json", help="Write the people here.")] = None,
    confidence: Confidence = None,
    rotate: Rotate = 0,
    frames: Annotated[
        int | None, Option(min=1, max=10**9, help="Stop each video or camera after so many.")
    ] = None,
    ids: Annotated[
        bool, Option("--track", help="People of videos, animations and cameras keep an id.")
    ] = False,
    view: View = False,
    ray: Annotated[
        str | None,
        Option(help="Predict on a Ray cluster: local, auto, host:port or ray://host:port."),
    ] = None,
    form: Annotated[str, Option("--format", help="With --ray: jsonl or parquet.")] = "jsonl",
    workers: Annotated[
        int | None, Option(min=1, help="With --ray: processes; default: one per CPU or GPU.")
    ] = None,
) -> None:
    """Find the people in images, folders, videos or cameras, and draw them.

    Ctrl-C, SIGTERM or SIGHUP ends it after a frame, and what was done so far is whole.

    With --ray, the people of images go to the output folder in parts, and nothing is drawn. All
    machines need the same paths. Workers use the CPU; with --device cuda each holds one GPU.
    """
    from kdc_core.data.sources import is_image, list_sources

    if ray is not None and (json_file is not None or frames is not None):
        raise KdcError("--json and --frames do not go with --ray, which writes to --output")
    if ray is not None and view:
        raise KdcError("--view does not go with --ray, which draws nothing")
    if ray is not None and ids:
        raise KdcError("--track does not go with --ray, which predicts images alone")
    if ray is None and (workers is not None or form != "jsonl"):
        raise KdcError("--workers and --format go with --ray, which writes parts: give both")
    sources = list_sources(paths)
    check_outputs([json_file], folders=[output], inputs=[*_files_and_folders(sources), model])
    if ray is not None:
        from kdc_core.batch import Job

        if Path(model).is_file():
            model = str(Path(model).absolute())
        job = Job(output.absolute(), form, model, runtime, device, confidence, _degrees(rotate))
        _predict_on_ray(sources, output, job, ray, workers)
        return
    from kdc_core.inference.predictor import Predictor

    one_size = len(sources) == 1 and not is_image(sources[0])
    predictor = Predictor.from_pretrained(
        model, runtime, device, confidence=confidence, one_size=one_size
    )
    predictor.rotate = _degrees(rotate)
    _predict_here(sources, frames, predictor, ids, output, json_file, view)


def _degrees(rotate: int) -> Degrees:
    return cast("Degrees", rotate)  # the option takes no others


def _files_and_folders(sources: list[str]) -> set[str]:
    """What holds the sources: an overlay in a folder of images may have the name of one."""
    files = {source for source in sources if not source.isdecimal()}
    real = {os.path.realpath(source) for source in files if os.path.islink(source)}
    return files | {os.path.dirname(source) or "." for source in files | real}


def _predict_here(
    sources: list[str],
    frames: int | None,
    predictor: Predictor,
    ids: bool,
    output: Path,
    json_file: Path | None,
    view: bool,
) -> None:
    from kdc_core.data.sources import count_frames, is_image, read_frames
    from kdc_core.inference.tracking import TIMEOUT_S, Tracker, follow
    from kdc_core.show.overlays import OverlayWriter
    from kdc_core.show.people_json import PeopleFile, people_or_error

    said = [count_frames(source) for source in sources]
    total = None if None in said else sum(min(n or 0, frames or n or 0) for n in said)
    done = failed = persons = stills = 0
    live = False
    tracker = Tracker(predictor.skeleton, TIMEOUT_S)

    def images() -> Iterator[Frame]:
        for source in sources:
            tracker.reset()
            yield from islice(read_frames(source), None if is_image(source) else frames)

    def find(frame: Frame) -> Prediction | str:
        nonlocal stills
        stills += frame.time is None and frame.image is not None
        if ids and frame.time is not None:
            return people_or_error(partial(follow, predictor, tracker, frame.time), frame)
        return people_or_error(predictor, frame)

    def fail(reason: str) -> None:
        nonlocal failed
        failed += 1
        say(f"error: {reason}")

    # A camera may run for days: nothing of a frame is kept.
    with (
        stop_by_signal() as stop,
        viewing(view, predictor.skeleton, stop, fail) as shown,
    ):
        with (
            PeopleFile(json_file, predictor) as people,
            OverlayWriter(output, predictor, fail) as overlays,
        ):
            try:
                for frame in track(images(), total, "predict"):
                    live = frame.source.isdecimal()
                    if stop.signal is not None:
                        break
                    found = find(frame)
                    people.write(frame, found)
                    if isinstance(found, str):
                        fail(found)
                        continue
                    done += 1
                    persons += len(found)
                    overlays.write(frame, found)
                    if shown is not None and frame.image is not None:
                        threshold = predictor.thresholds.keypoint
                        shown.show(frame.image, found, threshold, found.timings_ms, frame.time)
            except KdcError as error:  # a full disk, a GPU that died: what was done is kept
                fail(str(error))
        stopped = stop.signal
        if ids and stills:
            say(f"--track: {stills} still images, whose people have no ids")
        counts = f"{done} images, {persons} persons, {failed} failed"
        try:
            typer.echo(f"{counts}; overlays in '{output}'\nby {predictor.about}")
        except OSError:
            if stopped is None:  # else the terminal was closed
                raise
    if stopped is not None and not (live and stopped == signal.SIGINT):
        end_stopped(stopped)
    if failed:
        raise typer.Exit(1)


def _predict_on_ray(
    sources: list[str], output: Path, job: Job, address: str, workers: int | None
) -> None:
    from kdc_core.batch import predict_batch
    from kdc_core.data.sources import is_image

    images = [str(Path(source).absolute()) for source in sources if is_image(source)]
    if not images:
        raise KdcError("nothing for --ray: expected images, got only videos or cameras")
    if len(images) < len(sources):
        say(f"left out: {len(sources) - len(images)} videos or cameras")
    done = predict_batch(images, job, address, workers, partial(track, label="predict"))
    typer.echo(
        f"{done.done} images, {done.persons} persons, {len(done.failed)} failed, "
        f"{done.before} done before; parts in '{output}'"
    )
    if done.failed:
        say(f"error: see '{output / 'failed.jsonl'}'; delete it to try again")
        raise typer.Exit(1)
