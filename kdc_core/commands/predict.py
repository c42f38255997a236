"""`kdc predict`: overlays and people of pictures, folders, videos and cameras."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from kdc_core.errors import KdcError


def predict(
    paths: Annotated[
        list[str], typer.Argument(help="Pictures, folders, videos or camera numbers.")
    ],
    model: Annotated[str, typer.Option(help="Shipped model or file.")] = "kdc_light",
    runtime: Annotated[str, typer.Option(help="auto, onnxruntime or torch.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    output: Annotated[Path, typer.Option(help="Folder of the overlays.")] = Path("kdc_output"),
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the people here.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Person threshold; default: the model's.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Stop each video or camera after so many.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Predict on a Ray cluster: local, auto, host:port or ray://host:port."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="With --ray: jsonl or parquet.")] = "jsonl",
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --ray: processes; default: one per CPU or GPU.")
    ] = None,
) -> None:
    """Find the people in pictures, folders, videos or cameras, and draw them.

    With --ray, the people of pictures go to the output folder in parts, and nothing is drawn.
    All machines need the same paths. With --device cuda each worker holds one GPU.
    """
    if ray is not None:
        if json_file is not None or frames is not None:
            raise KdcError("--json and --frames do not go with --ray, which writes to --output")
        job = {"format": form, "model": model, "runtime": runtime, "device": device}
        _predict_on_ray(paths, output, ray, workers, confidence=confidence, **job)
        return
    from kdc_core.data.sources import count_frames, list_sources, read_frames
    from kdc_core.files import write_json
    from kdc_core.inference.predictor import Predictor
    from kdc_core.show.overlays import OverlayWriter
    from kdc_core.show.people_json import person_json
    from kdc_core.show.progress import track

    sources = list_sources(paths)
    predictor = Predictor.from_pretrained(model, runtime, device, confidence=confidence)
    counts = [count_frames(source) for source in sources]
    total = None if None in counts else sum(min(c or 0, frames or c or 0) for c in counts)

    def images() -> Any:
        for source in sources:
            for number, frame in enumerate(read_frames(source)):
                if frames is not None and number >= frames:
                    break
                yield frame

    entries, failed, persons = [], 0, 0
    # Ctrl-C ends a camera: what was done so far is still written.
    with OverlayWriter(output, predictor) as writer, contextlib.suppress(KeyboardInterrupt):
        for frame in track(images(), total, "predict"):
            entry: dict[str, Any] = {"source": frame.source, "frame": frame.index}
            error, prediction = frame.error, None
            if frame.image is not None:
                try:
                    prediction = predictor(frame.image)
                except ValueError as wrong:
                    error = f"'{frame.source}': {wrong}"
            if prediction is None:
                failed += 1
                entry["error"] = error
                typer.echo(f"error: {error}", err=True)
            else:
                writer.write(frame, prediction)
                persons += len(prediction)
                entry["size"] = list(prediction.size)
                entry["persons"] = [person_json(p, prediction.size) for p in prediction.persons]
            entries.append(entry)
    if json_file is not None:
        content = {
            "model": predictor.runtime.manifest.config.name,
            "keypoints": list(predictor.skeleton.keypoints),
            "images": entries,
        }
        write_json(json_file, content)
    done = len(entries) - failed
    typer.echo(f"{done} images, {persons} persons, {failed} failed; overlays in '{output}'")
    if failed:
        raise typer.Exit(1)


def _predict_on_ray(
    paths: list[str], output: Path, address: str, workers: int | None, **settings: Any
) -> None:
    from kdc_core.batch import Job, predict_batch
    from kdc_core.data.sources import PICTURES, list_sources
    from kdc_core.show.progress import track

    sources = list_sources(paths)
    pictures = [str(Path(s).absolute()) for s in sources if Path(s).suffix.lower() in PICTURES]
    if not pictures:
        raise KdcError("nothing for --ray: expected pictures, got only videos or cameras")
    if len(pictures) < len(sources):
        typer.echo(f"left out: {len(sources) - len(pictures)} videos or cameras", err=True)
    if Path(settings["model"]).is_file():
        settings["model"] = str(Path(settings["model"]).absolute())
    done = predict_batch(
        pictures,
        Job(output.absolute(), **settings),
        address,
        workers,
        lambda rows, total: track(rows, total, "predict"),
    )
    typer.echo(
        f"{done.done} images, {done.persons} persons, {len(done.failed)} failed, "
        f"{done.before} done before; parts in '{output}'"
    )
    if done.failed:
        typer.echo(f"error: see '{output / 'failed.jsonl'}'; delete it to try again", err=True)
        raise typer.Exit(1)
