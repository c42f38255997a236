#!/usr/bin/env python3
"""Split a data set in two: `train` to learn from and `held` to choose settings by."""

from __future__ import annotations

import sys
from pathlib import Path

from kdc_core.data.annotations import read_json
from kdc_core.data.datasets import find_data
from kdc_core.files import write_json


def main(data: str, every: int, output: str) -> None:
    """Write the annotations of both parts, the pictures linked beside them.

    Args:
        data: data set, as for `kdc train --data`.
        every: each n-th picture is held out.
        output: folder.
    """
    annotations, pictures = find_data(data, "train")
    whole, folder = read_json(annotations), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    held = {image["id"] for image in whole["images"][::every]}
    for name, wanted in (("train", False), ("held", True)):
        images = [i for i in whole["images"] if (i["id"] in held) is wanted]
        persons = [a for a in whole["annotations"] if (a["image_id"] in held) is wanted]
        write_json(folder / f"{name}.json", {**whole, "images": images, "annotations": persons})
        link = folder / f"{name}{pictures.suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(pictures.resolve())


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[2].isdigit():
        sys.exit("usage: hold_out.py DATA EVERY FOLDER")
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
