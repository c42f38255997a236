"""`kdc export`: write the program of a model as ONNX."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer import Argument, Option

from kdc_core.commands.models import by_predictor, weights_of
from kdc_core.commands.options import Category, choice
from kdc_core.commands.outputs import check_outputs, check_suffix
from kdc_core.commands.printing import end_with
from kdc_core.errors import KdcError, Work
from kdc_core.evaluation.figures import KEYPOINT_AP, MASK_AP

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from kdc_core.inference.manifest import Precision

PRECISIONS = ("fp32", "fp16", "int8-trt", "int8-cpu")


def export(
    model: Annotated[str, Argument(help="Shipped model or .safetensors file.")],
    output: Annotated[Path, Option(help="The .onnx file to write.")],
    preset: Annotated[
        str | None,
        Option(
            help="Take decode and predict settings from this preset, and write the "
            "model with them beside the ONNX file."
        ),
    ] = None,
    precision: Annotated[
        str, choice(*PRECISIONS, help=f"Of the network: {', '.join(PRECISIONS)}.")
    ] = "fp32",
    calibrate: Annotated[
        str | None, Option(help="Data set of training images, for int8; as for kdc train --data.")
    ] = None,
    category: Category = None,
    size: Annotated[
        str | None, Option(help="HEIGHTxWIDTH of the only frame it takes; default: any.")
    ] = None,
) -> None:
    """Export preprocessing, network and decode as one ONNX file, and check it on sample images."""
    check_outputs([output, preset and output.with_suffix(".safetensors")], inputs=[model])
    check_suffix(output, ".onnx")
    from kdc_core.inference.compare import Difference

    int8 = precision.startswith("int8")
    if int8 != (calibrate is not None):
        raise KdcError(
            "--calibrate and --precision int8-... go together: int8 needs training images to see "
            "what values the network has, and nothing else needs them"
        )
    from kdc_core.inference.check import check_program
    from kdc_core.inference.engine.shapes import parse_size
    from kdc_core.inference.export import change_precision, export_onnx
    from kdc_core.inference.manifest import read_manifest
    from kdc_core.inference.quantize import training_frames

    weights = weights_of(model) if preset is None else _with_preset(model, preset, output)
    frame = None if size is None else parse_size(size)
    with TemporaryDirectory() as folder:
        original = Path(folder) / "fp32.onnx"
        if precision == "fp32":
            export_onnx(weights, output, frame)
            original = weights
        else:
            export_onnx(weights, original, frame)
            frames: Iterable[np.ndarray] = ()
            if calibrate is not None:
                frames = training_frames(
                    calibrate, read_manifest(original).config, frame, category=category
                )
            change_precision(original, output, cast("Precision", precision), frames)
        Work.begun = True
        typer.echo(f"wrote '{output}', {output.stat().st_size / 1e6:.1f} MB")
        worst = Difference()
        for name, difference in check_program(output, original):
            typer.echo(f"{name}: {difference}")
            worst |= difference
        typer.echo(f"all, beside {'torch' if original == weights else 'fp32'}: {worst}")
        if not worst.people:
            typer.echo("nobody is found in the sample images: nothing was compared", err=True)
        if calibrate is not None:
            _measure_loss(calibrate, original, output, category)


def _with_preset(model: str, preset: str, output: Path) -> Path:
    """The model with the settings of a preset, written beside the output."""
    from kdc_core.config_file import load_preset
    from kdc_core.network.backbones import check_structure
    from kdc_core.network.weights import load_model, save_model

    path = weights_of(model)
    network, provenance = load_model(path)
    chosen = load_preset(preset)
    network.config = network.config.model_copy(
        update={"decode": chosen.decode, "predict": chosen.predict}
    )
    check_structure(network.config)
    target = output.with_suffix(".safetensors")
    if os.path.realpath(target) == os.path.realpath(path):
        raise KdcError(
            f"with --preset the model is written beside the ONNX file, which would overwrite "
            f"'{path}': give another --output"
        )
    save_model(network, target, provenance)
    return target


def _measure_loss(data: str, original: Path, program: Path, category: str | None = None) -> None:
    """Write into the program what AP it loses on the validation images, if there are any."""
    from kdc_core.data.annotations import AnnotationError
    from kdc_core.data.datasets import find_data
    from kdc_core.data.images import Images
    from kdc_core.inference.export import write_ap_loss

    training, _ = find_data(data, "train")
    try:
        annotations, folder = find_data(data, "val")
    except AnnotationError:
        annotations = training
    if annotations == training:
        typer.echo(f"'{data}' has no validation images: what AP it loses is not measured")
        return
    images = Images(folder)
    figures = []
    for path in (original, program):
        evaluated = by_predictor(str(path), images, "onnxruntime")
        done = evaluated.evaluate(annotations, path.stem, category=category)
        if done.failed:
            typer.echo("what AP it loses is not measured without these images", err=True)
            end_with(done.failed)
        figures.append(done.figures)
    before, after = figures
    losses = []
    for name, figure in (("keypoint", KEYPOINT_AP), ("mask", MASK_AP)):
        one, other = before.get(figure, -1.0), after.get(figure, -1.0)
        if one >= 0:  # else nobody there has any
            losses.append(one - other)
            typer.echo(f"{name} AP on '{annotations}': {one:.3f} -> {other:.3f}")
    if losses:
        write_ap_loss(program, round(max(losses), 4))
    else:
        typer.echo(f"'{annotations}' has nobody to score: what AP it loses is not measured")
