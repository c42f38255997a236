"""`kdc data`: what is in a data set, and whether it can be used."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, BadParameter, Option, echo

from kdc_core.commands.options import Json, choice
from kdc_core.commands.printing import print_table, save
from kdc_core.show.progress import track

if TYPE_CHECKING:
    from kdc_core.data.faults import Fault

app = typer.Typer(no_args_is_help=True)

SHOWN = 20  # faults of one kind that are printed


@app.callback()
def data() -> None:
    """Look at a data set."""


@app.command("check")
def check(
    path: Annotated[Path, Argument(help="Folder of a data set, or annotation file.")],
    split: Annotated[
        str, choice("train", "val", "test", help="train, val or test, of a folder.")
    ] = "train",
    skeleton: Annotated[
        str, choice("coco17", "crowdpose14", help="coco17 or crowdpose14.")
    ] = "coco17",
    sheet: Annotated[Path | None, Option(help="Draw annotated images into this image.")] = None,
    json_file: Json = None,
    samples: Annotated[int, Option(min=1, max=400, help="Images of the sheet.")] = 24,
) -> None:
    """Count what is in a data set, read every image, and list what is wrong.

    Takes the folders of COCO, OCHuman and CrowdPose. --sheet writes a .jpg or .png.
    Exit code 1 if something is wrong, 2 if annotations or images cannot be opened.
    """
    from kdc_core.codec.skeleton import SKELETONS
    from kdc_core.datacheck.check import check_data
    from kdc_core.datacheck.sheet import write_sheet

    if sheet is not None and sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise BadParameter(f"--sheet: expected a .jpg or .png, got '{sheet}'")
    found = check_data(path, split, SKELETONS[skeleton], partial(track, label="check"))
    counted = (found.counts, found.keypoints)
    rows = ([(k.replace("_", " "), f"{v}") for k, v in counts.items()] for counts in counted)
    print_table(f"{found.annotations.name}, {skeleton}", ("", ""), *rows)
    _print_faults(found.faults)
    content = {
        "annotations": str(found.annotations),
        "pictures": str(found.images),
        "skeleton": skeleton,
        "counts": found.counts,
        "keypoints": found.keypoints,
        "faults": [asdict(fault) for fault in found.faults],
    }
    save(json_file, content)
    if sheet is not None:
        drawn = write_sheet(sheet, found, SKELETONS[skeleton], samples)
        where = f"in '{sheet}'" if drawn else "to draw, no sheet"
        echo(f"{drawn} images {where}")
    if found.faults:
        raise typer.Exit(1)


def _print_faults(faults: tuple[Fault, ...]) -> None:
    from kdc_core.data.faults import KINDS

    for kind, group in groupby(faults, lambda fault: fault.kind):
        same = [f"  {fault}" for fault in group]
        echo(f"{KINDS[kind]}: {len(same)}")
        more = [f"  and {len(same) - SHOWN} more"] if len(same) > SHOWN else []
        echo("\n".join(same[:SHOWN] + more))
    plural = "" if len(faults) == 1 else "s"
    echo(f"{len(faults)} fault{plural}" if faults else "nothing wrong")
