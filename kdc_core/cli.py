"""The `kdc` command."""

from __future__ import annotations

import sys

import typer

from kdc_core.commands import (
    ablate,
    bench,
    data,
    doctor,
    evaluate,
    export,
    flicker,
    paper,
    predict,
    train,
)
from kdc_core.errors import KdcError

app = typer.Typer(
    help="People in pictures: 17 keypoints and one mask each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("flicker")(flicker.flicker)
app.command("ablate")(ablate.ablate)
app.add_typer(paper.app, name="paper", help="The paper's tables and figures, ours beside.")
app.command("train")(train.train)
app.command("export")(export.export)
app.add_typer(data.app, name="data", help="Look at a data set.")
app.add_typer(bench.app, name="bench", help="Measure speed on this machine.")
app.command("doctor")(doctor.doctor)


# Options that take several values: `--data A B` is `--data A --data B`. Only of commands whose
# positional arguments come first.
SEVERAL = {"train": ("--data", "--set"), "paper": ("--model",)}


def spread(arguments: list[str]) -> list[str]:
    """Repeat an option of SEVERAL before each of its values."""
    if len(arguments) < 2 or arguments[1].startswith("-"):
        return arguments
    several = SEVERAL.get(arguments[0], ())
    result: list[str] = []
    option, values = "", 0
    for argument in arguments:
        if argument.startswith("--"):
            option, values = argument if argument in several else "", 0
        elif option:
            values += 1
            if values > 1:
                result.append(option)
        result.append(argument)
    return result


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 done but some input failed, 2 could not be done."""
    try:
        app(spread(sys.argv[1:]))
    except (KdcError, OSError) as error:  # the latter: a full disk, a folder that is a file
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = {
            "torch": "train",
            "lightning": "train",
            "onnx": "train",
            "matplotlib": "train",
            "tensorboard": "train",
            "pycocotools": "eval",
            "ray": "ray",
            "pyarrow": "ray",
            "rclpy": "ros-wheels",
        }.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(
            f"error: this command needs '{error.name}': pip install 'kdc_ros[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
