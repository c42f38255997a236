"""`kdc limits`: which map limits a model."""

from __future__ import annotations

from functools import partial
from math import nan
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from kdc_core.commands.models import weights_of
from kdc_core.commands.options import AnnotationFile, Category, ImageFolder, Json
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import cell, end_with, print_table, saved, say_absent
from kdc_core.evaluation.figures import KEYPOINT_AP, MASK_AP, MASK_AP_ALL
from kdc_core.show.progress import track

AP = {
    KEYPOINT_AP: "keypoints",
    MASK_AP: "their masks",
    MASK_AP_ALL: "all masks",
}
COLUMNS = {  # figures, and the heads of their columns
    KEYPOINT_AP: "keyp.",
    "keypoint_ap_medium": "M",
    "keypoint_ap_large": "L",
    MASK_AP: "masks",
    f"{MASK_AP}_medium": "M",
    f"{MASK_AP}_large": "L",
    MASK_AP_ALL: "all",
}


def limits(
    annotations: AnnotationFile,
    images: ImageFolder,
    model: Annotated[str, Argument(help="Shipped model or .safetensors file.")] = "kdc_light",
    category: Category = None,
    json_file: Json = None,
    plot: Annotated[Path | None, Option(help="Draw AP of each row (png, svg).")] = None,
) -> None:
    """Put the truth in the place of one map after the other, and score what that gives."""
    check_outputs([json_file], [plot], inputs=[annotations, images, model])
    from kdc_core.evaluation.coco import protocol_of
    from kdc_core.evaluation.limits import limits as run
    from kdc_core.evaluation.plots import draw_bars

    rows, failed, truth = run(
        weights_of(model), annotations, images, partial(track, label="limits"), category
    )
    table = [(row.label, *(cell(row.figures.get(name)) for name in COLUMNS)) for row in rows]
    title = f"{model}, {annotations.name}: AP with the truth in a map's place"
    note = "keypoints and masks of persons with keypoints, of these medium (M) and large (L)"
    protocol = protocol_of(truth)
    figures = {
        "model": model,
        "protocol": protocol,
        "images": len(truth.images),
        "failed": len(failed),
        "rows": {row.label: row.figures for row in rows},
    }
    with saved(json_file, figures):
        print_table(f"{title}\n{note}; all masks", ("", *COLUMNS.values()), table[:-1], table[-1:])
        say_absent(truth, protocol)
    if plot is not None:
        bars = {text: [row.figures.get(key, nan) for row in rows] for key, text in AP.items()}
        draw_bars(plot, title, [row.label for row in rows], bars, "AP")
    end_with(failed)
