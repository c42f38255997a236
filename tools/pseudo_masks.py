#!/usr/bin/env python3
"""Masks for people who have keypoints and a box alone: a model's own, where they fill the box.

    tools/pseudo_masks.py MODEL DATA OUTPUT [--scales 704,512,352]

The model is given the annotated keypoints, and sees each image at several scales and mirrored, so
its masks are better than those it gives in one pass: a model that learns from them gains. The box
is true: a mask whose own box differs from it is left out, and that person stays without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import script
import torch
import typer
from pycocotools import mask as rle_tools

from kdc_core.codec.results import Person
from kdc_core.codec.skeleton import COCO17
from kdc_core.data.datasets import find_data
from kdc_core.data.images import Images, decode_image
from kdc_core.data.reading import read, read_entries, used
from kdc_core.evaluation.flicker import box_iou
from kdc_core.evaluation.testtime import AugmentedPredictor
from kdc_core.files import write_json

SAME_PX = 2.0  # a person that was given lies no farther from its annotation than this


def main(
    model: Annotated[Path, typer.Argument(help="safetensors file of ours.")],
    data: Annotated[str, typer.Argument(help="Data set, as for `kdc train --data`.")],
    output: Annotated[Path, typer.Argument(help="Annotations; the images are linked beside.")],
    scales: Annotated[str, typer.Option(help="Longer sides, pooled.")] = "704,512,352",
    least_iou: Annotated[float, typer.Option(help="Of the mask's box and the annotated.")] = 0.75,
) -> None:
    """Write DATA with masks for those of its people who have keypoints and none."""
    torch.set_num_threads(1)
    file, where = find_data(data, "train")
    script.check_data_set(output, where, file)
    whole, reading, images = read_entries(file), read(file, COCO17), Images(where)
    annotations, places = used(reading), reading.places
    find = AugmentedPredictor(
        model, [int(side) for side in scales.split(",")], flip=True, given=True
    )
    asked = kept = 0
    for annotated in annotations.images:
        lacking = [p for p in annotated.people if p.segmentation is None and p.labelled.any()]
        if not lacking:
            continue
        asked += len(lacking)
        name = annotated.file_name
        found = find(decode_image(images.read_bytes(name), name), annotated).persons
        for person in lacking:
            known = person.keypoints[person.labelled]
            for other in found:
                if _same(other, known, person.labelled) and _fills(other, person.box, least_iou):
                    mask = other.full_mask(annotated.size)
                    entry = whole["annotations"][places[person.id][0]]
                    entry |= {"segmentation": _rle(mask), "area": int(mask.sum())}
                    kept += 1
                    break
    write_json(output, whole)
    script.link_images(output, where)
    print(f"{output}: {kept} of {asked} people got a mask")


def _same(found: Person, known: np.ndarray, labelled: np.ndarray) -> bool:
    return float(np.abs(found.keypoints[labelled, :2] - known[:, :2]).max()) < SAME_PX


def _fills(found: Person, box: np.ndarray, least: float) -> bool:
    return found.area > 0 and float(box_iou(found.box[None], box[None])[0, 0]) >= least


def _rle(mask: np.ndarray) -> dict[str, Any]:
    rle = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


if __name__ == "__main__":
    script.run(main)
