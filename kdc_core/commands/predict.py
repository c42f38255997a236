"""`kdc predict`: overlays and people of images, folders, videos and cameras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from kdc_core.commands.options import Confidence, Device, Model, Runtime
from kdc_core.errors import KdcError
from kdc_core.show.progress import track

if TYPE_CHECKING:
    from kdc_core.batch import Job
    from kdc_core.data.sources import Frame


def predict(
    paths: Annotated[list[str], Argument(help="Images, folders, videos or camera numbers.")],
    model: Model = "kdc_light",
    runtime: Runtime = "auto",
    device: Device = "auto",
    output: Annotated[Path, Option(help="Folder of the overlays.")] = Path("kdc_output"),
    json_file: Annotated[Path | None, Option("--json", help="Write the people here.")] = None,
    confidence: Confidence = None,
    frames: Annotated[
        int | None, Option(min=1, help="Stop each video or camera after so many.")
    ] = None,
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

    With --ray, the people of images go to the output folder in parts, and nothing is drawn.
    All machines need the same paths. With --device cuda each worker holds one GPU.
    """
    from kdc_core.data.sources import count_frames, list_sources, read_frames
    from kdc_core.inference.predictor import Predictor
    from kdc_core.show.overlays import OverlayWriter
    from kdc_core.show.people_json import people_file, people_or_error

    if ray is not None:
        if json_file is not None or frames is not None:
            raise KdcError("--json and --frames do not go with --ray, which writes to --output")
        from kdc_core.batch import Job

        if Path(model).is_file():
            model = str(Path(model).absolute())
        job = Job(output.absolute(), form, model, runtime, device, confidence)
        _predict_on_ray(paths, output, job, ray, workers)
        return
    sources = list_sources(paths)
    predictor = Predictor.from_pretrained(model, runtime, device, confidence=confidence)
    counts = [count_frames(source) for source in sources]
    total = None if None in counts else sum(min(c or 0, frames or c or 0) for c in counts)

    def images() -> Iterator[Frame]:
        for source in sources:
            yield from islice(read_frames(source), frames)

    # A camera may run for days: nothing of a frame is kept. Ctrl-C ends it, and what was done so
    # far is whole.
    done = failed = persons = 0
    with (
        OverlayWriter(output, predictor) as overlays,
        people_file(json_file, predictor) as write,
        suppress(KeyboardInterrupt),
    ):
        for frame in track(images(), total, "predict"):
            found = people_or_error(predictor, frame)
            if isinstance(found, str):
                failed += 1
                typer.echo(f"error: {found}", err=True)
            else:
                overlays.write(frame, found)
                done += 1
                persons += len(found)
            write(frame, found)
    typer.echo(f"{done} images, {persons} persons, {failed} failed; overlays in '{output}'")
    if failed:
        raise typer.Exit(1)


def _predict_on_ray(
    paths: list[str], output: Path, job: Job, address: str, workers: int | None
) -> None:
    from kdc_core.batch import predict_batch
    from kdc_core.data.sources import IMAGES, list_sources

    sources = list_sources(paths)
    images = [str(Path(s).absolute()) for s in sources if Path(s).suffix.lower() in IMAGES]
    if not images:
        raise KdcError("nothing for --ray: expected images, got only videos or cameras")
    if len(images) < len(sources):
        typer.echo(f"left out: {len(sources) - len(images)} videos or cameras", err=True)
    done = predict_batch(images, job, address, workers, partial(track, label="predict"))
    typer.echo(
        f"{done.done} images, {done.persons} persons, {len(done.failed)} failed, "
        f"{done.before} done before; parts in '{output}'"
    )
    if done.failed:
        typer.echo(f"error: see '{output / 'failed.jsonl'}'; delete it to try again", err=True)
        raise typer.Exit(1)
