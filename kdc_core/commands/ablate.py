"""`kdc ablate`: one network pass per image, decoded under each setting."""

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
from kdc_core.evaluation.paper import COLUMNS, values_of
from kdc_core.show.progress import track

AP = {  # what is plotted, and named for each setting in the JSON file
    MASK_AP: "masks, persons with keypoints",
    MASK_AP_ALL: "masks, all persons",
    KEYPOINT_AP: "keypoints",
}


def ablate(
    name: Annotated[
        str,
        Argument(
            help="With --model: centroids, sigma, igo, kprime, phi_threshold, mask_threshold, "
            "mean_embedding, edges. Without, on ground-truth maps: centroids, radius, stride, "
            "edges, noise."
        ),
    ],
    annotations: AnnotationFile,
    images: ImageFolder,
    category: Category = None,
    model: Annotated[str | None, Option(help="Shipped model or .safetensors file.")] = None,
    preset: Annotated[str, Option(help="Of the ground-truth maps.")] = "oracle",
    json_file: Json = None,
    plot: Annotated[Path | None, Option(help="Draw AP over the settings (png, svg).")] = None,
) -> None:
    """Compare settings of decode, or of the representation, on one data set."""
    check_outputs([json_file], [plot], inputs=[annotations, images, model])
    from kdc_core.config_file import load_preset
    from kdc_core.evaluation.ablate import ablate as run
    from kdc_core.evaluation.coco import COMMON_FIGURES, protocol_of
    from kdc_core.evaluation.plots import draw_lines
    from kdc_core.evaluation.run import persons_without_mask

    source = weights_of(model) if model else load_preset(preset)
    bar = partial(track, label=f"ablate {name}")
    rows, failed, truth = run(name, annotations, images, source, bar, category)
    title = f"{name}: {model or 'ground-truth maps of ' + preset} on {annotations.name}"
    protocol = protocol_of(truth)
    table = []
    for row in rows:
        poses = [v for key, v in row.figures.items() if key in (KEYPOINT_AP, COMMON_FIGURES[0])]
        masks = values_of(row.figures, MASK_AP)
        values = (*masks, *poses, row.figures.get(MASK_AP_ALL))
        table.append((row.label, *map(cell, values)))
    figures: dict[str, object] = {
        "ablation": name,
        "model": model,
        "protocol": protocol,
        "persons_without_mask": len(persons_without_mask(truth)),
        "failed": len(failed),
    }
    for row in rows:
        short = {key.removesuffix("_keypoint_persons"): row.figures.get(key) for key in AP}
        figures |= {f"{key}_{row.label}": v for key, v in short.items() if v is not None}
    note = f"masks of persons with keypoints; keypoint AP; mask AP of all; protocol: {protocol}"
    with saved(json_file, {**figures, "rows": {row.label: row.figures for row in rows}}):
        print_table(f"{title}\n{note}", ("", *COLUMNS, "keypoints", "all"), table)
        say_absent(truth, protocol)
    if plot is not None:
        lines = {text: [row.figures.get(key, nan) for row in rows] for key, text in AP.items()}
        draw_lines(plot, title, [row.label for row in rows], lines, ylabel="AP")
    end_with(failed)
