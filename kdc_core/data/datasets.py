"""Where data sets keep their annotations and images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotationError, Annotations
from kdc_core.data.faults import warn_outside
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations

# Layout of a data set's folder: annotation file, which may end in .gz, too, and where its images
# may be.
LAYOUTS = (
    ("annotations/person_keypoints_{split}2017.json", ("{split}2017", "images/{split}2017")),
    ("ochuman_coco_format_{split}_range_0.00_1.00.json", ("images", ".")),
    ("crowdpose_{split}.json", ("images", ".")),
    ("json/crowdpose_{split}.json", ("images",)),
    ("annotations/crowdpose_{split}.json", ("images",)),
    ("{split}.json", ("{split}", "{split}.tar")),
    ("annotations.json", (".",)),
)


def find_data(path: str | Path, split: str) -> tuple[Path, Path]:
    """Find a data set's annotations and images.

    Args:
        path: folder of COCO 2017, OCHuman or CrowdPose as published, a folder of images with
            `annotations.json`, a folder with `{split}.json` and a folder or tar of the same name,
            or such an annotation file itself.
        split: `train`, `val` or `test`, where a folder has several.

    Returns:
        Annotation file, folder or tar of the images.

    Raises:
        AnnotationError: nothing of the kind is there; says what was looked for.
    """
    path = Path(path)
    if path.is_dir():
        for layout, places in LAYOUTS:
            plain = path / layout.format(split=split)
            for annotations in (plain, plain.with_name(f"{plain.name}.gz")):
                if annotations.is_file():
                    return annotations, _images_of(
                        annotations, [path / place.format(split=split) for place in places]
                    )
        wanted = ", ".join(layout.format(split=split) for layout, _ in LAYOUTS) + ", or .gz"
        raise AnnotationError(f"no annotations in '{path}': expected one of {wanted}")
    if not path.exists():
        raise AnnotationError(f"'{path}' does not exist: expected a data set's folder or file")
    stem = path.name.removesuffix(".gz").removesuffix(".json")
    return path, _images_of(path, [path.with_name(stem), path.with_name(f"{stem}.tar")])


def _images_of(annotations: Path, places: list[Path]) -> Path:
    for images in places:
        if images.exists():
            return images
    expected = " or ".join(f"'{place}'" for place in places)
    raise AnnotationError(f"no images for '{annotations}': expected {expected}")


def open_data(
    path: str | Path, split: str, skeleton: Skeleton, subset: str = "all"
) -> tuple[Annotations, Images]:
    """Open a data set for training.

    Args:
        path, split: as for `find_data`.
        skeleton: the keypoints its persons must have.
        subset: `all`, or `coco_persons` (`keypoint_persons`).

    Raises:
        AnnotationError, ImageError: one of the two is missing or unusable, or no person of the
            whole set has keypoints.
    """
    file, folder = find_data(path, split)
    annotations = read_annotations(file, skeleton)
    if not annotations.has_keypoints:
        raise AnnotationError(
            f"'{file}' has no person with keypoints: expected a keypoint file such as "
            "person_keypoints_train2017.json, not one of boxes or instances alone"
        )
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
        if any(person.labelled.any() for person in image.persons):
            # A crowd region without a mask would be background, where a person of unknown
            # keypoints takes no loss in its box.
            persons = tuple(
                replace(p, crowd=True) if p.segmentation and not p.labelled.any() else p
                for p in image.persons
            )
            kept.append(replace(image, persons=persons))
    return replace(annotations, images=tuple(kept))
