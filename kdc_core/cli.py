"""The `kdc` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from io import TextIOWrapper
from typing import Annotated

import typer

import kdc_core
from kdc_core import opencv
from kdc_core.commands import (
    ablate,
    bench,
    data,
    doctor,
    engine,
    evaluate,
    export,
    flicker,
    limits,
    paper,
    predict,
    train,
    tune,
)
from kdc_core.errors import KdcError, Work, for_terminal

app = typer.Typer(
    help="People in images: 17 keypoints and one mask each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    add_completion=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"kdc {kdc_core.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_tell_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """What may be given before a command."""


app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("flicker")(flicker.flicker)
app.command("ablate")(ablate.ablate)
app.command("limits")(limits.limits)
app.add_typer(paper.app, name="paper", help="The paper's tables and figures, ours beside.")
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("export")(export.export)
app.add_typer(engine.app, name="engine", help="Engines for TensorRT, built beforehand and kept.")
app.add_typer(data.app, name="data", help="Look at a data set.")
app.add_typer(bench.app, name="bench", help="Measure speed here, and how well ids stay.")
app.command("doctor")(doctor.doctor)

# Which extra of the package brings a library.
EXTRAS = {
    "torch": "train",
    "lightning": "train",
    "onnx": "train",
    "onnxscript": "train",
    "matplotlib": "train",
    "optuna": "train",
    "tensorboard": "train",
    "pycocotools": "eval",
    "faster_coco_eval": "eval",
    "ray": "ray",
    "rerun": "view",
    "pyarrow": "ray",
    "rosbags": "bag",
}
# Entry points of this group are commands of other packages: a function for typer under its name.
COMMANDS = "kdc.commands"


def join_commands(name: str | None = None) -> None:
    """Add the commands of other packages, whose modules are imported for it.

    Args:
        name: of the one command that is asked for; all join where it is nobody's, and none where
            it is there already.
    """
    there = {command.name for command in app.registered_commands}
    there |= {group.name for group in app.registered_groups}
    if name in there:
        return
    found = {entry.name: entry for entry in entry_points(group=COMMANDS)}
    for entry in (found[name],) if name in found else found.values():
        if entry.name not in there:
            app.command(entry.name)(entry.load())


def run(arguments: Sequence[str]) -> int:
    """Run a command; errors that a user can mend are one line on stderr.

    Args:
        arguments: without the name of the program.

    Returns:
        The exit code: 0 done; 1 some input failed or the work broke off, the rest is written; 2
        refused before the work; 130, 143 or 129 stopped by SIGINT, SIGTERM or SIGHUP.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may be in no encoding
            stream.reconfigure(errors="backslashreplace")
    Work.begun = False
    try:
        join_commands(next(iter(arguments), None))
        app(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except (KdcError, OSError) as error:  # the latter: a full disk, a folder that is a file
        print(f"error: {for_terminal(str(error))}", file=sys.stderr)
        from kdc_core.data.annotations import AnnotationError  # brings libraries

        return 1 if Work.begun and not isinstance(error, AnnotationError) else 2
    except (ImportError, AttributeError) as error:
        text = _to_install(error)
        if text is None:
            raise
        print(f"error: {text}", file=sys.stderr)
    return 2


def _to_install(error: Exception) -> str | None:
    """What to tell of an import that failed; None = it is no fault of what is installed."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").split(".")[0]
        if name == "rclpy":
            return (
                "this command needs 'rclpy': source /opt/ros/DISTRIBUTION/setup.bash, or where no "
                "ROS is installed: pip install 'kdc_ros[ros-wheels]'"
            )
        if name in EXTRAS:
            return f"this command needs '{name}': pip install 'kdc_ros[{EXTRAS[name]}]'"
    return opencv.explain(error)
