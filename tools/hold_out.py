#!/usr/bin/env python3
"""Split a data set in two: `train` to learn from and `held` to choose settings by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import script
import typer

from kdc_core.data.datasets import find_data
from kdc_core.data.entries import as_id
from kdc_core.data.reading import read_entries
from kdc_core.files import write_json


def main(
    data: Annotated[str, typer.Argument(help="Data set, as for `kdc train --data`.")],
    every: Annotated[int, typer.Argument(min=2, help="Each n-th image is held out.")],
    output: Annotated[Path, typer.Argument(help="Folder.")],
) -> None:
    """Write the annotations of both parts, `train` and `held`, the images linked beside them."""
    file, images = find_data(data, "train")
    whole = read_entries(file)
    output.mkdir(parents=True, exist_ok=True)
    held = {as_id(image.get("id")) for image in whole["images"][::every]}
    parts = {output / f"{name}.json": name == "held" for name in ("train", "held")}
    for part in parts:
        script.check_data_set(part, images, file)
    for part, wanted in parts.items():
        shown = [i for i in whole["images"] if (as_id(i.get("id")) in held) is wanted]
        persons = [a for a in whole["annotations"] if (as_id(a.get("image_id")) in held) is wanted]
        write_json(part, {**whole, "images": shown, "annotations": persons})
        script.link_images(part, images)


if __name__ == "__main__":
    script.run(main)
