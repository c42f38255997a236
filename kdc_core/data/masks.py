"""Masks as COCO writes them: polygons and RLE, checked before native code sees them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from math import isfinite
from typing import TypeAlias, TypedDict

import numpy as np
from pycocotools import mask as rle_tools

from kdc_core.data.annotations import AnnotationError

# pycocotools' memory grows with the length of an outline, whatever the size of the image.
LONGEST_OUTLINE_PX = 1_000_000
# Letters of one number of a compressed RLE, of 5 bits each; pycocotools counts in 32.
LONGEST_NUMBER = 6


class Rle(TypedDict):
    """A compressed RLE: `size` is [height, width], `counts` what pycocotools writes."""

    size: Sequence[int]
    counts: str | bytes


# Polygons, each of at least three points as x0, y0, x1, y1 ... in pixels from the corner of the
# image; or an RLE of the image's size.
Segmentation: TypeAlias = "Sequence[np.ndarray] | Rle"


class OtherSizeError(AnnotationError):
    """A mask of another size than its image."""


def read_mask(
    given: object, size: tuple[int, int], note: Callable[[str], None]
) -> Segmentation | None:
    """Read the `segmentation` of an annotation.

    pycocotools hangs, crashes or takes all memory where runs do not add up to the image, or
    coordinates are no numbers or lie far away.

    Args:
        given: of the file.
        size: (height, width) of the image.
        note: takes kinds of `entries.NOTES`: what is read otherwise than it is written.

    Returns:
        None where it names no pixels.

    Raises:
        OtherSizeError: an RLE of another size.
        AnnotationError: neither polygons in or near the image nor a whole RLE.
    """
    if not given:
        return None
    if isinstance(given, dict):
        return _read_rle(given, size)
    if not isinstance(given, list):
        raise AnnotationError(f"expected polygons or an RLE, got {given!r:.60}")
    if (plain := _plain_polygons(given, size)) is not None:
        return plain
    polygons = [_read_polygon(polygon, note) for polygon in given]
    kept = [polygon for polygon in polygons if len(polygon) >= 6]
    if len(kept) < len(polygons):
        note("polygons")
    _check_place(kept, size)
    return kept or None


def _plain_polygons(given: list[object], size: tuple[int, int]) -> list[np.ndarray] | None:
    """Polygons with which nothing can be wrong, as nearly all are; else None: look closer."""
    side, numbers, polygons = min(size), 0, []
    for polygon in given:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        try:
            polygons.append(np.frombuffer(array("d", polygon)))
        except (TypeError, OverflowError):
            return None
        # With a NaN the sum is none either.
        if not (isfinite(sum(polygon)) and min(polygon) >= -side and max(polygon) <= 2 * side):
            return None
        numbers += len(polygon)
    # From one point to the next it is at most three sides along x, and along y.
    return polygons if numbers * 3 * side <= LONGEST_OUTLINE_PX else None


def _read_polygon(given: object, note: Callable[[str], None]) -> np.ndarray:
    """(2 n,) float64 x, y of a polygon, wherever it lies."""
    if not isinstance(given, list):
        raise AnnotationError(
            f"expected polygons, each a list of numbers, got {given!r:.60} in place of one"
        )
    if given and all(isinstance(point, list) for point in given):
        note("nested")
        given = [number for point in given for number in point]
    try:
        numbers = np.asarray(given)
        if numbers.dtype.kind == "U":
            note("numbers")
        elif numbers.dtype.kind not in "fiu":
            raise TypeError("it holds something else")
        if numbers.ndim > 1:
            raise TypeError("its lists are too deep")
        numbers = numbers.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(f"a polygon is no list of numbers: {error}") from error
    if len(numbers) % 2:
        raise AnnotationError(
            f"expected an x and a y for each point of a polygon, got {len(numbers)} numbers"
        )
    return numbers


def _check_place(polygons: list[np.ndarray], size: tuple[int, int]) -> None:
    """Refuse polygons with a point further outside the image than it is wide or high."""
    sides, outline = np.array(size[::-1], np.float64), 0.0
    for polygon in polygons:
        corners = polygon.reshape(-1, 2)
        near = ((corners >= -sides) & (corners <= 2 * sides)).all(1)  # of NaN it is not
        if not near.all():
            x, y = corners[near.argmin()]
            raise AnnotationError(
                f"a polygon has a point at ({x:g}, {y:g}): expected finite coordinates, at most "
                f"one side outside an image of {size[1]}x{size[0]}"
            )
        outline += np.abs(np.diff(corners, axis=0, append=corners[:1])).sum()
    if outline > LONGEST_OUTLINE_PX:
        raise AnnotationError(
            f"its outline is {outline:.0f} pixels long: expected {LONGEST_OUTLINE_PX} at most"
        )


def _read_rle(given: dict[object, object], size: tuple[int, int]) -> Rle | None:
    """An RLE, compressed or not, as a compressed one."""
    counts, pixels = given.get("counts"), size[0] * size[1]
    if _numbers(given.get("size")) != list(size):
        raise OtherSizeError(
            f"RLE of height and width {given.get('size')!r:.60}, expected those of the image, "
            f"{list(size)}"
        )
    if isinstance(counts, str):
        runs = _runs(counts)
    else:
        runs = np.array(_numbers(counts) or [-1], np.float64)
    if (runs < 0).any():
        raise AnnotationError(
            f"an RLE's counts are whole numbers from 0 or pycocotools' text, got {counts!r:.60}"
        )
    if runs.sum() != pixels:
        raise AnnotationError(
            f"RLE of {runs.sum():.0f} pixels, expected the {pixels} of the image: it was cut, or "
            "is of another"
        )
    if not runs[1::2].any():
        return None
    if isinstance(counts, str):
        return Rle(size=list(size), counts=counts)
    plain = {"size": list(size), "counts": runs.astype(int).tolist()}
    compressed: Rle = rle_tools.frPyObjects(plain, *size)
    return compressed


def _numbers(given: object) -> list[int] | None:
    """A list of whole numbers, also of ones written as text; else None."""
    try:
        return [int(number) for number in given] if isinstance(given, list) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _runs(counts: str) -> np.ndarray:
    """Lengths of the runs of a compressed RLE, float64; a -1 among them if it is none.

    Its letters have 5 bits of a number each, the lowest first, a sixth that says whether more
    follow, and the sign in the highest of the last. From the fourth on, numbers are added to the
    last but one.
    """
    none = np.array([-1.0])
    if counts[:2] in ("b'", 'b"'):
        raise AnnotationError(
            f"an RLE's counts are bytes printed as text, {counts[:20]!r}: write "
            "`counts.decode()` instead of `str(counts)`"
        )
    try:
        letters = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return none
    ends = np.flatnonzero(letters & 32 == 0)
    if not len(ends) or ends[-1] != len(letters) - 1 or letters.min() < 0 or letters.max() > 63:
        return none
    starts = np.r_[0, ends[:-1] + 1]
    lengths = ends - starts + 1
    if lengths.max() > LONGEST_NUMBER:
        return none
    shifts = 5 * (np.arange(len(letters)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((letters & 31) << shifts, starts)
    runs -= (letters[ends] & 16 > 0) * (1 << 5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs.astype(np.float64)


def decode_mask(segmentation: Segmentation, size: tuple[int, int]) -> np.ndarray:
    """Rasterize a mask of `read_mask` to (H, W) bool, arguments as for `as_rle`."""
    mask: np.ndarray = rle_tools.decode(as_rle(segmentation, size)).astype(bool)
    return mask


def as_rle(segmentation: Segmentation, size: tuple[int, int]) -> Rle:
    """A mask of `read_mask` as a compressed RLE.

    Args:
        segmentation: polygons or an RLE; no polygons are an empty mask.
        size: (height, width) of the image.
    """
    if isinstance(segmentation, dict):
        return segmentation
    empty = {"size": list(size), "counts": [size[0] * size[1]]}
    polygons = list(segmentation)
    parts = rle_tools.frPyObjects(polygons or empty, *size)
    merged: Rle = rle_tools.merge(parts) if polygons else parts
    return merged


def mask_box(segmentation: Segmentation | None, size: tuple[int, int]) -> np.ndarray | None:
    """x0, y0, x1, y1 of a mask of `read_mask`, size as for `as_rle`; None without a pixel."""
    if segmentation is None:
        return None
    left, top, width, height = rle_tools.toBbox(as_rle(segmentation, size))
    return np.array([left, top, left + width, top + height]) if width and height else None


def mask_area(segmentation: Segmentation | None, size: tuple[int, int]) -> float:
    """Pixels of a mask of `read_mask`, size as for `as_rle`; 0 where there is none."""
    return 0.0 if segmentation is None else float(rle_tools.area(as_rle(segmentation, size)))
