"""`kdc bench`: speed as ratios within one run."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from kdc_core.errors import KdcError

app = typer.Typer(no_args_is_help=True)
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures here.")]
Rounds = Annotated[int, typer.Option(min=3, help="Interleaved rounds; medians are reported.")]


@app.command("predictor")
def predictor(json_file: Json = None, rounds: Rounds = 60, model: str = "kdc_light") -> None:
    """Network, decode, and the whole predictor with 1 and with 30 people."""
    from kdc_core.bench.predictor import bench_predictor

    _report(bench_predictor(model, rounds), json_file)


@app.command("node")
def node(json_file: Json = None, rounds: Rounds = 100) -> None:
    """The node in a process of its own, against the bare predictor in this one."""
    found = [e for e in entry_points(group="kdc.bench") if e.name == "node"]
    if not found:
        raise KdcError("the node's benchmark is not installed: pip install 'kdc_ros[ros-wheels]'")
    _report(found[0].load()(rounds), json_file)


@app.command("data")
def data(
    json_file: Json = None,
    path: Annotated[str | None, typer.Option("--data", help="Data set; default: samples.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="For each measurement.")] = 20,
) -> None:
    """Training samples a second, targets alone, and the wait for samples in training."""
    from kdc_core.bench.data import bench_data

    _report(bench_data(path, seconds), json_file)


@app.command("peers")
def peers(
    json_file: Json = None,
    annotations: Annotated[
        Path | None, typer.Option(help="COCO annotations; default: ../shared of the repository.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder or tar; default: likewise.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the peers' weights; default: likewise.")
    ] = None,
    model: Annotated[str, typer.Option(help="Ours: shipped model or .onnx.")] = "kdc_light",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures.")] = None,
) -> None:
    """MoveNet MultiPose and BodyPix beside our predictor: average precision and time."""
    from kdc_core.bench.peers import ANNOTATIONS, IMAGES, WEIGHTS, bench_peers
    from kdc_core.files import write_json
    from kdc_core.show.progress import track

    figures = bench_peers(
        annotations or ANNOTATIONS,
        images or IMAGES,
        weights or WEIGHTS,
        model,
        limit,
        lambda items, total: track(items, total, "peers"),
    )
    if json_file is not None:
        write_json(json_file, figures)
    rows = list(dict.fromkeys(name for entry in figures["models"].values() for name in entry))
    typer.echo(f"{figures['pictures']} pictures, {figures['threads']} threads")
    typer.echo("all models have seen COCO train pictures")
    typer.echo(" " * 32 + "".join(f"{name:>24}" for name in figures["models"]))
    for row in rows:
        values = (entry.get(row) for entry in figures["models"].values())
        cells = ("" if value is None else f"{value:.3f}" for value in values)
        typer.echo(f"{row:32}" + "".join(f"{cell:>24}" for cell in cells))


def _report(figures: dict[str, float], json_file: Path | None) -> None:
    from kdc_core.files import write_json

    for name, value in figures.items():
        typer.echo(f"{name:28} {value:10.3f}")
    if json_file is not None:
        write_json(json_file, figures)
