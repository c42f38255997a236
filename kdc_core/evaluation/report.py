"""An HTML page of an evaluation: its figures, and the worst images of each kind of miss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from html import escape
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.data.annotations import AnnotatedImage, AnnotationError, Annotations
from kdc_core.data.images import ImageError, Images, write_image
from kdc_core.data.masks import Segmentation, decode_mask
from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import Result
from kdc_core.evaluation.misses import KINDS, Miss, count_misses, find_misses
from kdc_core.evaluation.paper import rows_of
from kdc_core.files import as_utf8, whole_file
from kdc_core.show.drawing import draw_people

KEYPOINT = 0.2  # predicted keypoints below this score are not drawn
SIDE_PX = 800  # longest side of the annotation and of the prediction
GAP_PX = 8  # between annotation and prediction
JPEG_QUALITY = 85
MARK = (255, 235, 60)  # RGB of the boxes around what is meant

TEXTS = {
    "missed": "An annotated person, and no detection.",
    "jitter": "A detection is near the person, its keypoints not near enough.",
    "swap": "Keypoints are on another person's, or left and right are inverted.",
    "misplaced": "A detection is on the person, its keypoints are mostly elsewhere.",
    "merged_mask": "One detection's mask covers several persons.",
    "poor_mask": "The person is found, the mask does not fit.",
    "false": "A detection of nobody.",
    "duplicate": "A detection of a person who has another one.",
}
GROUPS = {
    "persons": "Persons in the image",
    "overlap": "Largest box IoU of two persons",
    "size": "Area of the person",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Evaluation</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1300px; margin: 2em auto;
padding: 0 1em; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
th, td {{ padding: .2em .8em; border-bottom: 1px solid #8886; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
figure {{ margin: 1.5em 0; }}
img {{ max-width: 100%; height: auto; }}
figcaption {{ opacity: .8; }}
</style></head>
<body><h1>Evaluation</h1>
<p>{images} images; detections with a score from {confidence:g}; protocol: {protocol}.</p>
<h2>Average precision</h2>
{figures}
{breakdown}
<h2>Misses</h2>
{counts}
{shown}
</body></html>
"""
FIGURE = """<figure><a href="{name}"><img src="{name}" alt="{file}, annotated and predicted"
loading="lazy"></a><figcaption>{file}: {count}, cost {cost:.3f}</figcaption></figure>"""


def write_report(
    folder: str | Path,
    annotations: Annotations,
    images: Images,
    results: list[Result],
    confidence: float,
    protocol: str,
    figures: dict[str, float],
    breakdown: dict[str, dict[str, float]],
    worst: int = 24,
) -> None:
    """Write index.html and its images.

    Each image shows the annotation left and the prediction right; boxes mark the misses.

    Args:
        folder: made where it is missing; files of these names are replaced.
        annotations: what is true.
        images: where its images are. One that cannot be read, or has another size than annotated
            or than a mask, is listed.
        results: COCO results.
        confidence: least score of the detections drawn and counted.
        protocol: of the figures.
        figures: average precisions of `kdc_core.evaluation.coco.score`.
        breakdown: `kdc_core.evaluation.breakdown.breakdown`.
        worst: most images of one kind of miss, those with the highest sum of costs.

    Raises:
        KdcError: the folder or a file in it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KdcError(f"cannot make the folder '{folder}': {error.strerror}") from error
    misses = find_misses(annotations, results, confidence)
    artist = _Artist(annotations, images, results, confidence)
    shown, failed = [], {}
    for kind in KINDS:
        by_image: dict[int, list[Miss]] = defaultdict(list)
        for miss in misses:
            if miss.kind == kind:
                by_image[miss.image_id].append(miss)
        entries: list[str] = []
        for image_id in sorted(by_image, key=lambda i: -sum(m.cost for m in by_image[i])):
            if len(entries) == worst:
                break
            name, mine = f"{kind}-{len(entries) + 1:02}.jpg", by_image[image_id]
            try:
                write_image(folder / name, artist.pair(image_id, mine), JPEG_QUALITY)
            except (ImageError, AnnotationError) as error:
                failed[image_id] = str(error)
                continue
            file = escape(as_utf8(artist.images[image_id].file_name))
            cost = sum(miss.cost for miss in mine)
            entries.append(FIGURE.format(name=name, file=file, count=len(mine), cost=cost))
        if by_image:
            count = f"{len(entries)} of {len(by_image)} images; left annotated, right predicted."
            shown += [f"<h2>{kind}</h2>", f"<p>{TEXTS[kind]} {count}</p>", *entries]
    if failed:
        shown += [
            "<h2>Not shown</h2>",
            *(f"<p>{escape(as_utf8(text))}</p>" for text in failed.values()),
        ]
    text = PAGE.format(
        images=len(annotations.images),
        confidence=confidence,
        protocol=escape(protocol),
        figures=_figures(figures),
        breakdown="\n".join(_breakdown(breakdown)),
        counts=_counts(count_misses(annotations, misses)),
        shown="\n".join(shown),
    )
    with whole_file(folder / "index.html") as part:
        part.write_text(text, encoding="utf-8")


class _Artist:
    """Draws annotation and prediction of an image side by side."""

    def __init__(
        self, annotations: Annotations, images: Images, results: list[Result], confidence: float
    ):
        self.skeleton, self.source, self.results = annotations.skeleton, images, results
        self.images = {image.id: image for image in annotations.images}
        self.found = defaultdict(list)
        for result in results:
            if result["score"] >= confidence:
                self.found[result["image_id"]].append(result)

    def pair(self, image_id: int, misses: list[Miss]) -> np.ndarray:
        """(H, W, 3) uint8 RGB; boxes mark person and detection, one for both where one lacks.

        Raises:
            ImageError: the image cannot be read, or it or a mask has another size than annotated.
        """
        annotated = self.images[image_id]
        pixels = self._read(annotated)
        people = {person.id: person for person in annotated.annotations}
        left, right = [], []
        for miss in misses:
            boxes = []
            if miss.annotation is not None:
                boxes.append(people[miss.annotation].box)
            if miss.result is not None:
                boxes.append(_corners(self.results[miss.result]))
            left.append(boxes[0])
            right.append(boxes[-1])
        truth = [
            # Every labelled keypoint is drawn.
            _person(
                annotated, 1.0, np.c_[p.keypoints[:, :2], p.labelled], p.box, p.segmentation, n
            )
            for n, p in enumerate(annotated.people, 1)
        ]
        found = [
            _person(
                annotated,
                result["score"],
                np.reshape(result["keypoints"], (-1, 3)),
                _corners(result),
                result.get("segmentation"),
            )
            for result in self.found[image_id]
        ]
        gap = np.full((SIDE_PX, GAP_PX, 3), 128, np.uint8)
        sides = self._draw(pixels, truth, left), self._draw(pixels, found, right)
        return np.hstack((sides[0], gap[: len(sides[0])], sides[1]))

    def _read(self, annotated: AnnotatedImage) -> np.ndarray:
        pixels = self.source.read(annotated.file_name)
        if pixels.shape[:2] != annotated.size:
            (height, width), (h, w) = pixels.shape[:2], annotated.size
            raise ImageError(f"'{annotated.file_name}' is {width}x{height}, annotated as {w}x{h}")
        return pixels

    def _draw(
        self, pixels: np.ndarray, people: list[Person], marked: list[np.ndarray]
    ) -> np.ndarray:
        size = (pixels.shape[0], pixels.shape[1])
        drawn = draw_people(pixels, Prediction(size, tuple(people)), self.skeleton, KEYPOINT)
        thick = max(1, round(max(size) / 320))
        for box in marked:
            x0, y0, x1, y1 = (round(float(v)) for v in box)
            for color, line in (((0, 0, 0), thick + 2), (MARK, thick)):
                cv2.rectangle(drawn, (x0, y0), (x1, y1), color, line)
        scale = min(1.0, SIDE_PX / max(size))
        height, width = (max(1, round(side * scale)) for side in size)
        return cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)


def _person(
    image: AnnotatedImage,
    score: float,
    keypoints: np.ndarray,
    box: np.ndarray,
    segmentation: Segmentation | None,
    number: int | None = None,
) -> Person:
    """A person with a mask of the whole image."""
    mask = decode_mask(segmentation or [], image.size)
    if mask.shape != image.size:
        (height, width), (h, w) = image.size, mask.shape
        raise ImageError(f"'{image.file_name}' is {width}x{height} and has a mask of {w}x{h}")
    return Person(score, keypoints, box, mask, (0, 0), np.zeros((0, 4), np.float32), number)


def _corners(result: Result) -> np.ndarray:
    """The box of a result as x0, y0, x1, y1."""
    x, y, width, height = result["bbox"]
    return np.array((x, y, x + width, y + height), np.float32)


def _figures(figures: dict[str, float]) -> str:
    head = ["", "AP", "AP50", "AP75", "medium", "large", "AR"]
    return _table(head, [[row.model, *row.values] for row in rows_of(figures)])


def _breakdown(groups: dict[str, dict[str, float]]) -> Iterable[str]:
    for prefix, names in groupby(groups, lambda name: name.partition("_")[0]):
        rows = {name.partition("_")[2]: groups[name] for name in names}
        columns = max((list(row) for row in rows.values()), key=len)  # small persons lack some
        cells = [[name, *(row.get(column) for column in columns)] for name, row in rows.items()]
        yield f"<h3>{GROUPS[prefix]}</h3>\n" + _table(["", *columns], cells)


def _counts(counts: dict[str, int]) -> str:
    texts = {"persons": "Annotated, with keypoints.", "found": "Of these, by keypoints.", **TEXTS}
    return _table(["", "", ""], [[name, count, texts[name]] for name, count in counts.items()])


def _table(head: list[str], rows: Iterable[list[str | float | None]]) -> str:
    """Floats with three digits, -1 and what is absent as a dash."""

    def cell(value: str | float | None) -> str:
        if value is None or value == -1:
            return "–"
        return f"{value:.3f}" if isinstance(value, float) else escape(str(value))

    lines = ["".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in head)]
    lines += ["".join(f"<td>{cell(value)}</td>" for value in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>"
