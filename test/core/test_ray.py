"""`kdc predict --ray`: every picture once, also when a worker dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from kdc_core.batch import Job, PartWriter, finished
from kdc_core.data.sources import read_frames
from kdc_core.inference.predictor import Predictor
from kdc_core.show.people_json import person_json, run_lengths

COPIES = 3  # of 8 samples
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray: the extra 'ray'")


def start(home: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kdc_core", "predict", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(home)},  # Ray keeps a token there
    )


def actors(ancestor: int) -> list[int]:
    """Processes below `ancestor` in which Ray runs a PartWriter."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                titles[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = []
    for process, title in titles.items():
        above = process
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor and title.startswith(b"ray::") and b"PartWriter" in title:
            found.append(process)
    return found


def kill_one_actor(run: subprocess.Popen[str], output: Path, seconds: float) -> None:
    """SIGKILL a worker as soon as the first part is there."""
    end, candidates = time.monotonic() + seconds, []
    while not list(output.glob("part-*")):
        assert run.poll() is None and time.monotonic() < end, "no part was written"
        candidates = actors(run.pid) or candidates
        time.sleep(0.02)
    os.kill((candidates or actors(run.pid))[0], signal.SIGKILL)


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_costs_no_picture(samples: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(COPIES):
        for picture in samples.glob("*.jpg"):
            shutil.copy(picture, folder / f"{number}_{picture.name}")
    names = sorted(p.name for p in folder.iterdir())
    (folder / "1_broken.jpg").write_bytes(b"not a picture")

    run = start(tmp_path, folder, "--ray", "local", "--workers", 2, "--output", output)
    try:
        kill_one_actor(run, output, 120)
        written = len(list(output.glob("part-*")))
        out, err = run.communicate(timeout=180)
    finally:
        run.terminate()
    assert run.returncode == 1, err
    assert f"{len(names)} images" in out and "1 failed" in out
    parts = {path: path.stat().st_mtime_ns for path in sorted(output.glob("part-*.jsonl"))}
    assert written < len(parts), "the worker was killed too late"
    lines = [json.loads(line) for path in parts for line in path.read_text().splitlines()]
    assert sorted(Path(line["source"]).name for line in lines) == names
    failed = [json.loads(line) for line in (output / "failed.jsonl").read_text().splitlines()]
    assert [Path(line["source"]).name for line in failed] == ["1_broken.jpg"]
    assert "cannot be read as a picture" in failed[0]["error"]
    assert not list(output.glob(".*"))

    # Nothing listens at this address: no work, no cluster.
    again = start(tmp_path, folder, "--ray", "127.0.0.1:1", "--output", output)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 1 and f"0 images, 0 persons, 1 failed, {len(names)} done" in out
    assert parts == {path: path.stat().st_mtime_ns for path in output.glob("part-*.jsonl")}

    other = start(tmp_path, folder, "--ray", "local", "--output", output, "--confidence", 0.9)
    out, err = other.communicate(timeout=60)
    assert other.returncode == 2 and "the same confidence" in err and "Traceback" not in err


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_part_holds_what_the_predictor_finds(form: str, samples: Path, tmp_path: Path) -> None:
    picture = str(samples / "000000409475.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    job = Job(tmp_path, form)
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow: the extra 'ray'")
    rows = PartWriter(job)({"item": [picture, str(tmp_path / "b.jpg")]})
    assert [bool(error) for error in rows["error"]] == [False, True]
    assert finished(job) == {picture}

    image = next(iter(read_frames(picture))).image
    assert image is not None
    prediction = Predictor.from_pretrained(threads=1)(image)
    people = [person_json(p, prediction.size) for p in prediction.persons]
    assert len(people) >= 2
    if form == "jsonl":
        [line] = (tmp_path / rows["part"][0]).read_text().splitlines()
        assert json.loads(line) == {
            "source": picture,
            "frame": None,
            "size": list(prediction.size),
            "persons": people,
        }
        return
    import pyarrow.parquet as parquet
    from pycocotools import mask

    [row] = parquet.read_table(tmp_path / rows["part"][0]).to_pylist()
    assert (row["source"], row["size"]) == (picture, list(prediction.size))
    assert row["scores"] == [p["score"] for p in people]
    assert row["boxes"] == [p["box"] for p in people]
    assert row["keypoints"] == [p["keypoints"] for p in people]
    masks = [mask.decode({"size": row["size"], "counts": m}).astype(bool) for m in row["masks"]]
    assert [run_lengths(m) for m in masks] == [p["segmentation"]["counts"] for p in people]


WITHOUT_RAY = """
import sys
sys.modules["ray"] = sys.modules["pyarrow"] = None
from kdc_core.cli import main
sys.argv[0] = "kdc"
main()
"""


@pytest.mark.parametrize(("more", "code", "text"), [([], 0, ""), (["--ray", "local"], 2, "[ray]")])
def test_prediction_without_ray(
    more: list[str], code: int, text: str, samples: Path, tmp_path: Path
) -> None:
    picture = samples / "000000409475.jpg"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, "predict", picture, "--output", tmp_path, *more],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code and text in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--json", "p.json"], "do not go with --ray"),
        (["--format", "csv"], "jsonl or parquet"),
        ([], "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_what_ray_cannot_do_is_said(
    more: list[str], text: str, samples: Path, tmp_path: Path
) -> None:
    if not more:
        pytest.importorskip("ray", reason="needs ray: the extra 'ray'")
    picture = samples / "000000409475.jpg"
    run = start(tmp_path, picture, "--output", tmp_path / "out", "--ray", "127.0.0.1:1", *more)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 2 and text in err and "Traceback" not in err, err
