"""`kdc ablate`: one network pass per picture, decoded under each setting."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kdc_core.data.annotations import AnnotatedImage
    from kdc_core.evaluation.ablate import Row


def ablate(
    name: Annotated[
        str,
        typer.Argument(
            help="With --model: centroids, sigma, igo, kprime, phi_threshold, mask_threshold, "
            "mean_embedding, edges. Without, on ground-truth maps: centroids, radius, stride, "
            "edges, noise."
        ),
    ],
    annotations: Annotated[Path, typer.Option(help="COCO annotations, .json or .json.gz.")],
    images: Annotated[Path, typer.Option(help="Folder or tar of the pictures.")],
    model: Annotated[str | None, typer.Option(help="Shipped model or .safetensors file.")] = None,
    preset: Annotated[str, typer.Option(help="Of the ground-truth maps.")] = "oracle",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw mask and keypoint AP over the settings (png, svg).")
    ] = None,
) -> None:
    """Compare settings of decode, or of the representation, on one data set."""
    from kdc_core.config import load_preset
    from kdc_core.evaluation.ablate import ablate as run
    from kdc_core.files import write_json
    from kdc_core.inference.runtimes.choice import find_model
    from kdc_core.show.progress import track

    def progress(items: Iterable[AnnotatedImage], total: int) -> Iterable[AnnotatedImage]:
        return track(items, total, f"ablate {name}")

    source = find_model(model, (".safetensors",)) if model else load_preset(preset)
    rows, failed = run(name, annotations, images, source, progress)
    title = f"{name}: {model or 'ground-truth maps of ' + preset} on {annotations.name}"
    print_rows(title, rows)
    if json_file is not None:
        figures: dict[str, Any] = {"ablation": name, "model": model, "failed": len(failed)}
        for row in rows:
            for key in ("keypoint_ap", "mask_ap_full"):
                if key in row.figures:
                    figures[f"{key}_{row.label}"] = row.figures[key]
            if "mask_ap_keypoint_persons" in row.figures:
                figures[f"mask_ap_{row.label}"] = row.figures["mask_ap_keypoint_persons"]
        write_json(json_file, {**figures, "rows": {row.label: row.figures for row in rows}})
    if plot is not None:
        draw(title, rows, plot)
    for text in failed:
        typer.echo(f"error: {text}", err=True)
    if failed:
        raise typer.Exit(1)


def print_rows(title: str, rows: list[Row]) -> None:
    """In the layout of the paper's tables: masks of persons with keypoints."""
    from rich.console import Console
    from rich.table import Table

    from kdc_core.evaluation.paper import COLUMNS, cells, masks_of

    table = Table(title=f"{title}\nmasks of persons with keypoints; keypoint AP; mask AP of all")
    table.add_column("", overflow="fold")
    for column in (*COLUMNS, "keypoints", "all"):
        table.add_column(column, justify="right", min_width=5)
    for row in rows:
        others = (f"{row.figures.get(k, -1):.3f}" for k in ("keypoint_ap", "mask_ap_full"))
        masks = masks_of(row.label, row.figures, "mask_ap_keypoint_persons")
        table.add_row(row.label, *cells(masks), *others)
    Console().print(table)


def draw(title: str, rows: list[Row], path: Path) -> None:
    """Plot AP over the settings, as the paper's Fig. 5."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from kdc_core.files import whole_file

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    labels = [row.label for row in rows]
    places = _numbers(labels) or list(range(len(labels)))
    for key, text in (
        ("mask_ap_keypoint_persons", "masks, persons with keypoints"),
        ("mask_ap_full", "masks, all persons"),
        ("keypoint_ap", "keypoints"),
    ):
        values = [row.figures.get(key, float("nan")) for row in rows]
        axes.plot(places, values, marker="o", label=text)
    axes.set_xticks(places, labels)
    axes.set_ylabel("AP")
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="x", rotation=30 if len(labels) > 7 else 0, labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, dpi=130)
    pyplot.close(figure)


def _numbers(labels: list[str]) -> list[float] | None:
    """Labels that are numbers, perhaps with a unit; None if any is not."""
    try:
        return [float(label.split()[0]) for label in labels]
    except ValueError:
        return None
