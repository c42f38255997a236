"""`kdc evaluate`: average precision of keypoints and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kdc_core.codec.results import Prediction
    from kdc_core.config import Config
    from kdc_core.data.annotations import AnnotatedImage
    from kdc_core.data.images import Images


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
    subset: Annotated[
        str, typer.Option(help="all, or coco_persons: pictures with labelled persons.")
    ] = "all",
    flip: Annotated[
        bool, typer.Option("--flip", help="Average with the mirrored picture.")
    ] = False,
    scales: Annotated[
        str | None, typer.Option(help="Pool these longer sides, e.g. 640,448,320.")
    ] = None,
    given_keypoints: Annotated[
        bool, typer.Option("--given-keypoints", help="Masks for the annotated keypoints.")
    ] = False,
    results: Annotated[Path | None, typer.Option(help="Write COCO results here.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="AP by number, size and overlap of the persons.")
    ] = False,
    curve: Annotated[
        Path | None, typer.Option(help="Draw precision and recall over confidence (png, svg).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write index.html with the worst misses into this folder.")
    ] = None,
) -> None:
    """Predict every picture of a data set and score it with pycocotools.

    Pictures with a crowd index are scored by CrowdPose's protocol. --flip, --scales and
    --given-keypoints run by torch, on the CPU, and are named in the result.
    """
    from kdc_core.codec.skeleton import COCO17, SKELETONS
    from kdc_core.evaluation.run import evaluate as run
    from kdc_core.files import write_json
    from kdc_core.show.progress import track

    if subset not in ("all", "coco_persons"):
        raise typer.BadParameter(f"--subset: expected all or coco_persons, got '{subset}'")
    predict: Callable[[Images, AnnotatedImage], Prediction]
    if oracle:
        predict, config = _oracle(preset)
        name = f"oracle ({preset})"
    elif flip or scales or given_keypoints:
        sides = _sides(scales) if scales else None
        predict, config = _test_time(model, sides, flip, given_keypoints)
        parts = [
            f"at {scales}" if scales else "",
            "flip" if flip else "",
            "given keypoints" if given_keypoints else "",
        ]
        name = ", ".join([config.name, *filter(None, parts)])
    else:
        predict, config = _predictor(model, runtime, device)
        name = config.name

    def progress(items: Iterable[AnnotatedImage], total: int) -> Iterable[AnnotatedImage]:
        return track(items, total, "evaluate")

    skeleton = SKELETONS[config.fields.skeleton]
    if breakdown and skeleton != COCO17:
        raise typer.BadParameter(f"--breakdown: only for {COCO17.name}, not {skeleton.name}")
    evaluation = run(annotations, images, predict, progress, skeleton, subset)
    if results is not None:
        write_json(results, evaluation.results)
    summary: dict[str, Any] = {
        "model": name,
        "annotations": annotations.name,
        "subset": subset,
        "pictures": evaluation.pictures,
        "failed": len(evaluation.failed),
        **evaluation.figures,
    }
    groups: dict[str, dict[str, float]] = {}
    if breakdown or (report is not None and skeleton == COCO17):
        from kdc_core.evaluation.breakdown import breakdown as break_down

        groups = break_down(evaluation.annotations, evaluation.results)
    if breakdown:
        summary["breakdown"] = groups
    if curve is not None:
        from kdc_core.evaluation.calibration import calibrate, draw_curve

        calibrated = calibrate(evaluation.annotations, evaluation.results, skeleton)
        summary["at_default_confidence"] = calibrated.at(config.predict.confidence)
        draw_curve(calibrated, config.predict.confidence, f"{name} on {annotations.name}", curve)
    if json_file is not None:
        write_json(json_file, summary)
    data = annotations.name if subset == "all" else f"{annotations.name} ({subset})"
    _print(name, data, evaluation.pictures, evaluation.figures)
    if breakdown:
        _print_groups(groups)
    if curve is not None:
        figures = ", ".join(f"{k} {v:.3f}" for k, v in summary["at_default_confidence"].items())
        typer.echo(f"at the default: {figures}")
    if report is not None:
        from kdc_core.data.images import Images
        from kdc_core.evaluation.report import write_report

        write_report(
            report,
            evaluation.annotations,
            Images(images),
            evaluation.results,
            config.predict.confidence,
            evaluation.figures,
            groups,
            skeleton=skeleton,
        )
    for text in evaluation.failed:
        typer.echo(f"error: {text}", err=True)
    if evaluation.failed:
        raise typer.Exit(1)


def _oracle(preset: str) -> tuple[Callable[..., Prediction], Config]:
    from kdc_core.config import load_preset
    from kdc_core.evaluation.oracle import Oracle

    config = load_preset(preset)
    truth = Oracle(config)
    return lambda source, picture: truth(picture), config


def _test_time(
    model: str, scales: list[int] | None, flip: bool, given: bool
) -> tuple[Callable[..., Prediction], Config]:
    from kdc_core.evaluation.testtime import TestTime
    from kdc_core.inference.runtimes.choice import find_model

    run = TestTime(find_model(model, (".safetensors",)), scales, flip, given)
    return lambda source, picture: run(source.read(picture.file_name), picture), run.network.config


def _predictor(model: str, runtime: str, device: str) -> tuple[Callable[..., Prediction], Config]:
    from kdc_core.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(model, runtime, device, confidence=0.0, keypoint=0.0)
    config = predictor.runtime.manifest.config
    return lambda source, picture: predictor(source.read(picture.file_name)), config


def _sides(text: str) -> list[int]:
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if not sides or not all(64 <= side <= 4096 for side in sides):
        raise typer.BadParameter(
            f"--scales: expected sides of 64 to 4096 px, e.g. 640,448,320, got '{text}'"
        )
    return sides


def _print(name: str, data: str, pictures: int, figures: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    from kdc_core.evaluation.paper import cells, masks_of

    table = Table(title=f"{name} on {data}, {pictures} pictures")
    table.add_column("")
    for column in ("AP", "AP50", "AP75", "medium", "large", "AR"):
        table.add_column(column, justify="right")
    for row in ("keypoint_ap", "mask_ap_keypoint_persons", "mask_ap_full"):
        if row in figures:
            table.add_row(row, *cells(masks_of("", figures, row)))
    for level in ("easy", "medium", "hard"):
        if "keypoint_ap_crowd_easy" in figures:
            table.add_row(
                f"keypoint_ap_crowd_{level}", f"{figures[f'keypoint_ap_crowd_{level}']:.3f}"
            )
    Console().print(table)


def _print_groups(groups: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = list(dict.fromkeys(column for entry in groups.values() for column in entry))
    table = Table(title="by number, size and overlap of the persons")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right", min_width=7)
    for name, entry in groups.items():
        cells = (entry.get(column, "") for column in columns)
        table.add_row(name, *(f"{v:.3f}" if isinstance(v, float) else f"{v}" for v in cells))
    Console().print(table)
