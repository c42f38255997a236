"""Where data sets keep their annotations and images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotationError, Annotations
from kdc_core.data.faults import warn_outside
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations

# Layouts of a data set's folder: annotation file, which may end in .gz, too, and where its images
# may be.
LAYOUTS = (
    ("annotations/person_keypoints_{split}2017.json", ("{split}2017", "images/{split}2017")),
    ("ochuman_coco_format_{split}_range_0.00_1.00.json", ("images", ".")),
    ("annotations/ochuman_coco_format_{split}_range_0.00_1.00.json", ("images",)),
    ("crowdpose_{split}.json", ("images", ".")),
    ("json/crowdpose_{split}.json", ("images",)),
    ("annotations/crowdpose_{split}.json", ("images",)),
    # CVAT, whose one subset is called default unless it is named
    ("annotations/person_keypoints_{split}.json", ("images/{split}", "images")),
    ("annotations/person_keypoints_default.json", ("images/default", "images")),
    ("{split}/_annotations.coco.json", ("{split}",)),  # Roboflow
    ("{split}.json", ("{split}", "{split}.tar")),
    ("annotations.json", (".",)),
    ("result.json", (".",)),  # Label Studio and others, which name images as images/NAME
)
# What else tools call a split.
OTHER_NAMES = {"val": ("valid", "validation")}


def find_data(path: str | Path, split: str, images: str | Path | None = None) -> tuple[Path, Path]:
    """Find a data set's annotations and images.

    Args:
        path: folder of COCO 2017, OCHuman or CrowdPose as published, or as CVAT, Roboflow or Label
            Studio export it; a folder of images with `annotations.json`; a folder with
            `{split}.json` and a folder or tar of the same name; or such an annotation file itself.
        split: `train`, `val` or `test`, where a folder has several.
        images: folder or tar of the images; None = where the layout has them.

    Returns:
        Annotation file, folder or tar of the images.

    Raises:
        AnnotationError: nothing of the kind is there; says what was looked for.
    """
    path = Path(path)
    if path.is_dir():
        annotations, places = _find_layout(path, split)
    elif path.exists():
        annotations, stem = path, path.name.removesuffix(".gz").removesuffix(".json")
        places = [path.with_name(stem), path.with_name(f"{stem}.tar")]
    else:
        raise AnnotationError(f"'{path}' does not exist: expected a data set's folder or file")
    if images is not None:
        return annotations, Path(images)
    for place in places:
        if place.exists():
            return annotations, place
    expected = " or ".join(f"'{place}'" for place in places)
    raise AnnotationError(
        f"no images for '{annotations}': expected {expected}; where a command has --images (of "
        "--val, --val-images), that names another folder or tar"
    )


def _find_layout(folder: Path, split: str) -> tuple[Path, list[Path]]:
    """Annotation file of a folder, and where its images may be."""
    for layout, places in LAYOUTS:
        for name in (split, *OTHER_NAMES.get(split, ())):
            plain = folder / layout.format(split=name)
            for file in (plain, plain.with_name(f"{plain.name}.gz")):
                if file.is_file():
                    return file, [folder / place.format(split=name) for place in places]
    wanted = ", ".join(layout.format(split=split) for layout, _ in LAYOUTS)
    raise AnnotationError(
        f"no annotations in '{folder}': expected one of {wanted}, or .gz; or name the annotation "
        "file itself"
    )


def open_data(
    path: str | Path,
    split: str,
    skeleton: Skeleton,
    subset: str = "all",
    images: str | Path | None = None,
    category: str | None = None,
) -> tuple[Annotations, Images]:
    """Open a data set for training.

    Args:
        path, split, images: as for `find_data`.
        skeleton: the keypoints its persons must have.
        subset: `all`, or `coco_persons` (`keypoint_persons`).
        category: as for `read_annotations`.

    Raises:
        AnnotationError, ImageError: one of the two is missing or unusable.
    """
    file, folder = find_data(path, split, images)
    annotations = read_annotations(file, skeleton, category)
    warn_outside(annotations)
    if subset == "coco_persons":
        annotations = keypoint_persons(annotations)
    return annotations, Images(folder)


def keypoint_persons(annotations: Annotations) -> Annotations:
    """Keep images with labelled persons, and treat all other persons with a mask as crowd.

    The COCOPersons subset of Pose2Seg and of the paper: persons with keypoints and a mask.
    """
    kept = []
    for image in annotations.images:
        if any(person.labelled.any() for person in image.people):
            # A crowd region without a mask would be background, where a person of unknown
            # keypoints takes no loss in its box.
            persons = tuple(
                replace(p, crowd=True) if p.segmentation and not p.labelled.any() else p
                for p in image.annotations
            )
            kept.append(replace(image, annotations=persons))
    return replace(annotations, images=tuple(kept))
