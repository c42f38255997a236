"""`kdc export`: write the program of a model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from kdc_core.commands.models import weights_of
from kdc_core.errors import KdcError


def export(
    model: Annotated[str, Argument(help="Model file (.safetensors).")],
    output: Annotated[Path, Option(help="The .onnx file to write.")],
    preset: Annotated[
        str | None,
        Option(
            help="Take decode and predict settings from this preset, and write the "
            "model with them beside the ONNX file."
        ),
    ] = None,
) -> None:
    """Export preprocessing, network and decode as one ONNX file."""
    from kdc_core.config import load_preset
    from kdc_core.inference.export import export_onnx
    from kdc_core.network.backbones import check_structure
    from kdc_core.network.weights import load_model, save_model

    path = weights_of(model)
    if preset is not None:
        network, provenance = load_model(path)
        chosen = load_preset(preset)
        network.config = network.config.model_copy(
            update={"decode": chosen.decode, "predict": chosen.predict}
        )
        check_structure(network.config)
        target = output.with_suffix(".safetensors")
        if target.resolve() == path.resolve():
            raise KdcError(
                f"with --preset the model is written beside the ONNX file, which would overwrite "
                f"'{path}': give another --output"
            )
        path = target
        save_model(network, path, provenance)
    export_onnx(path, output)
    typer.echo(f"wrote '{output}', {output.stat().st_size / 1e6:.1f} MB")
