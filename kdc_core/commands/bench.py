"""`kdc bench`: speed as ratios within one run, and how well people keep their ids."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from kdc_core.commands.options import Json, Model
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import cell, print_figures, print_table, saved
from kdc_core.errors import KdcError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
Rounds = Annotated[int, Option(min=3, help="Interleaved rounds; medians are reported.")]


@app.command("predictor")
def predictor(json_file: Json = None, rounds: Rounds = 60, model: Model = "kdc_light") -> None:
    """Network, decode, and the whole predictor with 1 and with 30 people."""
    check_outputs([json_file], inputs=[model])
    from kdc_core.bench.predictor import bench_predictor

    _report(bench_predictor(model, rounds), json_file)


@app.command("node")
def node(json_file: Json = None, rounds: Rounds = 100) -> None:
    """The node against the bare predictor, and before a camera of 30 Hz, VGA and 720p."""
    check_outputs([json_file])
    found = [e for e in entry_points(group="kdc.bench") if e.name == "node"]
    if not found:
        raise KdcError("the node's benchmark is not installed: pip install 'kdc_ros[ros-wheels]'")
    _report(found[0].load()(rounds), json_file)


@app.command("data")
def data(
    json_file: Json = None,
    path: Annotated[str | None, Option("--data", help="Data set; default: samples.")] = None,
    seconds: Annotated[float, Option(min=1, help="For each measurement.")] = 20,
) -> None:
    """Training samples a second, targets alone, and the wait for samples in training."""
    check_outputs([json_file], inputs=[path])
    from kdc_core.bench.data import bench_data

    _report(bench_data(path, seconds), json_file)


@app.command("runtimes")
def runtimes(
    json_file: Json = None,
    rounds: Rounds = 30,
    frames: Annotated[int, Option(min=101, help="Frames while memory is watched.")] = 1000,
    model: Model = "kdc_light",
    plot: Annotated[
        Path | None, Option(help="Draw the stages of each runtime (png, svg).")
    ] = None,
) -> None:
    """Every runtime that can be had here, and why the others cannot."""
    check_outputs([json_file], [plot], inputs=[model])
    from kdc_core.bench.runtimes import bench_runtimes
    from kdc_core.evaluation.plots import draw_bars

    done = bench_runtimes(model, rounds, frames)
    with saved(json_file, {**done.figures, "stages_ms": done.stages}):
        for name, stages in done.stages.items():
            typer.echo(f"{name}, ms: " + ", ".join(f"{n} {ms:.1f}" for n, ms in stages.items()))
        for name, reason in done.refused.items():
            typer.echo(f"not {name}: {reason}")
        print_figures(done.figures)
    if plot is not None:
        names = next(iter(done.stages.values()))
        bars = {name: [stages[name] for stages in done.stages.values()] for name in names}
        draw_bars(plot, "Stages of the predictor, VGA, 30 people", list(done.stages), bars, "ms")


@app.command("ids")
def ids(
    json_file: Json = None,
    data: Annotated[str | None, Option("--data", help="Data set; default: samples.")] = None,
    model: Model = "kdc_light",
) -> None:
    """Whether people keep their ids in clips made of photographs; ids of real videos; and what
    smoothing keypoints costs."""
    check_outputs([json_file], inputs=[data, model])
    from kdc_core.bench.ids import REAL, bench_ids
    from kdc_core.bench.smoothing import bench_smoothing

    done = bench_ids(model, data)
    if not REAL.is_dir():
        typer.echo(f"no videos in '{REAL}': ids are counted in the package's own alone")
    kinds = {kind: score.figures() for kind, score in done.kinds.items()}
    videos = {name: vars(count) for name, count in done.videos.items()}
    smoothing = {
        f"smoothing_{name}_{rate}hz": value
        for rate in (10, 30)
        for name, value in bench_smoothing(rate).items()
    }
    whole = done.whole.figures() | smoothing
    columns = next(iter(kinds.values()))
    with saved(json_file, {**whole, "kinds": kinds, "videos": videos}):
        print_table(
            f"{model}: ids in clips of photographs",
            ("clips", *(name.replace("_", " ") for name in columns)),
            [(kind, *map(cell, figures.values())) for kind, figures in kinds.items()],
        )
        print_table(
            f"{model}: ids in videos",
            ("video", "frames", "ids", "lost", "regained"),
            [(name, *map(cell, counts.values())) for name, counts in videos.items()],
        )
        print_figures(whole)


def _report(figures: dict[str, float], json_file: Path | None) -> None:
    with saved(json_file, figures):
        print_figures(figures)
