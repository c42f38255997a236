"""An HTML page of an evaluation: its figures, and the worst pictures of each kind of miss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17, Skeleton
from kdc_core.data.annotations import decode_mask
from kdc_core.data.images import ImageError, Images
from kdc_core.errors import KdcError
from kdc_core.evaluation.misses import KINDS, Miss, count_misses, find_misses
from kdc_core.files import whole_file
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
    "persons": "Persons in the picture",
    "overlap": "Largest box IoU of two persons",
    "size": "Area of the person",
}
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1300px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .8em; border-bottom: 1px solid #8886; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5em 0; }
img { max-width: 100%; height: auto; }
figcaption { opacity: .8; }
"""


def write_report(
    folder: str | Path,
    annotations: dict[str, Any],
    pictures: Images,
    results: list[dict[str, Any]],
    confidence: float,
    figures: dict[str, float],
    breakdown: dict[str, dict[str, float]],
    worst: int = 24,
    skeleton: Skeleton = COCO17,
) -> None:
    """Write index.html and its pictures.

    Each picture shows the annotation left and the prediction right; boxes mark the misses.

    Args:
        folder: made where it is missing; files of these names are replaced.
        annotations: content of a COCO file.
        pictures: where its pictures are. One that cannot be read, or has another size than
            annotated or than a mask, is listed.
        results: COCO results.
        confidence: least score of the detections drawn and counted.
        figures: average precisions of `kdc_core.evaluation.coco.score`.
        breakdown: `kdc_core.evaluation.breakdown.breakdown`.
        worst: most pictures of one kind of miss, those with the highest sum of costs.
        skeleton: of the keypoints of annotations and results.

    Raises:
        KdcError: the folder or a file in it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KdcError(f"cannot make the folder '{folder}': {error.strerror}") from error
    images = {image["id"]: image for image in annotations["images"]}
    people = {entry["id"]: entry for entry in annotations["annotations"]}
    misses = find_misses(annotations, results, confidence, skeleton)
    page = [
        f"<p>{len(images)} pictures; detections with a score from {confidence:g}.</p>",
        "<h2>Average precision</h2>",
        _figures(figures),
        *_breakdown(breakdown),
        "<h2>Misses</h2>",
        _counts(count_misses(annotations, misses)),
    ]
    failed = {}
    for kind in KINDS:
        by_image: dict[int, list[Miss]] = defaultdict(list)
        for miss in misses:
            if miss.kind == kind:
                by_image[miss.image_id].append(miss)
        ranked = sorted(by_image.items(), key=lambda item: -sum(m.cost for m in item[1]))
        shown: list[str] = []
        for image_id, mine in ranked:
            if len(shown) == worst:
                break
            image = images[image_id]
            truth = [a for a in people.values() if a["image_id"] == image_id]
            found = [r for r in results if r["image_id"] == image_id and r["score"] >= confidence]
            marks = [_marks(miss, people, results) for miss in mine]
            try:
                drawn = _pair(_read(pictures, image), truth, found, marks, skeleton)
            except ImageError as error:
                failed[image_id] = str(error)
                continue
            name = f"{kind}-{len(shown) + 1:02}.jpg"
            _write_jpg(folder / name, drawn)
            shown.append(_entry(name, str(image["file_name"]), mine))
        if by_image:
            page += [
                f"<h2>{kind}</h2>",
                f"<p>{TEXTS[kind]} {len(shown)} of {len(by_image)} "
                "pictures; left annotated, right predicted.</p>",
                *shown,
            ]
    if failed:
        page += ["<h2>Not shown</h2>", *(f"<p>{escape(text)}</p>" for text in failed.values())]
    with whole_file(folder / "index.html") as part:
        part.write_text(_document(page), encoding="utf-8")


Entry = dict[str, Any]  # an annotation or a result


def _marks(miss: Miss, people: dict[int, Entry], results: list[Entry]) -> tuple[Entry, Entry]:
    """What is marked left and right: person and detection, one for both where the other lacks."""
    both = []
    if miss.annotation is not None:
        both.append(people[miss.annotation])
    if miss.result is not None:
        both.append(results[miss.result])
    return both[0], both[-1]


def _read(pictures: Images, image: dict[str, Any]) -> np.ndarray:
    picture = pictures.read(str(image["file_name"]))
    height, width = picture.shape[:2]
    if (height, width) != (image["height"], image["width"]):
        raise ImageError(
            f"'{image['file_name']}' is {width}x{height}, annotated as "
            f"{image['width']}x{image['height']}"
        )
    return picture


def _pair(
    picture: np.ndarray,
    truth: list[Entry],
    found: list[Entry],
    marks: list[tuple[Entry, Entry]],
    skeleton: Skeleton,
) -> np.ndarray:
    """Annotation and prediction side by side: (H, W, 3) uint8 RGB."""
    people = [a for a in truth if not a.get("iscrowd")]
    left = _draw(picture, people, [a for a, _ in marks], skeleton)
    right = _draw(picture, found, [r for _, r in marks], skeleton)
    gap = np.full((left.shape[0], GAP_PX, 3), 128, np.uint8)
    return np.hstack((left, gap, right))


def _draw(
    picture: np.ndarray, people: list[Entry], marked: list[Entry], skeleton: Skeleton
) -> np.ndarray:
    size = (picture.shape[0], picture.shape[1])
    labels = np.zeros(size, np.uint16)
    persons = []
    for index, entry in enumerate(people):
        person = _person(entry, size, index, skeleton)
        labels[person.mask & (labels == 0)] = index + 1
        persons.append(person)
    drawn = draw_people(picture, Prediction(size, tuple(persons), labels), skeleton, KEYPOINT)
    thick = max(1, round(max(size) / 320))
    for entry in marked:
        x, y, width, height = (round(v) for v in entry["bbox"])
        for color, line in (((0, 0, 0), thick + 2), (MARK, thick)):
            cv2.rectangle(drawn, (x, y), (x + width, y + height), color, line)
    scale = min(1.0, SIDE_PX / max(size))
    return cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _person(entry: Entry, size: tuple[int, int], index: int, skeleton: Skeleton) -> Person:
    """An annotation (numbered) or a result (with its score), with a mask of the whole picture."""
    score = entry.get("score")
    keypoints = np.zeros((skeleton.num_keypoints, 3), np.float32)
    if entry.get("keypoints"):
        keypoints = np.array(entry["keypoints"], np.float32).reshape(-1, 3)
        if score is None:
            keypoints[:, 2] = keypoints[:, 2] > 0
    mask = np.zeros(size, bool)
    if entry.get("segmentation"):
        mask = decode_mask(entry["segmentation"], size)
    if mask.shape != size:
        raise ImageError(
            f"image {entry['image_id']} is {size[1]}x{size[0]} and has a mask of "
            f"{mask.shape[1]}x{mask.shape[0]}"
        )
    x, y, width, height = entry["bbox"]
    box = np.array((x, y, x + width, y + height), np.float32)
    number = index + 1 if score is None else None
    none = np.zeros((0, 4), np.float32)
    return Person(1.0 if score is None else score, keypoints, box, mask, (0, 0), none, number)


def _write_jpg(path: Path, image: np.ndarray) -> None:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    with whole_file(path) as part:
        if not cv2.imwrite(str(part), bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise KdcError(f"cannot write a picture to '{path}'")


def _entry(name: str, file_name: str, misses: list[Miss]) -> str:
    alt = f"{file_name}, annotated and predicted"
    text = f"{file_name}: {len(misses)}, cost {sum(m.cost for m in misses):.3f}"
    return (
        f'<figure><a href="{name}"><img src="{name}" alt="{escape(alt)}" loading="lazy"></a>'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def _figures(figures: dict[str, float]) -> str:
    suffixes = {
        "AP": "",
        "AP50": "50",
        "AP75": "75",
        "medium": "_medium",
        "large": "_large",
        "AR": "_recall",
    }
    names = [name for name in figures if name.endswith(("_ap", "_persons", "_full"))]
    rows = [[name, *(figures.get(name + s) for s in suffixes.values())] for name in names]
    return _table(["", *suffixes], rows)


def _breakdown(groups: dict[str, dict[str, float]]) -> list[str]:
    tables = []
    for prefix, names in groupby(groups, lambda name: name.partition("_")[0]):
        rows = {name.partition("_")[2]: groups[name] for name in names}
        columns = max((list(row) for row in rows.values()), key=len)  # small persons lack some
        cells = [[name, *(row.get(column) for column in columns)] for name, row in rows.items()]
        title = escape(GROUPS.get(prefix, prefix))
        tables += [f"<h3>{title}</h3>", _table(["", *columns], cells)]
    return tables


def _counts(counts: dict[str, int]) -> str:
    texts = {"persons": "Annotated, with keypoints.", "found": "Of these, by keypoints.", **TEXTS}
    return _table(["", "", ""], [[name, count, texts[name]] for name, count in counts.items()])


def _table(head: list[str], rows: Iterable[list[Any]]) -> str:
    """Floats with three digits, -1 and what is absent as a dash."""

    def cell(value: Any) -> str:
        if value is None or value == -1:
            return "–"
        return f"{value:.3f}" if isinstance(value, float) else escape(str(value))

    lines = ["".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in head)]
    lines += ["".join(f"<td>{cell(value)}</td>" for value in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>"


def _document(body: list[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Evaluation</title><style>{STYLE}</style></head>\n<body><h1>Evaluation</h1>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
