"""`kdc data`: what is in a data set, and whether it can be used."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, BadParameter, Option, echo

from kdc_core.commands.options import Category, Json, choice
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import print_table, saved
from kdc_core.show.progress import track

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def data() -> None:
    """Look at a data set."""


@app.command("check")
def check(
    path: Annotated[Path, Argument(help="Folder of a data set, or annotation file.")],
    split: Annotated[
        str, choice("train", "val", "test", help="train, val or test, of a folder.")
    ] = "train",
    skeleton: Annotated[str, Option(help="As `fields.skeleton` of a preset names it.")] = "coco17",
    images: Annotated[
        Path | None, Option(help="Folder or tar of the images; default: where the layout has it.")
    ] = None,
    category: Category = None,
    sheet: Annotated[Path | None, Option(help="Draw annotated images into this image.")] = None,
    json_file: Json = None,
    samples: Annotated[int, Option(min=1, max=400, help="Images of the sheet.")] = 24,
) -> None:
    """Count what is in a data set, read every image, and list what is wrong.

    Takes the folders of COCO, OCHuman and CrowdPose, and what CVAT, Roboflow and Label Studio
    export. --sheet writes a .jpg or .png.
    Exit code 1 if something is wrong, 2 if annotations or images cannot be opened.
    """
    from kdc_core.codec.skeleton import SKELETONS
    from kdc_core.data.datasets import find_data
    from kdc_core.data.faults import listed
    from kdc_core.datacheck.check import check_data
    from kdc_core.datacheck.sheet import write_sheet

    if sheet is not None and sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise BadParameter(f"--sheet: expected a .jpg or .png, got '{sheet}'")
    if skeleton not in SKELETONS:
        known = " or ".join(SKELETONS)
        raise BadParameter(f"--skeleton: expected {known}, got '{skeleton}'")
    check_outputs([sheet, json_file], inputs=[path, *find_data(path, split, images)])
    bar = partial(track, label="check")
    found = check_data(path, split, SKELETONS[skeleton], bar, images, category)
    content = {
        "annotations": str(found.annotations),
        "pictures": str(found.images),
        "skeleton": skeleton,
        "counts": found.counts,
        "keypoints": found.keypoints,
        "notes": {"counts": found.notes.counts, "first": found.notes.first},
        "faults": [asdict(fault) for fault in found.faults],
    }
    with saved(json_file, content):
        counted = (found.counts, found.keypoints)
        rows = ([(k.replace("_", " "), f"{v}") for k, v in counts.items()] for counts in counted)
        print_table(f"{found.annotations.name}, {skeleton}", ("", ""), *rows)
        for line in [*found.notes.lines(), *listed(found.faults)]:
            echo(line)
        plural = "" if len(found.faults) == 1 else "s"
        echo(f"{len(found.faults)} fault{plural}" if found.faults else "nothing wrong")
    if sheet is not None:
        drawn = write_sheet(sheet, found, SKELETONS[skeleton], samples)
        where = f"in '{sheet}'" if drawn else "to draw, no sheet"
        echo(f"{drawn} images {where}")
    if found.faults:
        raise typer.Exit(1)
