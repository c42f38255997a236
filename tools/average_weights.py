#!/usr/bin/env python3
"""Average the weights of a trained model and of the one it was trained on from.

Between the two lie models that are more precise on new images than either (Wortsman et al.,
"Robust fine-tuning of zero-shot models", 2022): a long run overfits its training images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import script
import typer

from kdc_core.errors import KdcError
from kdc_core.network.weights import load_model, save_model


def main(
    model: Annotated[Path, typer.Argument(help="Model file at the end of training.")],
    start: Annotated[Path, typer.Argument(help="Model file it started from, of its structure.")],
    output: Annotated[Path, typer.Argument(help="Model file to write.")],
    weight: Annotated[float, typer.Option(min=0, max=1, help="Of the start.")] = 0.4,
) -> None:
    """Write the average, with the settings of the trained model."""
    network, provenance = load_model(model)
    before = load_model(start)[0].state_dict()
    after = network.state_dict()
    shapes, others = ({n: v.shape for n, v in state.items()} for state in (after, before))
    if shapes != others:
        raise KdcError(
            f"'{start}' and '{model}' have networks of other structure: give the model that it "
            "was trained on from"
        )
    for name, values in after.items():
        if values.is_floating_point():
            values.lerp_(before[name], weight)
    save_model(network, output, {**provenance, "averaged_with": {start.name: weight}})
    print(f"wrote '{output}': {1 - weight:.2f} of '{model}' and {weight:.2f} of '{start}'")


if __name__ == "__main__":
    script.run(main)
