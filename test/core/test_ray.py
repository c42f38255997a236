"""`kdc predict --ray`: every image once, also when a worker dies on the way."""

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

import numpy as np
import pytest
from PIL import Image

from kdc_core import batch
from kdc_core.batch import Job, PartWriter
from kdc_core.data.sources import read_frames
from kdc_core.errors import KdcError
from kdc_core.inference.predictor import Predictor
from kdc_core.show.parts import sources_in
from kdc_core.show.people_json import person_json, run_lengths

from .commands import Done, assert_refused, kdc

COPIES = 3  # of 8 samples
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray: the extra 'ray'")
REFUSED_ADDRESS = "127.0.0.1:1"  # nothing listens there


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
    end = time.monotonic() + seconds
    candidates: list[int] = []
    while not list(output.glob("part-*")):
        assert run.poll() is None and time.monotonic() < end, "no part was written"
        candidates = actors(run.pid) or candidates
        time.sleep(0.02)
    os.kill((candidates or actors(run.pid))[0], signal.SIGKILL)


@needs_ray
@pytest.mark.all
def test_a_killed_worker_costs_no_image(samples: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(COPIES):
        for image in samples.glob("*.jpg"):
            shutil.copy(image, folder / f"{number}_{image.name}")
    names = sorted(p.name for p in folder.iterdir())
    (folder / "1_broken.jpg").write_bytes(b"not an image")

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
    assert "cannot be read as a" in failed[0]["error"]
    assert not list(output.glob(".*"))

    # No work, no cluster.
    again = kdc("predict", folder, "--ray", REFUSED_ADDRESS, "--output", output)
    assert again.returncode == 1
    assert f"0 images, 0 persons, 1 failed, {len(names)} done" in again.stdout
    assert parts == {path: path.stat().st_mtime_ns for path in output.glob("part-*.jsonl")}
    other = ("--output", output, "--confidence", 0.9)
    assert_refused(kdc("predict", folder, "--ray", "local", *other), "the same confidence")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_part_holds_what_the_predictor_finds(form: str, samples: Path, tmp_path: Path) -> None:
    image_path = str(samples / "000000409475.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    job = Job(tmp_path, form)
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow: the extra 'ray'")
    rows = PartWriter(job)({"item": [image_path, str(tmp_path / "b.jpg")]})
    assert [bool(error) for error in rows["error"]] == [False, True]
    assert sources_in(job.output, job.format) == {image_path}

    image = next(iter(read_frames(image_path))).image
    assert image is not None
    prediction = Predictor.from_pretrained(threads=1)(image)
    people = [person_json(p, prediction.size) for p in prediction.persons]
    assert len(people) >= 2
    if form == "jsonl":
        [line] = (tmp_path / rows["part"][0]).read_text().splitlines()
        assert json.loads(line) == {
            "source": image_path,
            "frame": None,
            "size": list(prediction.size),
            "persons": people,
        }
        return
    import pyarrow.parquet as parquet
    from pycocotools import mask

    [row] = parquet.read_table(tmp_path / rows["part"][0]).to_pylist()
    assert (row["source"], row["size"]) == (image_path, list(prediction.size))
    assert row["scores"] == [p["score"] for p in people]
    assert row["mask_scores"] == [p["mask_score"] for p in people]
    assert row["boxes"] == [p["box"] for p in people]
    assert row["keypoints"] == [p["keypoints"] for p in people]
    masks = [mask.decode({"size": row["size"], "counts": m}).astype(bool) for m in row["masks"]]
    assert [run_lengths(m) for m in masks] == [p["segmentation"]["counts"] for p in people]


@needs_ray
@pytest.mark.all
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_job_and_what_was_done_is_there(
    number: int, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in range(200):
        (folder / f"{name}.jpg").symlink_to(samples / "000000409475.jpg")
    run = start(tmp_path, folder, "--output", tmp_path / "out", "--ray", "local", "--workers", 1)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("part-*")):
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 128 + number and "Traceback" not in err, err
    assert f"stopped by {signal.Signals(number).name}" in err
    assert 0 < len(sources_in(tmp_path / "out", "jsonl")) < 200


def test_prediction_needs_no_ray(samples: Path, tmp_path: Path) -> None:
    """In a process that cannot import it."""
    script = "import sys\nsys.modules['ray'] = sys.modules['pyarrow'] = None\n"
    script += "from kdc_core.__main__ import main\nmain()\n"
    image = str(samples / "000000409475.jpg")
    command = [sys.executable, "-c", script, "predict", image, "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_each_page_of_an_image_is_a_line(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "pages.tiff"
    with Image.open(samples / "000000409475.jpg") as image:
        turned = image.rotate(180)
        image.save(path, save_all=True, append_images=[turned, image])
    rows = PartWriter(Job(tmp_path))({"item": np.array([str(path)])})
    assert rows["source"] == [str(path)] and rows["error"] == [""]
    lines = [json.loads(line) for line in (tmp_path / rows["part"][0]).read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert rows["persons"] == [sum(len(line["persons"]) for line in lines)] != [0]


def test_rows_of_an_animation_have_their_times(samples: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    path = tmp_path / "moving.webp"
    with Image.open(samples / "000000409475.jpg") as image:
        small = image.resize((160, 120))
    small.save(path, save_all=True, append_images=[small.rotate(180)], duration=250)
    rows = PartWriter(Job(tmp_path, "parquet"))({"item": np.array([str(path)])})
    found = parquet.read_table(tmp_path / rows["part"][0]).to_pylist()
    assert [(row["frame"], row["time"]) for row in found] == [(0, 0.0), (1, 0.25)]


def test_a_runtime_that_only_workers_have_is_left_to_them(tmp_path: Path) -> None:
    batch._check_settings(Job(tmp_path / "out", runtime="onnxruntime-cuda", device="cuda"))
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["model"] == "kdc_light"
    with pytest.raises(KdcError, match="no runtime 'nonsense'"):
        batch._check_settings(Job(tmp_path / "out", runtime="nonsense"))


@pytest.mark.parametrize("content", ["[]", "3", '"text"'])
def test_settings_that_are_no_object_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(KdcError, match=r"expected an object in its settings\.json, got"):
        batch._check_settings(Job(tmp_path))


def refused(samples: Path, tmp_path: Path, *more: object) -> Done:
    return kdc("predict", samples / "000000409475.jpg", "--output", tmp_path / "out", *more)


def test_what_to_install_for_ray_is_said(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = refused(samples, tmp_path, "--ray", "local")
    assert_refused(done, "--ray needs 'ray': pip install 'kdc_ros[ray]'")
    assert done.stderr.startswith("error: "), "no bar comes first"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--json", "p.json"], "do not go with --ray"),
        (["--frames", "3"], "do not go with --ray"),
        (["--format", "csv"], "jsonl or parquet"),
        (["--device", "gpu"], "no device 'gpu' with Ray"),
        (["--device", "cuda:1"], "gives each worker its own GPU: expected auto, cpu, cuda"),
    ],
)
def test_what_ray_cannot_do_is_said(
    more: list[str], text: str, samples: Path, tmp_path: Path
) -> None:
    assert_refused(refused(samples, tmp_path, "--ray", REFUSED_ADDRESS, *more), text)


def test_videos_are_nothing_for_ray(samples: Path, tmp_path: Path) -> None:
    done = kdc("predict", samples / "people.mp4", "--ray", "local", "--output", tmp_path)
    assert_refused(done, "nothing for --ray: expected images")


@needs_ray
@pytest.mark.all
def test_a_cluster_that_is_not_there_is_said(samples: Path, tmp_path: Path) -> None:
    image = samples / "000000409475.jpg"
    run = start(tmp_path, image, "--output", tmp_path / "out", "--ray", REFUSED_ADDRESS)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 2 and f"no Ray cluster at '{REFUSED_ADDRESS}'" in err, err
    assert "Traceback" not in err
