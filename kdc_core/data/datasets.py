"""Where data sets keep their annotations and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdc_core.data.coco import AnnotatedPicture, AnnotationError, read_coco
from kdc_core.data.faults import tell_outside
from kdc_core.data.pictures import Pictures
from kdc_core.skeleton import Skeleton

# Layout of a data set's folder: annotation file, which may end in .gz, too, and where its pictures
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
    """Find a data set's annotations and pictures.

    Args:
        path: folder of COCO 2017, OCHuman or CrowdPose as published, a folder of pictures with
            `annotations.json`, a folder with `{split}.json` and a folder or tar of the same name,
            or such an annotation file itself.
        split: `train`, `val` or `test`, where a folder has several.

    Returns:
        Annotation file, folder or tar of the pictures.

    Raises:
        AnnotationError: nothing of the kind is there; says what was looked for.
    """
    path = Path(path)
    if path.is_dir():
        for layout, places in LAYOUTS:
            plain = path / layout.format(split=split)
            for annotations in (plain, plain.with_name(f"{plain.name}.gz")):
                if annotations.is_file():
                    return annotations, _pictures_of(annotations, [
                        path / place.format(split=split) for place in places
                    ])  # fmt: skip
        wanted = ", ".join(layout.format(split=split) for layout, _ in LAYOUTS) + ", or .gz"
        raise AnnotationError(f"no annotations in '{path}': expected one of {wanted}")
    if not path.exists():
        raise AnnotationError(f"'{path}' does not exist: expected a data set's folder or file")
    stem = path.name.removesuffix(".gz").removesuffix(".json")
    return path, _pictures_of(path, [path.with_name(stem), path.with_name(f"{stem}.tar")])


def _pictures_of(annotations: Path, places: list[Path]) -> Path:
    for pictures in places:
        if pictures.exists():
            return pictures
    expected = " or ".join(f"'{place}'" for place in places)
    raise AnnotationError(f"no pictures for '{annotations}': expected {expected}")


def open_data(
    path: str | Path, split: str, skeleton: Skeleton, subset: str = "all"
) -> tuple[list[AnnotatedPicture], Pictures]:
    """Open a data set for training.

    Args:
        path, split: as for `find_data`.
        skeleton: the keypoints its persons must have.
        subset: `all`, or `coco_persons` (`keypoint_persons`).

    Raises:
        AnnotationError, PictureError: one of the two is missing or unusable, or no person of the
            whole set has keypoints.
    """
    annotations, images = find_data(path, split)
    pictures = read_coco(annotations, skeleton.num_keypoints)
    if not any((p.keypoints[:, 2] > 0).any() for picture in pictures for p in picture.persons):
        raise AnnotationError(
            f"'{annotations}' has no person with keypoints: expected a keypoint file such as "
            "person_keypoints_train2017.json, not one of boxes or instances alone"
        )
    tell_outside(annotations, pictures)
    if subset == "coco_persons":
        pictures = keypoint_persons(pictures)
    return pictures, Pictures(images)


def keypoint_persons(pictures: list[AnnotatedPicture]) -> list[AnnotatedPicture]:
    """Keep pictures with labelled persons, and treat all other persons with a mask as crowd.

    The COCOPersons subset of Pose2Seg and of the paper: persons with keypoints and a mask.
    """
    kept = []
    for picture in pictures:
        labelled = [bool((p.keypoints[:, 2] > 0).any()) for p in picture.persons]
        if any(labelled):
            # A crowd region without a mask would be background, where a person of unknown
            # keypoints takes no loss in its box.
            persons = tuple(
                p if has or not p.segmentation else replace(p, crowd=True)
                for p, has in zip(picture.persons, labelled, strict=True)
            )
            kept.append(replace(picture, persons=persons))
    return kept
