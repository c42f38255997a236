"""`kdc evaluate`: average precision of keypoints and masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import BadParameter, Option, echo

from kdc_core.commands.models import by_oracle, by_predictor, by_test_time
from kdc_core.commands.options import (
    AnnotationFile,
    Category,
    Device,
    ImageFolder,
    Json,
    Model,
    Rotate,
    Runtime,
    choice,
)
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import cell, end_with, print_table, saved, say_absent
from kdc_core.evaluation.paper import rows_of

if TYPE_CHECKING:
    from kdc_core.evaluation.run import EvaluationResult

DEFAULT_MODEL = "kdc_light"


def evaluate(
    annotations: AnnotationFile,
    images: ImageFolder,
    category: Category = None,
    model: Model = DEFAULT_MODEL,
    runtime: Runtime = "auto",
    device: Device = "auto",
    rotate: Rotate = 0,
    oracle: Annotated[bool, Option("--oracle", help="Decode the encoded annotations.")] = False,
    preset: Annotated[
        str | None, Option(help="Settings of --oracle; default: the preset oracle.")
    ] = None,
    subset: Annotated[
        str, choice("all", "coco_persons", help="coco_persons: images with labelled persons.")
    ] = "all",
    flip: Annotated[bool, Option("--flip", help="Average with the mirrored image.")] = False,
    scales: Annotated[str | None, Option(help="Pool longer sides, e.g. 640,448,320.")] = None,
    given_keypoints: Annotated[
        bool, Option("--given-keypoints", help="Masks for the annotated keypoints.")
    ] = False,
    protocol: Annotated[
        str,
        choice(
            "auto",
            "pose2seg",
            help="pose2seg: persons with keypoints and mask alone, keypoints given, scores alike.",
        ),
    ] = "auto",
    results: Annotated[Path | None, Option(help="Write COCO results here.")] = None,
    json_file: Json = None,
    breakdown: Annotated[
        bool, Option("--breakdown", help="AP by number, size and overlap of the persons.")
    ] = False,
    curve: Annotated[Path | None, Option(help="Draw precision and recall (png, svg).")] = None,
    report: Annotated[Path | None, Option(help="Folder for a page of the worst misses.")] = None,
) -> None:
    """Predict every image of a data set and score it as COCO does.

    Images with a crowd index are scored by CrowdPose's protocol; with a model of COCO's 17
    keypoints on the 12 that CrowdPose has, too, which is not its protocol. --oracle, --flip,
    --scales, --given-keypoints and --protocol pose2seg run by torch, on the CPU, and are named in
    the result.
    """
    check_outputs([results, json_file], [curve], [report], [annotations, images, model])
    pose2seg = protocol == "pose2seg"
    if rotate and (oracle or given_keypoints or pose2seg):
        raise BadParameter("--rotate turns images, not annotations: not beside given keypoints")
    if pose2seg and (oracle or breakdown or curve is not None):
        raise BadParameter(
            "--protocol pose2seg gives keypoints and scores: expected none of --oracle, "
            "--breakdown and --curve beside it"
        )
    if oracle and (flip or scales or given_keypoints):
        raise BadParameter(
            "--oracle decodes the annotations: expected none of --flip, --scales and "
            "--given-keypoints beside it, which are ways to run a model"
        )
    if oracle and model != DEFAULT_MODEL:
        raise BadParameter("--oracle decodes the annotations, no model: expected none beside it")
    by_torch = oracle or flip or scales or given_keypoints or pose2seg
    if by_torch and (runtime not in ("auto", "torch") or device not in ("auto", "cpu")):
        raise BadParameter(
            "--oracle, --flip, --scales, --given-keypoints and --protocol pose2seg run by torch, "
            f"on the CPU: got --runtime {runtime} --device {device}"
        )
    if preset is not None and not oracle:
        raise BadParameter("--preset gives settings of --oracle; a model has its own")
    from kdc_core.codec.skeleton import COCO17
    from kdc_core.data.images import Images
    from kdc_core.evaluation.calibration import draw_curve, precision_recall_curve
    from kdc_core.evaluation.run import persons_without_mask

    sides, source = _sides(scales), Images(images)
    if oracle:
        chosen = by_oracle(preset or "oracle")
    elif flip or sides or given_keypoints or pose2seg:
        chosen = by_test_time(model, source, sides, flip, given_keypoints or pose2seg, rotate)
    else:
        chosen = by_predictor(model, source, runtime, device, rotate=rotate)
    can_group = chosen.skeleton == COCO17
    if breakdown and not can_group:
        raise BadParameter(f"--breakdown: only for {COCO17.name}, not {chosen.skeleton.name}")
    done = chosen.evaluate(annotations, "evaluate", subset, pose2seg, category)
    summary: dict[str, Any] = {
        "model": chosen.name,
        "annotations": annotations.name,
        "subset": subset,
        "protocol": done.protocol,
        "pictures": len(done.annotations.images),
        "persons_without_mask": len(persons_without_mask(done.annotations)),
        "failed": len(done.failed),
        **done.figures,
    }
    wants_groups = breakdown or (report is not None and not pose2seg)
    groups = _groups(done) if can_group and wants_groups else {}
    if breakdown:
        summary["breakdown"] = groups
    least = chosen.config.predict.confidence
    if curve is not None:
        precision_recall = precision_recall_curve(done.annotations, done.results)
        summary["at_default_confidence"] = precision_recall.at(least)
    as_results = done.annotations.in_file_ids(done.results)
    with saved(results, as_results), saved(json_file, summary):
        _print(summary)
        say_absent(done.annotations, done.protocol)
    if curve is not None:
        title = f"{chosen.name} on {done.annotations.path.name}"
        draw_curve(precision_recall, least, title, curve)
    if report is not None:
        from kdc_core.evaluation.report import write_report

        write_report(
            report,
            done.annotations,
            source,
            done.results,
            least,
            done.protocol,
            done.figures,
            groups,
        )
        echo(f"report in '{report / 'index.html'}'")
    end_with(done.failed)


def _sides(text: str | None) -> list[int] | None:
    try:
        sides = [int(part) for part in text.split(",")] if text else None
    except ValueError:
        sides = [0]
    if sides and not all(128 <= side <= 4096 for side in sides):
        raise BadParameter(
            f"--scales: expected sides of 128 to 4096 px, e.g. 640,448,320, got '{text}'"
        )
    return sides


def _groups(done: EvaluationResult) -> dict[str, dict[str, float]]:
    from kdc_core.evaluation.breakdown import breakdown

    return breakdown(done.annotations, done.results)


def _print(summary: dict[str, Any]) -> None:
    from kdc_core.evaluation.coco import CROWD_FIGURES

    subset = "" if summary["subset"] == "all" else f" ({summary['subset']})"
    print_table(
        f"{summary['model']} on {summary['annotations']}{subset}, {summary['pictures']} images; "
        f"protocol: {summary['protocol']}",
        ("", "AP", "AP50", "AP75", "medium", "large", "AR"),
        [(row.model, *map(cell, row.values)) for row in rows_of(summary)],
        [(name, cell(summary[name])) for name in CROWD_FIGURES if name in summary],
    )
    if groups := summary.get("breakdown"):
        columns = list(dict.fromkeys(column for entry in groups.values() for column in entry))
        rows = [
            (name, *(cell(entry.get(column)) for column in columns))
            for name, entry in groups.items()
        ]
        heads = ("", *(column.replace("_", " ") for column in columns))
        print_table("by number, size and overlap of the persons", heads, rows, fold=False)
    if at := summary.get("at_default_confidence"):
        echo("at the default: " + ", ".join(f"{name} {value:.3f}" for name, value in at.items()))
