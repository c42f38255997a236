"""`kdc paper`: the paper's tables and figures, ours beside the published numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from kdc_core.errors import KdcError

if TYPE_CHECKING:
    from kdc_core.data.annotations import AnnotatedImage
    from kdc_core.evaluation.paper import Published
    from kdc_core.evaluation.run import Evaluation

app = typer.Typer(no_args_is_help=True)
Models = Annotated[
    list[str], typer.Option("--model", help="Shipped model or file; may be given again.")
]
Annotations = Annotated[Path, typer.Option(help="COCO annotations, .json or .json.gz.")]
Images = Annotated[Path, typer.Option(help="Folder or tar of the pictures.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write our figures here.")]
COCO_PERSONS = "COCOPersons: pictures and persons with keypoints"
FULL = "full set: all persons"


@app.command("table1")
def table1(
    model: Models, annotations: Annotations, images: Images, json_file: Json = None
) -> None:
    """Masks on COCO val: COCOPersons, and the full set apart."""
    from kdc_core.evaluation.paper import TABLE_1, masks_of
    from kdc_core.evaluation.run import score_coco_persons

    rows, figures = [], {}
    for name in model:
        done = evaluate(name, annotations, images, "all")
        subset, full = score_coco_persons(annotations, done), done.figures
        rows.append(masks_of(f"ours: {name}, {COCO_PERSONS}", subset, "mask_ap_keypoint_persons"))
        rows.append(masks_of(f"ours: {name}, {FULL}", full, "mask_ap_full"))
        figures[name] = {"coco_persons": subset, "all": full}
    show(f"Table I, COCO val; ours on {annotations.name}", TABLE_1, rows)
    save(json_file, figures)


@app.command("table2")
def table2(
    model: Annotated[str, typer.Option(help="Shipped model or file.")],
    annotations: Annotated[Path, typer.Option(help="image_info_test-dev2017.json.")],
    images: Images,
    output: Annotated[Path, typer.Option(help="Folder for the submission files.")],
) -> None:
    """Masks on COCO test-dev: the files to hand in, for its annotations are not public."""
    from kdc_core.data.annotations import AnnotatedImage, read_json
    from kdc_core.data.images import Images
    from kdc_core.evaluation.paper import TABLE_2
    from kdc_core.evaluation.run import predict_all
    from kdc_core.files import write_json

    content = read_json(annotations)
    try:
        pictures = [
            AnnotatedImage(i["id"], i["file_name"], (i["height"], i["width"]), (), False)
            for i in content["images"]
        ]
    except (KeyError, TypeError) as error:
        raise KdcError(
            f"'{annotations}' lists no images with id, file_name, height and width: expected "
            "image_info_test-dev2017.json of COCO 2017"
        ) from error
    results, failed = predict_all(pictures, Images(images), predictor(model), progress(model))
    output.mkdir(parents=True, exist_ok=True)
    for kind, key in (("person_keypoints", "keypoints"), ("detections", "segmentation")):
        path = output / f"{kind}_test-dev2017_{Path(model).stem}_results.json"
        entries = [{k: r[k] for k in ("image_id", "category_id", "score", key)} for r in results]
        write_json(path, entries)
        typer.echo(f"wrote '{path}', {len(entries)} people of {len(pictures)} pictures")
    show("Table II, COCO test-dev", TABLE_2, [])
    complain(failed)


@app.command("table3")
def table3(
    model: Models,
    annotations: Annotations,
    images: Images,
    split: Annotated[str, typer.Option(help="val or test.")] = "val",
    json_file: Json = None,
) -> None:
    """Masks on OCHuman: end to end, and with ground-truth keypoints as Pose2Seg is fed."""
    from kdc_core.evaluation.paper import TABLE_3, masks_of

    if split not in TABLE_3:
        raise typer.BadParameter(f"--split: expected val or test, got '{split}'")
    rows, figures = [], {}
    for name in model:
        found = evaluate(name, annotations, images, "all").figures
        given = evaluate(name, annotations, images, "all", given=True).figures
        rows.append(masks_of(f"ours: {name}, end to end", found, "mask_ap_full"))
        rows.append(masks_of(f"ours: {name}, keypoints given", given, "mask_ap_full"))
        figures[name] = {"end_to_end": found, "given_keypoints": given}
    show(f"Table III, OCHuman {split}; ours on {annotations.name}", TABLE_3[split], rows)
    save(json_file, figures)


@app.command("table4")
def table4(
    model: Models, annotations: Annotations, images: Images, json_file: Json = None
) -> None:
    """Static against dynamic centroids on COCO val."""
    from kdc_core.evaluation.ablate import ablate
    from kdc_core.evaluation.paper import TABLE_4, masks_of
    from kdc_core.inference.runtimes.choice import find_model

    names = {
        "static": "SM_c",
        "dynamic": "DM_c",
        "dynamic_multi": "DM_c, the K' best",
        "personlab": "all visible keypoints",
    }
    rows, figures = [], {}
    for name in model:
        path = find_model(name, (".safetensors",))
        found, failed = ablate("centroids", annotations, images, path, progress(name))
        for row in found:
            text = f"ours: {name}, {names[row.label]}"
            rows.append(masks_of(text, row.figures, "mask_ap_keypoint_persons"))
        figures[name] = {row.label: row.figures for row in found}
        complain(failed)
    show(f"Table IV, COCO val; ours on {annotations.name}, persons with keypoints", TABLE_4, rows)
    save(json_file, figures)


@app.command("figure4")
def figure4(
    model: Models,
    annotations: Annotations,
    images: Images,
    output: Annotated[Path, typer.Option(help="Picture to draw, .png or .svg.")],
    json_file: Json = None,
) -> None:
    """Time for a picture over mask AP; the paper prints no numbers here, so ours alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from kdc_core.evaluation.run import evaluate as run
    from kdc_core.files import whole_file

    figures = {}
    for name in model:
        predict, seconds = predictor(name), []

        def timed(source: Any, picture: Any) -> Any:
            begun = time.perf_counter()
            found = predict(source, picture)  # noqa: B023
            seconds.append(time.perf_counter() - begun)  # noqa: B023
            return found

        done = run(annotations, images, timed, progress(name), subset="coco_persons")
        complain(done.failed)
        figures[name] = {
            "mask_ap": done.figures.get("mask_ap_keypoint_persons", -1.0),
            "ms": 1e3 * float(np.median(seconds)),
        }
    chart, axes = pyplot.subplots(figsize=(5, 3.6), layout="constrained")
    for name, point in figures.items():
        axes.scatter(point["mask_ap"], point["ms"])
        axes.annotate(
            Path(name).stem,
            (point["mask_ap"], point["ms"]),
            ha="center",
            textcoords="offset points",
            xytext=(0, 6),
            fontsize=8,
        )
    axes.set_xlabel(f"mask AP ({COCO_PERSONS})", fontsize=8)
    axes.set_ylabel("ms a picture (median, reading it included)", fontsize=8)
    # Both axes from zero, so that small differences look small.
    axes.set_xlim(0, 1.25 * max(0.1, *(point["mask_ap"] for point in figures.values())))
    axes.set_ylim(0, 1.25 * max(point["ms"] for point in figures.values()))
    axes.grid(alpha=0.3)
    with whole_file(output) as part:
        chart.savefig(part, dpi=130)
    pyplot.close(chart)
    for name, point in figures.items():
        typer.echo(f"{name:24} mask AP {point['mask_ap']:.3f}  {point['ms']:.0f} ms a picture")
    save(json_file, figures)


@app.command("figure5")
def figure5(
    model: Annotated[str, typer.Option(help="Shipped model or .safetensors file.")],
    annotations: Annotations,
    images: Images,
    output: Annotated[Path, typer.Option(help="Picture to draw, .png or .svg.")],
    json_file: Json = None,
) -> None:
    """Instance-wise Gaussian optimisation: AP over sigma (the same as `kdc ablate igo --plot`)."""
    from kdc_core.commands.ablate import ablate

    ablate("igo", annotations, images, model, json_file=json_file, plot=output)


def evaluate(
    model: str, annotations: Path, images: Path, subset: str, given: bool = False
) -> Evaluation:
    """Evaluate one model; unreadable pictures are an error, for the table would not be true."""
    from kdc_core.evaluation.run import evaluate as run

    evaluation = run(annotations, images, predictor(model, given), progress(model), subset=subset)
    complain(evaluation.failed)
    return evaluation


def predictor(model: str, given: bool = False) -> Callable[..., Any]:
    """A function from source and picture to Prediction, without a threshold on confidence."""
    if given:
        from kdc_core.evaluation.testtime import TestTime
        from kdc_core.inference.runtimes.choice import find_model

        fed = TestTime(find_model(model, (".safetensors",)), given=True)
        return lambda source, picture: fed(source.read(picture.file_name), picture)
    from kdc_core.inference.predictor import Predictor

    found = Predictor.from_pretrained(model, confidence=0.0, keypoint=0.0)
    return lambda source, picture: found(source.read(picture.file_name))


def progress(label: str) -> Callable[[Iterable[AnnotatedImage], int], Any]:
    """The progress bar of one model."""
    from kdc_core.show.progress import track

    return lambda items, total: track(items, total, label)


def show(title: str, published: Iterable[Published], ours: Iterable[Published]) -> None:
    """Print published rows, marked so, and ours below."""
    from rich.console import Console
    from rich.table import Table

    from kdc_core.evaluation.paper import COLUMNS, cells

    table = Table(title=title)
    table.add_column("", overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="right", min_width=5)
    for row in published:
        table.add_row(f"{row.model} (published)", *cells(row))
    table.add_section()
    for row in ours:
        table.add_row(row.model, *cells(row))
    Console().print(table)


def save(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures where asked for."""
    from kdc_core.files import write_json

    if path is not None:
        write_json(path, figures)


def complain(failed: Iterable[str]) -> None:
    """Stop where pictures could not be read."""
    failed = list(failed)
    if failed:
        raise KdcError(f"{len(failed)} pictures could not be read, first: {failed[0]}")
