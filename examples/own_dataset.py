"""From a folder of images to a model of one's own: annotate, check, train, predict.

python examples/own_dataset.py IMAGES OUTPUT

The first call drafts annotations with the shipped model, so that only its mistakes are left to
correct, and draws them into OUTPUT/sheet.jpg. Load OUTPUT/data/annotations.json into an
annotation tool that reads COCO keypoints, correct it and save it back. The second call trains on
it. Needs `pip install '.[train]'`.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as rle_tools

from kdc_core import Person, Predictor
from kdc_core.codec.skeleton import COCO17
from kdc_core.config_file import load_preset
from kdc_core.data.images import Images
from kdc_core.datacheck.check import check_data
from kdc_core.datacheck.sheet import write_sheet
from kdc_core.inference.model_files import find_model
from kdc_core.training.run import train


def draft(images: Path, data: Path) -> None:
    """Copy a folder's images into a data set, with the shipped model's people as annotations.

    Args:
        images: folder of .jpg files.
        data: folder to write; annotations.json in COCO's format, and the images beside it.
    """
    predictor, source = Predictor.from_pretrained("kdc_light"), Images(images)
    listed: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    data.mkdir(parents=True, exist_ok=True)
    for image_id, path in enumerate(sorted(images.glob("*.jpg")), start=1):
        prediction = predictor(source.read(path.name))
        height, width = prediction.size
        listed.append({"id": image_id, "file_name": path.name, "height": height, "width": width})
        for person in prediction.persons:
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1}
            drafted = annotate(person, prediction.size, predictor.thresholds.keypoint)
            annotations.append({**ids, **drafted})
        shutil.copy(path, data)
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}
    content = {"images": listed, "annotations": annotations, "categories": [category]}
    (data / "annotations.json").write_text(json.dumps(content))


def annotate(person: Person, size: tuple[int, int], threshold: float) -> dict[str, object]:
    """What COCO says of a person: keypoints, box and mask.

    Args:
        person: of a prediction.
        size: (height, width) of the image.
        threshold: keypoints with a lower score are not labelled.
    """
    # x, y and v of each keypoint, in the skeleton's order. v: 2 visible, 1 hidden, 0 not labelled.
    x, y, score = person.keypoints.T
    inside = (x >= 0) & (y >= 0) & (x <= size[1] - 1) & (y <= size[0] - 1)
    labelled = inside & (score >= threshold)
    keypoints = np.where(labelled, (x, y, np.full_like(x, 2)), 0).T
    # COCO's pixels begin at whole numbers, ours half a pixel before.
    left, top, right, bottom = (float(side) + 0.5 for side in person.box)
    rle = rle_tools.encode(np.asfortranarray(person.full_mask(size), np.uint8))
    return {
        "keypoints": np.round(keypoints, 1).ravel().tolist(),
        "num_keypoints": int(labelled.sum()),
        "bbox": [left, top, right - left, bottom - top],
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
        "area": person.area,
        "iscrowd": 0,  # 1 for a region of people that nobody wants to annotate one by one
    }


def check(data: Path, sheet: Path) -> None:
    """Read the whole data set, draw a sheet of it, and stop where something is wrong."""
    found = check_data(data, "train", COCO17, lambda images, total: images)
    print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.counts.items()))
    write_sheet(sheet, found, COCO17, samples=24)
    if found.faults:
        sys.exit("\n".join(str(fault) for fault in found.faults))


def learn(data: Path, run: Path, settings: Sequence[str]) -> Path:
    """Train SegNet on from the shipped weights; a run that was stopped goes on.

    Args:
        data: folder of the data set.
        run: folder of the run.
        settings: changes to the preset, `section.key=value` each.

    Returns:
        The model's file.
    """
    config = load_preset("kdc_light", ["train.rate=5e-4", *settings])
    start = find_model("kdc_light", (".safetensors",))
    return train(config, [str(data)], run, start=str(start))


def main(images: Path, output: Path, settings: Sequence[str]) -> None:
    """Do the next step: draft annotations, or train on those there are."""
    data, sheet = output / "data", output / "sheet.jpg"
    if not (data / "annotations.json").exists():
        draft(images, data)
        check(data, sheet)
        print(f"look at '{sheet}', correct '{data / 'annotations.json'}', and call again")
        return
    check(data, sheet)
    model = learn(data, output / "run", settings)
    predictor, source = Predictor.from_pretrained(str(model)), Images(data)
    for path in sorted(data.glob("*.jpg")):
        print(f"{path.name}: {len(predictor(source.read(path.name)))} people")
    print(f"for a robot: kdc export {model} --output mine.onnx")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of .jpg files")
    parser.add_argument("output", type=Path, help="folder of the data set, the run and the sheet")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="e.g. train.steps=1000"
    )
    given = parser.parse_args()
    main(given.images, given.output, given.set)
