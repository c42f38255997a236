"""`kdc evaluate`: average precision of keypoints and masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdc_core.data.coco import AnnotatedPicture
    from kdc_core.data.pictures import Pictures
    from kdc_core.results import Prediction


def evaluate(
    annotations: Annotated[Path, typer.Option(help="COCO annotations, .json or .json.gz.")],
    images: Annotated[Path, typer.Option(help="Folder or tar of the pictures.")],
    model: Annotated[str, typer.Option(help="Shipped model or file.")] = "kdc_light",
    runtime: Annotated[str, typer.Option(help="auto, onnxruntime or torch.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Decode the encoded annotations; needs torch.")
    ] = False,
    preset: Annotated[str, typer.Option(help="Settings of --oracle.")] = "oracle",
    results: Annotated[Path | None, typer.Option(help="Write COCO results here.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
) -> None:
    """Predict every picture of a data set and score it with pycocotools."""
    from kdc_core.commands.progress import track
    from kdc_core.evaluation.run import evaluate as run
    from kdc_core.files import write_json

    def progress(items: Iterable[AnnotatedPicture], total: int) -> Iterable[AnnotatedPicture]:
        return track(items, total, "evaluate")

    if oracle:
        from kdc_core.config import load_preset
        from kdc_core.evaluation.oracle import Oracle

        truth = Oracle(load_preset(preset))
        name = f"oracle ({preset})"

        def predict(source: Pictures, picture: AnnotatedPicture) -> Prediction:
            return truth(picture)
    else:
        from kdc_core.predictor import Predictor

        predictor = Predictor.from_pretrained(model, runtime, device, confidence=0.0, keypoint=0.0)
        name = predictor.runtime.manifest.config.name

        def predict(source: Pictures, picture: AnnotatedPicture) -> Prediction:
            return predictor(source.read(picture.file_name))

    evaluation = run(annotations, images, predict, progress)
    if results is not None:
        write_json(results, evaluation.results)
    summary = {"model": name, "annotations": annotations.name, "pictures": evaluation.pictures,
               "failed": len(evaluation.failed), **evaluation.figures}  # fmt: skip
    if json_file is not None:
        write_json(json_file, summary)
    _print(name, annotations.name, evaluation.pictures, evaluation.figures)
    for text in evaluation.failed:
        typer.echo(f"error: {text}", err=True)
    if evaluation.failed:
        raise typer.Exit(1)


def _print(name: str, data: str, pictures: int, figures: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{name} on {data}, {pictures} pictures")
    table.add_column("")
    for column in ("AP", "AP50", "AP75", "medium", "large"):
        table.add_column(column, justify="right")
    for row in ("keypoint_ap", "mask_ap_keypoint_persons", "mask_ap_full"):
        if row in figures:
            cells = (figures[row + s] for s in ("", "50", "75", "_medium", "_large"))
            table.add_row(row, *(f"{value:.3f}" for value in cells))
    Console().print(table)
