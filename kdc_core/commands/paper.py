"""`kdc paper`: the paper's tables and figures, ours beside the published numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from kdc_core.commands.ablate import ablate as ablate_command
from kdc_core.commands.models import Candidate, by_predictor, by_test_time, weights_of
from kdc_core.commands.options import (
    AnnotationFile,
    Category,
    ImageFolder,
    Json,
    Model,
    Models,
    Plot,
    choice,
)
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import cell, print_table, save, saved, say_absent
from kdc_core.errors import KdcError
from kdc_core.evaluation.figures import MASK_AP, MASK_AP_ALL
from kdc_core.evaluation.paper import COLUMNS, read_table, values_of
from kdc_core.show.progress import track

if TYPE_CHECKING:
    from kdc_core.data.images import Images
    from kdc_core.evaluation.run import EvaluationResult

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
COCO_PERSONS = "COCOPersons: images and persons with keypoints"
FULL = "full set: all persons"
CENTROIDS = {
    "static": "SM_c",
    "dynamic": "DM_c",
    "dynamic_multi": "DM_c, the K' best",
    "personlab": "all visible keypoints",
    "center too": "DM_c, the K' best and the center",
}
AS_POSE2SEG = ("as Pose2Seg: keypoints given, scores alike", MASK_AP)
given_keypoints = partial(by_test_time, given=True)
Ours = dict[str, dict[str, float | str]]


@app.command("table1")
def table1(
    model: Models,
    annotations: AnnotationFile,
    images: ImageFolder,
    category: Category = None,
    json_file: Json = None,
) -> None:
    """Masks on COCO val: COCOPersons, the full set apart, and by Pose2Seg's protocol."""
    check_outputs([json_file], inputs=[annotations, images, *model])
    check_weights(model)

    from kdc_core.evaluation.run import score_coco_persons

    def ours(name: str) -> Ours:
        done = score(by_predictor, name, annotations, images, category)
        return {
            "coco_persons": figures_of(done, score_coco_persons(done)),
            "all": figures_of(done),
            "pose2seg": as_pose2seg(name, annotations, images, category),
        }

    texts = {
        "coco_persons": (COCO_PERSONS, MASK_AP),
        "all": (FULL, MASK_AP_ALL),
        "pose2seg": AS_POSE2SEG,
    }
    title = f"Table I, COCO val; ours on {annotations.name}"
    compare(title, "table1", model, ours, texts, json_file)


@app.command("table2")
def table2(
    model: Model,
    annotations: Annotated[Path, Option(help="image_info_test-dev2017.json.")],
    images: ImageFolder,
    output: Annotated[Path, Option(help="Folder for the submission files.")],
) -> None:
    """Masks on COCO test-dev: the files to hand in, for its annotations are not public."""
    check_outputs(folders=[output], inputs=[annotations, images, model])
    from kdc_core.data.images import Images
    from kdc_core.data.reading import read_image_list
    from kdc_core.evaluation.coco import score_of_mask
    from kdc_core.evaluation.run import predict_all

    listed = read_image_list(annotations)
    predict = by_predictor(model, Images(images)).predict
    found, failed = predict_all(listed, predict, partial(track, label=model))
    results = listed.in_file_ids(found)
    output.mkdir(parents=True, exist_ok=True)
    parts = (("person_keypoints", "keypoints"), ("detections", "segmentation"))
    masks = [{**result, "score": score_of_mask(result)} for result in results]
    paths = [output / f"{p}_test-dev2017_{Path(model).stem}_results.json" for p, _ in parts]
    for path, (_, key), ranked in zip(paths, parts, (results, masks), strict=True):
        keys = ("image_id", "category_id", "score", key)
        save(path, [{k: result[k] for k in keys} for result in ranked])
    for path in paths:
        typer.echo(f"wrote '{path}', {len(results)} people of {len(listed.images)} images")
    show("Table II, COCO test-dev", "table2", [])
    refuse(failed)


@app.command("table3")
def table3(
    model: Models,
    annotations: AnnotationFile,
    images: ImageFolder,
    category: Category = None,
    split: Annotated[str, choice("val", "test", help="val or test.")] = "val",
    json_file: Json = None,
) -> None:
    """Masks on OCHuman: end to end, with ground-truth keypoints, and by Pose2Seg's protocol."""
    check_outputs([json_file], inputs=[annotations, images, *model])
    check_weights(model)

    def ours(name: str) -> Ours:
        return {
            "end_to_end": figures_of(score(by_predictor, name, annotations, images, category)),
            "given_keypoints": figures_of(
                score(given_keypoints, name, annotations, images, category)
            ),
            "pose2seg": as_pose2seg(name, annotations, images, category),
        }

    texts = {
        "end_to_end": ("end to end", MASK_AP_ALL),
        "given_keypoints": ("keypoints given", MASK_AP_ALL),
        "pose2seg": AS_POSE2SEG,
    }
    title = f"Table III, OCHuman {split}; ours on {annotations.name}"
    compare(title, f"table3_{split}", model, ours, texts, json_file)


@app.command("table4")
def table4(
    model: Models,
    annotations: AnnotationFile,
    images: ImageFolder,
    category: Category = None,
    json_file: Json = None,
) -> None:
    """Static against dynamic centroids on COCO val.

    The body center is one of them in the first and the last row alone (`decode.center_weight`).
    """
    check_outputs([json_file], inputs=[annotations, images, *model])
    from kdc_core.evaluation.ablate import ON_MAPS, ablate
    from kdc_core.evaluation.coco import protocol_of

    def ours(name: str) -> Ours:
        bar = partial(track, label=name)
        found = ablate("centroids", annotations, images, weights_of(name), bar, category)
        refuse(found.failed)
        protocol = protocol_of(found.annotations)
        say_absent(found.annotations, protocol)
        made: dict[str, float | str]
        made = {"protocol": protocol, "pictures": len(found.annotations.images)}
        return {row.label: {**made, **row.figures} for row in found.rows}

    labels = [setting.label for setting in ON_MAPS["centroids"]]
    texts = {label: (CENTROIDS.get(label, label), MASK_AP) for label in labels}
    title = f"Table IV, COCO val; ours on {annotations.name}, persons with keypoints"
    compare(title, "table4", model, ours, texts, json_file)


@app.command("figure4")
def figure4(
    model: Models,
    annotations: AnnotationFile,
    images: ImageFolder,
    output: Plot,
    category: Category = None,
    json_file: Json = None,
) -> None:
    """Time for an image over mask AP; the paper prints no numbers here, so ours alone."""
    check_outputs([json_file], [output], inputs=[annotations, images, *model])
    from kdc_core.evaluation.plots import draw_points

    figures: Ours = {}
    points = {}
    stems = [Path(name).stem for name in model]
    for name, stem in zip(model, stems, strict=True):
        seconds: list[float] = []
        timed = partial(by_predictor, seconds=seconds)
        done = score(timed, name, annotations, images, category, "coco_persons")
        mask_ap = done.figures.get(MASK_AP, -1.0)
        ms = 1e3 * median(seconds)
        pictures = len(done.annotations.images)
        figures[name] = {
            "protocol": done.protocol,
            "pictures": pictures,
            "mask_ap": mask_ap,
            "ms": ms,
        }
        points[name if stems.count(stem) > 1 else stem] = mask_ap, ms
    title, time_label = about(figures.values()), "ms an image (median, reading it included)"
    draw_points(output, title, points, f"mask AP ({COCO_PERSONS})", time_label)
    with saved(json_file, figures):
        for name, of in figures.items():
            typer.echo(f"{name:24} mask AP {of['mask_ap']:.3f}  {of['ms']:.0f} ms an image")


@app.command("figure5")
def figure5(
    model: Model,
    annotations: AnnotationFile,
    images: ImageFolder,
    output: Plot,
    category: Category = None,
    json_file: Json = None,
) -> None:
    """Instance-wise Gaussian optimization: AP over sigma (the same as `kdc ablate igo --plot`)."""
    ablate_command("igo", annotations, images, category, model, json_file=json_file, plot=output)


def score(
    by: Callable[[str, Images], Candidate],
    name: str,
    annotations: Path,
    images: Path,
    category: str | None,
    subset: str = "all",
    pose2seg: bool = False,
) -> EvaluationResult:
    """Evaluate one model; unreadable images are an error, for the table would not be true."""
    from kdc_core.data.images import Images

    chosen = by(name, Images(images))
    done = chosen.evaluate(annotations, name, subset, pose2seg, category)
    refuse(done.failed)
    if not pose2seg:
        say_absent(done.annotations, done.protocol)
    return done


def as_pose2seg(
    name: str, annotations: Path, images: Path, category: str | None
) -> dict[str, float | str]:
    """Figures of a model by Pose2Seg's protocol."""
    return figures_of(score(given_keypoints, name, annotations, images, category, pose2seg=True))


def check_weights(models: Iterable[str]) -> None:
    """Find what keypoints that are given need: better missed now than after all images."""
    import torch  # noqa: F401 -- it may not be installed

    for model in models:
        weights_of(model)


def figures_of(
    done: EvaluationResult, figures: dict[str, float] | None = None
) -> dict[str, float | str]:
    """The protocol of an evaluation, its images and figures; or others, of some of the images."""
    if figures is not None:
        return {"protocol": done.protocol, **figures}
    return {"protocol": done.protocol, "pictures": len(done.annotations.images), **done.figures}


def about(evaluations: Iterable[dict[str, float | str]]) -> str:
    """Images and protocols of the figures, for the title above them."""
    each = list(evaluations)
    images = dict.fromkeys(f"{one['pictures']} images" for one in each if "pictures" in one)
    protocols = dict.fromkeys(str(one["protocol"]) for one in each)
    return "; ".join((*images, f"protocol: {', '.join(protocols)}"))


def compare(
    title: str,
    table: str,
    models: list[str],
    ours: Callable[[str], Ours],
    texts: dict[str, tuple[str, str]],
    json_file: Path | None,
) -> None:
    """Print published rows and below them ours, and write ours where asked for.

    Args:
        title: above the table.
        table: the published one, as for `read_table`.
        models: names.
        ours: figures of a model's evaluations, by their name.
        texts: what the row of an evaluation is called, and which of `ROWS` it shows.
        json_file: where to.
    """
    figures = {name: ours(name) for name in models}
    rows = [
        (f"ours: {name}, {text}", *map(cell, values_of(figures[name][key], row)))
        for name in models
        for key, (text, row) in texts.items()
    ]
    evaluations = (each for name in models for each in figures[name].values())
    with saved(json_file, figures):
        show(f"{title}; {about(evaluations)}", table, rows)


def show(title: str, table: str, ours: Iterable[tuple[str, ...]]) -> None:
    """Print published rows, marked so, and ours below."""
    published = [(f"{row.model} (published)", *map(cell, row.values)) for row in read_table(table)]
    print_table(title, ("", *COLUMNS), published, ours)


def refuse(failed: Iterable[str]) -> None:
    """Stop where images could not be read."""
    if failed := list(failed):
        raise KdcError(f"{len(failed)} images could not be read, first: {failed[0]}")
