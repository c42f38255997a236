"""The `kdc` command."""

from __future__ import annotations

import sys

import typer

from kdc_core.commands import ablate, bench, doctor, evaluate, export, paper, predict, train
from kdc_core.errors import KdcError

app = typer.Typer(
    help="People in pictures: 17 keypoints and one mask each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("ablate")(ablate.ablate)
app.add_typer(paper.app, name="paper", help="The paper's tables and figures, ours beside.")
app.command("train")(train.train)
app.command("export")(export.export)
app.add_typer(bench.app, name="bench", help="Measure speed on this machine.")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 done but some input failed, 2 could not be done."""
    try:
        app()
    except KdcError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = {"torch": "train", "lightning": "train", "onnx": "train", "matplotlib": "train",
                 "tensorboard": "train", "pycocotools": "eval", "ray": "ray", "pyarrow": "ray",
                 "rclpy": "ros-wheels"}.get((error.name or "").split(".")[0])  # fmt: skip
        if extra is None:
            raise
        print(
            f"error: this command needs '{error.name}': pip install 'kdc_ros[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
