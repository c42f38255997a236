"""Annotation files and masks damaged at random: used, or refused with what is wrong."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdc_core.codec.codec import Codec
from kdc_core.codec.encode import encode
from kdc_core.config_file import load_preset
from kdc_core.data.annotations import AnnotationError
from kdc_core.data.reading import read_annotations
from kdc_core.data.sample import make_sample
from kdc_core.evaluation.coco import score

from .conftest import SAMPLES

WHOLE = json.loads((SAMPLES / "annotations.json").read_text())
WHOLE["images"] = WHOLE["images"][:2]
KEPT = {image["id"] for image in WHOLE["images"]}
WHOLE["annotations"] = [a for a in WHOLE["annotations"] if a["image_id"] in KEPT]
GONE = object()
VALUES: tuple[Any, ...] = (
    GONE,
    None,
    "",
    "7",
    "word",
    "\ud800",
    math.nan,
    math.inf,
    1e300,
    -1e300,
    10**400,
    2**63,
    -1,
    0,
    0.5,
    True,
    [],
    {},
    [[]],
    [[[]]],
    [1, 2, 3],
    ["1", "2"],
    {"size": [427, 640], "counts": "0"},
    {"size": ["427", "640"], "counts": ["273280"]},
)


def places(content: Any) -> list[tuple[Any, ...]]:
    """Paths to everything in a file, the long lists of numbers by their beginning."""
    found: list[tuple[Any, ...]] = []
    items = content.items() if isinstance(content, dict) else enumerate(content[:8])
    for key, value in items:
        found.append((key,))
        if isinstance(value, (dict, list)):
            found += [(key, *rest) for rest in places(value)]
    return found


PLACES = places(WHOLE)


def mutate(content: Any, place: tuple[Any, ...], value: Any) -> None:
    """Put a value at a place, or `REPEATED`, or take away what is there."""
    for key in place[:-1]:
        content = content[key]
    if value is GONE:
        del content[place[-1]]
    elif value == "nested":
        content[place[-1]] = [content[place[-1]]]
    elif value == "repeated":
        content[place[-1]] = [content[place[-1]]] * 3
    else:
        content[place[-1]] = value


CHANGES = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from([*VALUES, "nested", "repeated"])),
    min_size=1,
    max_size=3,
)


def is_used_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    content = copy.deepcopy(WHOLE)
    for place, value in changes:
        try:
            mutate(content, place, value)
        except (KeyError, IndexError, TypeError):  # an earlier change took the place away
            return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(content))
        try:
            annotations = read_annotations(path)
        except AnnotationError as error:
            text = str(error)
            assert text.startswith(f"'{path}'") and "Traceback" not in text
            places = ("annotation", "image", "categor", "not a COCO annotation file")
            assert any(place in text for place in places), text
            return
    figures = score(annotations, [])
    assert all(-1 <= value <= 1 for value in figures.values())
    codec = Codec.of(load_preset("oracle"))
    for image in annotations.images:
        if image.size[0] * image.size[1] < 1_000_000:
            sample = make_sample(np.zeros((*image.size, 3), np.uint8), image, 17)
            targets, weights, _ = encode(sample, codec)
            assert np.isfinite(targets.short).all() and np.isfinite(weights.heat).all()


@given(CHANGES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_is_used_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    is_used_or_refused(changes)


@pytest.mark.all
@pytest.mark.slow
@given(CHANGES)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_many_damaged_files_are_used_or_refused(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    is_used_or_refused(changes)


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_bytes_at_random_are_no_file_or_one(data: bytes, cut: int) -> None:
    text = json.dumps(WHOLE).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(text[:cut] + data + text[cut + len(data) :])
        try:
            read_annotations(path)
        except AnnotationError as error:
            assert str(path) in str(error)


# Masks, in a child that native code may kill


CHILD = """
import random, resource, sys
import numpy as np
from pycocotools import mask as rle_tools
from kdc_core.data.annotations import AnnotationError
from kdc_core.data.masks import as_rle, decode_mask, read_mask

KIB = 1 << 20  # of a GiB
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
seed, count = int(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
odd = [float("nan"), float("inf"), 1e300, -1e300, 1e9, -1e9, 10**400, None, "7", "x", [], {}, True]

def number(size):
    return draw.choice(odd) if draw.random() < 0.02 else draw.uniform(-1.2 * size, 2.2 * size)

def polygon(size):
    points = draw.choice((0, 1, 2, 3, 3, 5, 40, 4000))
    return [number(size[1 - i % 2]) for i in range(2 * points + (draw.random() < 0.05))]

def rle(size):
    noise = np.random.default_rng(draw.randrange(2**31)).random(size)
    valid = np.asfortranarray(noise < draw.random(), np.uint8)
    coded = rle_tools.encode(valid)
    text = coded["counts"].decode()
    kind = draw.randrange(8)
    if kind == 1:
        text = text[: draw.randrange(len(text) + 1)]
    if kind == 2:
        place = draw.randrange(len(text))
        text = text[:place] + chr(draw.choice((48, 79, 80, 111, 112, 255, 0, 1000))) + text[place:]
    if kind == 3:
        text = "".join(chr(draw.randrange(48, 112)) for _ in range(draw.randrange(40)))
    if kind == 4:
        return {"size": list(size)[::-1], "counts": text}
    if kind == 5:
        lengths = (0, 1, 5, 2**31, 2**32, 2**40, -1, size[0] * size[1])
        return {"size": list(size), "counts": [draw.choice(lengths) for _ in range(6)]}
    if kind == 6:
        sizes = ([0, 0], [-1, -1], [2**40, 2**40], None, "x", [1])
        return {"size": draw.choice(sizes), "counts": text}
    if kind == 7:
        text = str(text.encode())
    return {"size": list(size), "counts": text}

used = refused = 0
for _ in range(count):
    size = draw.choice(((1, 1), (1, 300), (300, 1), (37, 53), (480, 640)))
    given = rle(size) if draw.random() < 0.5 else [polygon(size) for _ in range(draw.randrange(4))]
    try:
        mask = read_mask(given, size, lambda kind: None)
    except AnnotationError:
        refused += 1
        continue
    if mask is None:
        continue
    used += 1
    whole = rle_tools.encode(np.ones(size, np.uint8, order="F"))
    code = as_rle(mask, size)
    pixels = decode_mask(mask, size)
    assert pixels.shape == size
    assert rle_tools.area(code) == pixels.sum()
    assert 0 <= rle_tools.iou([code], [whole], [0])[0, 0] <= 1
    assert rle_tools.area(rle_tools.merge([code, whole])) == size[0] * size[1]
    peak = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
    assert int(peak) < KIB, (given, peak)
assert used > count / 20 and refused > count / 20, (used, refused)
print("done")
"""


def child(seed: int, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout == "done\n", (seed, done.stderr)


def test_no_mask_hangs_or_takes_all_memory() -> None:
    child(0, 300)


@pytest.mark.all
@pytest.mark.parametrize("seed", range(1, 13))
def test_no_mask_of_many_hangs_or_takes_all_memory(seed: int) -> None:
    child(seed, 800)
