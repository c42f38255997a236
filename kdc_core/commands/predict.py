"""`kdc predict`: overlays and people of pictures, folders, videos and cameras."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer


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
) -> None:
    """Find the people in pictures, folders, videos or cameras, and draw them."""
    from kdc_core.commands.progress import track
    from kdc_core.files import write_json
    from kdc_core.overlays import OverlayWriter
    from kdc_core.people_json import person_json
    from kdc_core.predictor import Predictor
    from kdc_core.sources import count_frames, list_sources, read_frames

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
            if frame.image is None:
                failed += 1
                entry["error"] = frame.error
                typer.echo(f"error: {frame.error}", err=True)
            else:
                prediction = predictor(frame.image)
                writer.write(frame, prediction)
                persons += len(prediction)
                entry["size"] = list(prediction.size)
                entry["persons"] = [person_json(p, prediction.size) for p in prediction.persons]
            entries.append(entry)
    if json_file is not None:
        content = {"model": predictor.runtime.manifest.config.name,
                   "keypoints": list(predictor.skeleton.keypoints), "images": entries}  # fmt: skip
        write_json(json_file, content)
    done = len(entries) - failed
    typer.echo(f"{done} images, {persons} persons, {failed} failed; overlays in '{output}'")
    if failed:
        raise typer.Exit(1)
