"""The report of an evaluation: one folder, whole, of what a browser needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle_tools
from typer.testing import CliRunner

from kdc_core.cli import app
from kdc_core.data.annotations import AnnotatedImage, Annotations
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.errors import KdcError
from kdc_core.evaluation.breakdown import breakdown
from kdc_core.evaluation.coco import Result, score
from kdc_core.evaluation.misses import count_misses, find_misses
from kdc_core.evaluation.report import GAP_PX, MARK, write_report

from .test_misses import perfect

FIRST = 885  # a sample image of three persons with keypoints and five without


@pytest.fixture(scope="module")
def sample(samples: Path) -> Annotations:
    return read_annotations(samples / "annotations.json")


class Page(HTMLParser):
    """Tags with their attributes, text, and a check that every tag is closed in order."""

    def __init__(self, path: Path):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        return [str(attributes[name]) for t, attributes in self.found if t == tag]


def report(
    folder: Path, sample: Annotations, results: list[Result], images: Path, worst: int = 24
) -> Page:
    figures, groups = score(sample, results), breakdown(sample, results)
    write_report(folder, sample, Images(images), results, 0.5, "coco", figures, groups, worst)
    return Page(folder / "index.html")


def with_images(sample: Annotations, *images: AnnotatedImage) -> Annotations:
    return replace(sample, images=images)


def no_pixel(height: int, width: int) -> dict[str, Any]:
    """An empty mask as RLE."""
    rle = rle_tools.encode(np.zeros((height, width), np.uint8, order="F"))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def spoiled(sample: Annotations) -> list[Result]:
    """Results without the first person of each image, with one false detection."""
    seen: set[int] = set()
    results = []
    for result in perfect(sample):
        if result["image_id"] in seen:
            results.append(result)
        seen.add(result["image_id"])
    empty = no_pixel(500, 375)
    false = {
        "image_id": 234607,
        "category_id": 1,
        "bbox": [350, 5, 20, 30],
        "score": 0.7,
        "keypoints": [360.0, 20.0, 0.9] * 17,
        "segmentation": empty,
    }
    return [*results, false]


def test_the_page_shows_figures_counts_and_images(
    sample: Annotations, samples: Path, tmp_path: Path
) -> None:
    results = spoiled(sample)
    page = report(tmp_path / "new" / "folder", sample, results, samples)
    assert "protocol: coco" in page.text
    counts = count_misses(sample, find_misses(sample, results, 0.5))
    assert counts["missed"] == 8 and counts["false"] == 1
    figure = score(sample, results)["keypoint_ap"]
    rows = re.findall(r"<tr>(.*?)</tr>", (tmp_path / "new/folder/index.html").read_text())
    cells = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in rows]
    assert any(row[:2] == ["keypoint_ap", f"{figure:.3f}"] for row in cells)
    assert any(row[:2] == ["missed", "8"] for row in cells)
    assert any(row[:3] == ["2-4", "5", "13"] for row in cells)
    assert any(row[:4] == ["1", "0", "0", "–"] for row in cells)
    shown = page.values("img", "src")
    assert shown == [*(f"missed-{i:02}.jpg" for i in range(1, 9)), "false-01.jpg"]
    assert page.values("a", "href") == shown
    names = {p.name for p in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"index.html", *shown}


def test_the_page_needs_nothing_else(sample: Annotations, samples: Path, tmp_path: Path) -> None:
    page = report(tmp_path, sample, spoiled(sample), samples)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.found}
    text = (tmp_path / "index.html").read_text()
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert "color-scheme: light dark" in text
    assert not any(name.startswith("on") for _, attributes in page.found for name in attributes)


def test_images_are_annotation_and_prediction_with_the_miss_marked(
    sample: Annotations, samples: Path, tmp_path: Path
) -> None:
    results = [r for r in perfect(sample) if r["image_id"] != FIRST]
    page = report(tmp_path, sample, results, samples)
    assert "000000000885.jpg: 3, cost" in page.text
    pair = Images(tmp_path).read("missed-01.jpg").astype(int)
    source = Images(samples).read("000000000885.jpg").astype(int)
    height, width = source.shape[:2]
    assert pair.shape[:2] == (height, 2 * width + GAP_PX)
    left, right = pair[:, :width], pair[:, width + GAP_PX :]
    person = next(person for person in sample.people if person.id == 439117)
    x, y, x1, y1 = (round(float(v)) for v in person.box)
    w, h = x1 - x, y1 - y
    for side in (left, right):
        edge = side[y + 40 : y + h - 40, x]
        assert np.abs(edge - MARK).mean() < 40, "the box of the missed person"
    inside = np.s_[y + 8 : y + h - 8, x + 8 : x + w - 8]
    assert np.abs(left[inside] - source[inside]).mean() > 20, "drawn"
    tinted = np.abs(right[inside] - source[inside]).mean(-1) > 60
    assert tinted.mean() < 0.1, "nothing predicted, nothing drawn but the other persons' boxes"


def test_worst_comes_first_and_ends_at_the_limit(
    sample: Annotations, samples: Path, tmp_path: Path
) -> None:
    page = report(tmp_path, sample, spoiled(sample), samples, worst=3)
    assert [n for n in page.values("img", "src") if n[0] == "m"] == [
        f"missed-0{i}.jpg" for i in (1, 2, 3)
    ]
    costs = [float(c) for c in re.findall(r": 1, cost (\d\.\d+)", page.text)][:3]
    areas = sorted(
        (i.annotations[0].area / (i.size[0] * i.size[1]) for i in sample.images), key=lambda a: -a
    )
    assert costs == pytest.approx(areas[:3], abs=6e-4)


def test_images_that_cannot_be_shown_are_listed(
    sample: Annotations, samples: Path, tmp_path: Path
) -> None:
    missing, broken, other = sample.images[:3]
    (tmp_path / "in").mkdir()
    for image in sample.images[1:]:
        data = (samples / image.file_name).read_bytes()
        (tmp_path / "in" / image.file_name).write_bytes(data)
    (tmp_path / "in" / broken.file_name).write_bytes(b"not an image")
    height, width = other.size
    changed = with_images(
        sample,
        replace(missing, file_name="no <b>such</b> & file.jpg"),
        broken,
        replace(other, size=(height, width + 1)),
        *sample.images[3:],
    )
    page = report(tmp_path / "out", changed, [], tmp_path / "in")
    listed = page.text.split("Not shown")[1]
    assert "no <b>such</b> & file.jpg" in listed and "b" not in [tag for tag, _ in page.found]
    assert f"'{broken.file_name}' cannot be read as" in listed
    assert f"'{other.file_name}' is {width}x" in listed
    assert len(page.values("img", "src")) == 5


def test_a_mask_of_another_size_is_listed(
    sample: Annotations, samples: Path, tmp_path: Path
) -> None:
    results = spoiled(sample)
    results[-1]["segmentation"] = no_pixel(4, 4)
    page = report(tmp_path, sample, results, samples)
    assert "a mask of 4x4" in page.text.split("Not shown")[1]
    assert "false-01.jpg" not in page.values("img", "src")


def test_names_from_files_are_escaped(sample: Annotations, samples: Path, tmp_path: Path) -> None:
    name = "\"><script>alert('&')</script>.jpg"
    image = sample.images[0]
    folder = tmp_path / "in"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes((samples / image.file_name).read_bytes())
    one = with_images(sample, replace(image, file_name=name))
    page = report(tmp_path / "out", one, [], folder)
    assert page.values("img", "alt") == [f"{name}, annotated and predicted"]
    assert name in page.text and "script" not in [tag for tag, _ in page.found]


def test_a_folder_that_cannot_be_made_is_said(
    sample: Annotations, samples: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(KdcError, match="cannot make the folder"):
        report(tmp_path / "file", sample, [], samples)


BLOCKED = """
import sys
for name in ("torch", "lightning", "onnx", "rclpy"):
    sys.modules[name] = None
import kdc_core.evaluation.breakdown, kdc_core.evaluation.misses, kdc_core.evaluation.report
"""


def test_the_report_needs_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_prints_and_writes_both(samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    # Somebody who is not there, in an image of many: a miss, however good the model is.
    entries = json.loads((samples / "annotations.json").read_text())
    crowd = Counter(entry["image_id"] for entry in entries["annotations"]).most_common(1)[0][0]
    absent = {
        **entries["annotations"][0],
        "id": 10**9,
        "image_id": crowd,
        "bbox": [2, 2, 30, 60],
        "area": 1800,
        "keypoints": [v for k in range(17) for v in (5 + k, 5 + 3 * k, 2)],
        "num_keypoints": 17,
        "segmentation": [[2, 2, 32, 2, 32, 62, 2, 62]],
    }
    entries["annotations"].append(absent)
    (tmp_path / "annotations.json").write_text(json.dumps(entries))
    where = ["--annotations", tmp_path / "annotations.json", "--images", samples]
    more = ["--breakdown", "--report", out, "--json", tmp_path / "f.json"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, (*where, *more))])
    assert done.exit_code == 0, done.output
    groups = json.loads((tmp_path / "f.json").read_text())["breakdown"]
    assert groups["persons_2-4"]["persons"] == 13 and "overlap_heavy" in done.stdout
    assert Page(out / "index.html").values("img", "src")
    assert "missed" in (out / "index.html").read_text()
    assert "report in '" in done.stdout
    assert groups["overlap_heavy"]["keypoint_ap"] == -1 and "-1.000" not in done.stdout
