"""`kdc data`: what is in a data set, and whether it can be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdc_core.codec.skeleton import COCO17, SKELETONS

if TYPE_CHECKING:
    from kdc_core.data.annotations import AnnotatedImage
    from kdc_core.data.faults import Fault
    from kdc_core.datacheck.check import Check

app = typer.Typer(no_args_is_help=True)

SHOWN = 20  # faults of one kind that are printed


@app.callback()
def data() -> None:
    """Look at a data set."""


@app.command("check")
def check(
    path: Annotated[
        Path, typer.Argument(help="Folder of COCO, OCHuman or CrowdPose, or annotation file.")
    ],
    split: Annotated[str, typer.Option(help="train, val or test, of a folder.")] = "train",
    skeleton: Annotated[str, typer.Option(help=" or ".join(SKELETONS))] = COCO17.name,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw annotated pictures into this .jpg or .png.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write counts and faults here.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=400, help="Pictures of the sheet.")] = 24,
) -> None:
    """Count what is in a data set, read every picture, and list what is wrong.

    Exit code 1 if something is wrong, 2 if annotations or pictures cannot be opened.
    """
    from kdc_core.datacheck.check import check_data
    from kdc_core.datacheck.sheet import write_sheet
    from kdc_core.files import write_json
    from kdc_core.show.progress import track

    if split not in ("train", "val", "test"):
        raise typer.BadParameter(f"--split: expected train, val or test, got '{split}'")
    if skeleton not in SKELETONS:
        expected = " or ".join(SKELETONS)
        raise typer.BadParameter(f"--skeleton: expected {expected}, got '{skeleton}'")
    if sheet is not None and sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise typer.BadParameter(f"--sheet: expected a .jpg or .png, got '{sheet}'")

    def progress(items: Iterable[AnnotatedImage], total: int) -> Iterable[AnnotatedImage]:
        return track(items, total, "check")

    found = check_data(path, split, SKELETONS[skeleton], progress)
    _print_counts(found, skeleton)
    _print_faults(found.faults)
    if json_file is not None:
        content = {
            "annotations": str(found.annotations),
            "pictures": str(found.images),
            "skeleton": skeleton,
            "counts": found.counts,
            "keypoints": found.keypoints,
            "faults": [asdict(fault) for fault in found.faults],
        }
        write_json(json_file, content)
    if sheet is not None:
        drawn = write_sheet(sheet, found, SKELETONS[skeleton], samples)
        where = f"in '{sheet}'" if drawn else "to draw, no sheet"
        typer.echo(f"{drawn} pictures {where}")
    if found.faults:
        raise typer.Exit(1)


def _print_counts(found: Check, skeleton: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{found.annotations.name}, {skeleton}"))
    table.add_column("")
    table.add_column("", justify="right")
    for counts in (found.counts, found.keypoints):
        for name, number in counts.items():
            table.add_row(name.replace("_", " "), str(number))
        table.add_section()
    Console().print(table)


def _print_faults(faults: tuple[Fault, ...]) -> None:
    from kdc_core.data.faults import KINDS

    for kind, group in groupby(faults, lambda fault: fault.kind):
        same = list(group)
        typer.echo(f"{KINDS[kind]}: {len(same)}")
        for fault in same[:SHOWN]:
            typer.echo(f"  {fault}")
        if len(same) > SHOWN:
            typer.echo(f"  and {len(same) - SHOWN} more")
    plural = "" if len(faults) == 1 else "s"
    typer.echo(f"{len(faults)} fault{plural}" if faults else "nothing wrong")
