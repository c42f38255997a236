"""Sizes of image files by their headers, and whether they are those annotated."""

from __future__ import annotations

from kdc_core.data.annotations import AnnotationError, Annotations
from kdc_core.data.encoded import Size, stored_size
from kdc_core.data.faults import Fault, listed
from kdc_core.data.images import ImageError, Images, decode_image
from kdc_core.data.orientation import TURNS, read_orientation


def check_sizes(annotations: Annotations, images: Images) -> None:
    """Refuse images of another size than annotated; those that cannot be read are passed over.

    Raises:
        AnnotationError: lists them, 20 at most, with the size annotated, stored and shown.
    """
    faults = []
    for annotated in annotations.images:
        name = annotated.file_name
        try:
            data = images.read_bytes(name)
            size = read_size(data, name)
        except ImageError:
            continue
        if size != annotated.size:
            faults.append(Fault("other_size", size_told(annotated.size, size, data), name))
    if faults:
        title = f"'{annotations.path}' is not of the images in '{images.path}'"
        raise AnnotationError("\n".join([title, *listed(faults)]))


def read_size(data: bytes, name: str) -> Size:
    """(height, width) of an encoded image as it is shown; other than jpeg and png are decoded.

    Raises:
        ImageError: it cannot be read as an image.
    """
    stored = stored_size(data)
    if stored is None:
        height, width = decode_image(data, name).shape[:2]
        return height, width
    return _turned(stored, read_orientation(data))


def size_told(annotated: Size, shown: Size, data: bytes) -> str:
    """What is wrong where an image is shown in another (height, width) than annotated, and what
    to do."""
    orientation = read_orientation(data)
    sizes = [
        f"{width}x{height}" for height, width in (annotated, _turned(shown, orientation), shown)
    ]
    text = "annotated as {}, stored as {}, shown as {}".format(*sizes)
    if orientation == 1:
        return f"{text}: give the images that were annotated, or annotate these"
    return (
        f"{text} for EXIF orientation {orientation}: annotate it as it is shown, or store it "
        "upright without that"
    )


def _turned(size: Size, orientation: int) -> Size:
    return (size[1], size[0]) if TURNS[orientation][0] else size
