"""How `kdc predict` ends: signals, full disks, damage; names and turned cameras."""

from __future__ import annotations

import json
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
from PIL import Image

from kdc_core.codec.results import Person, Prediction
from kdc_core.data.images import decode_image
from kdc_core.data.sources import Frame, count_frames
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.rotate import ROTATIONS, Degrees, rotate_back, rotate_image
from kdc_core.show.overlays import OverlayWriter
from kdc_core.stopping import SIGNALS

from .commands import Done, assert_refused, kdc, kdc_process
from .videos import SIZE, make_video, set_rate


class Finder:
    """Finds one person in each image, at once.

    Args:
        real: whose names it bears.
    """

    def __init__(self, real: Predictor):
        self.config, self.skeleton, self.thresholds = real.config, real.skeleton, real.thresholds
        self.rotate: Degrees = 0
        self.about = "a finder"
        self.asked: dict[str, Any] = {}

    def open(self, *_: object, **settings: Any) -> Finder:
        self.asked = settings
        return self

    def __call__(self, image: np.ndarray, thresholds: Any = None) -> Prediction:
        height, width = image.shape[:2]
        box = np.array([0, 0, width, height], np.float32) - 0.5
        keypoints, mask = np.zeros((17, 3), np.float32), np.ones((height, width), bool)
        person = Person(0.9, keypoints, box, mask, (0, 0), np.zeros((0, 4)))
        return Prediction((height, width), (person,))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("kdc_light")


@pytest.fixture
def finder(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Finder:
    """In place of every predictor."""
    found = Finder(predictor)
    monkeypatch.setattr(Predictor, "from_pretrained", found.open)
    return found


def entries(path: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(path.read_text())["images"]
    return content


def frames_of(video: Path) -> int:
    capture = cv2.VideoCapture(str(video))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


# Signals


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    given = [sys.executable, "-m", "kdc_core", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(given, stdout=pipe, stderr=pipe, text=True, cwd=cwd)


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not there() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert there(), process.communicate(timeout=10)


@pytest.mark.all
def test_a_view_stays_until_ctrl_c_with_all_files_written(samples: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun is not installed (extra `view`)")
    clip, json_file = samples / "people.mp4", tmp_path / "p.json"
    process = start("predict", clip, "--frames", 3, "--json", json_file, "--view", cwd=tmp_path)
    try:
        check_view(process, json_file, tmp_path)
    finally:
        process.kill()


def check_view(process: subprocess.Popen[str], json_file: Path, folder: Path) -> None:
    wait_for(json_file.exists, process)
    assert frames_of(folder / "kdc_output" / "people.mp4") == len(entries(json_file)) == 3
    assert process.stderr is not None and process.poll() is None
    lines: list[str] = []
    while not lines or "stays until Ctrl-C" not in lines[-1]:
        assert (line := process.stderr.readline()), lines
        lines.append(line)
    url = next(line for line in lines if "live view: " in line).split("live view: ")[1]
    with urlopen(url.split("?")[0], timeout=20) as page:
        assert page.status == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "error" not in err.lower(), err
    assert out.startswith("3 images")


@pytest.mark.all
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_video_after_a_frame(number: int, samples: Path, tmp_path: Path) -> None:
    process = start("predict", samples / "people.mp4", "--json", "p.json", cwd=tmp_path)
    part = tmp_path / f".p.{process.pid}.part.json"
    wait_for(lambda: part.exists() and part.read_bytes().count(b'"frame"') >= 2, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1] == f"stopped by {signal.Signals(number).name}"
    assert "Traceback" not in err
    done = len(entries(tmp_path / "p.json"))
    assert 2 <= done < 40 and out.startswith(f"{done} images")
    assert frames_of(tmp_path / "kdc_output" / "people.mp4") == done


def test_a_terminal_that_is_closed_ends_it_with_whole_files(samples: Path, tmp_path: Path) -> None:
    """Nothing can be said any more, and the kernel sends SIGHUP."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
        command = [sys.executable, "-m", "kdc_core", "predict", str(samples / "people.mp4")]
        os.execv(command[0], [*command, "--json", "p.json"])
    part = tmp_path / f".p.{process}.part.json"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.read_bytes().count(b'"frame"') >= 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    done = len(entries(tmp_path / "p.json"))
    assert 2 <= done < 40
    assert frames_of(tmp_path / "kdc_output" / "people.mp4") == done


def test_it_goes_on_under_nohup(samples: Path, tmp_path: Path) -> None:
    given = ["predict", str(samples / "people.mp4"), "--json", "p.json", "--frames", "4"]
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "kdc_core", *given],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(5):
        time.sleep(0.2)
        process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(entries(tmp_path / "p.json")) == 4


def test_errors_that_nobody_can_read_end_nothing(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "c"):
        (folder / f"{name}.jpg").write_bytes(b"no image")
    for name in ("b", "d"):
        shutil.copy(samples / "000000507015.jpg", folder / f"{name}.jpg")
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kdc_core", "predict", str(folder), "--json", "p.json"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            timeout=100,
        )
    assert done.returncode == 1 and done.stdout.startswith("2 images, "), done
    assert [("error" in entry) for entry in entries(tmp_path / "p.json")] == [True, False] * 2


@pytest.mark.all
def test_two_processes_of_one_output_leave_a_whole_one(samples: Path, tmp_path: Path) -> None:
    """That of the last to end."""
    given = ("predict", samples / "people.mp4", "--frames", 4, "--json", "p.json")
    for process in [start(*given, cwd=tmp_path) for _ in range(2)]:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert len(entries(tmp_path / "p.json")) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"p.json", "kdc_output"}


@pytest.mark.all
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_any_command_with_a_line(number: int, samples: Path, tmp_path: Path) -> None:
    given = ("--annotations", samples / "annotations.json", "--images", samples)
    process = start("evaluate", *given, "--json", "f.json", cwd=tmp_path)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.count("stopped by") == 1 and "Traceback" not in err, err
    assert list(tmp_path.iterdir()) == []


def check_signal_at(moment: float, number: int, twice: bool, folder: Path, video: Path) -> None:
    """Whatever it interrupts: its status, no traceback, whole files or none."""
    process = start("predict", video, "--json", "p.json", "--frames", 12, cwd=folder)
    time.sleep(moment)
    process.send_signal(number)
    if twice:
        time.sleep(0.02)
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    # While Python itself ends, a signal kills it, which a shell calls 128 + number, too.
    assert process.returncode in (0, 128 + number, -number), (moment, err)
    assert "Traceback" not in err, (moment, err)
    if (folder / "p.json").exists():
        done = len(entries(folder / "p.json"))
        overlay = folder / "kdc_output" / "people.mp4"
        if overlay.exists() and not twice:
            assert frames_of(overlay) == done, moment
    elif not twice:
        assert err.splitlines()[-1] == f"stopped by {signal.Signals(number).name}", (moment, err)


@pytest.mark.all
@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_a_signal_at_any_moment(seed: int, twice: bool, samples: Path, tmp_path: Path) -> None:
    """From when Python itself has started, which takes some hundredths of a second."""
    chance = random.Random(seed)
    moment = chance.uniform(0.15, 5)
    check_signal_at(moment, chance.choice(SIGNALS), twice, tmp_path, samples / "people.mp4")


@pytest.mark.parametrize("seed", [0])
def test_a_signal_at_some_moment(seed: int, samples: Path, tmp_path: Path) -> None:
    moment = random.Random(seed).uniform(0.3, 1.5)
    check_signal_at(moment, signal.SIGTERM, False, tmp_path, samples / "people.mp4")


def test_a_signal_while_libraries_are_imported_is_a_line(tmp_path: Path) -> None:
    """Another command, whose work asks for no signal."""
    script = (
        "import os, signal, sys\n"
        "from kdc_core.__main__ import main\n"
        "class Importing:\n"
        "    def find_spec(self, name, *others):\n"
        "        if name == 'cv2': os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Importing())\n"
        "sys.argv = ['kdc', 'predict', 'a.jpg']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 143 and done.stderr == "stopped by SIGTERM\n"


# Full disks, overlays that cannot be written


def limited(bytes_: int, *arguments: object, cwd: Path) -> Done:
    """Run a command that may write no file longer than this, which fails as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))

    given = [sys.executable, "-m", "kdc_core", *map(str, arguments)]
    return subprocess.run(
        given, capture_output=True, text=True, timeout=300, cwd=cwd, preexec_fn=limit
    )


@pytest.mark.all
def test_a_full_disk_keeps_the_people_so_far(samples: Path, tmp_path: Path) -> None:
    video = samples / "people.mp4"
    done = limited(15_000, "predict", video, "--json", "p.json", "--frames", 8, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "cannot write 'p.json': File too large; the frames before are kept" in done.stderr
    assert "cannot write 'kdc_output/people.mp4'" in done.stderr
    kept = entries(tmp_path / "p.json")
    assert 0 < len(kept) < 8 and done.stdout.startswith(f"{len(kept)} images")
    assert [entry["frame"] for entry in kept] == list(range(len(kept)))
    assert {path.name for path in tmp_path.rglob("*")} == {"p.json", "kdc_output"}


@pytest.mark.parametrize(
    ("names", "one_size"),
    [(("a.mp4",), True), (("a.mp4", "b.mp4"), False), (("a.png",), False)],
    ids=["video", "videos", "image"],
)
def test_a_runtime_for_frames_of_one_size_is_asked_for_one_video(
    finder: Finder, tmp_path: Path, names: tuple[str, ...], one_size: bool
) -> None:
    for name in ("a.mp4", "b.mp4"):
        make_video(tmp_path / name, 1)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    done = kdc("predict", *(tmp_path / name for name in names), "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert finder.asked["one_size"] is one_size


def test_an_overlay_that_cannot_be_written_costs_no_people(
    finder: Finder, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(samples / "000000000885.jpg", folder / name)
    make_video(folder / "c.mp4", 5)
    for blocked in ("a.jpg", "c.mp4"):
        (tmp_path / "out" / blocked / "x").mkdir(parents=True)
    done = kdc("predict", folder, "--output", tmp_path / "out", "--json", tmp_path / "p.json")
    assert done.returncode == 1 and "7 images, 7 persons, 2 failed" in done.stdout
    for blocked in ("a.jpg", "c.mp4"):
        assert f"cannot write '{tmp_path / 'out' / blocked}'" in done.stderr
    assert len(entries(tmp_path / "p.json")) == 7 and (tmp_path / "out" / "b.jpg").is_file()
    assert done.stderr.count("cannot write") == 2


def test_an_overlay_that_no_codec_takes_costs_no_people(finder: Finder, tmp_path: Path) -> None:
    """A video of one pixel, of which MPEG-4 has none; it is named once."""
    path = tmp_path / "v.webp"
    first, *others = (Image.new("RGB", (1, 1), (90 * n, 0, 0)) for n in range(3))
    first.save(path, save_all=True, append_images=others, duration=100, lossless=True)
    done = kdc("predict", path, "--output", tmp_path / "out", "--json", tmp_path / "p.json")
    assert done.returncode == 1 and "3 images, 3 persons, 1 failed" in done.stdout, done.stderr
    assert done.stderr.count(f"cannot write '{tmp_path / 'out' / 'v.mp4'}'") == 1
    assert [entry["time"] for entry in entries(tmp_path / "p.json")] == [0, 0.1, 0.2]


def test_a_damaged_video_says_what_was_read(finder: Finder, tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.avi")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    done = kdc("predict", path, "--output", tmp_path / "out", "--json", tmp_path / "p.json")
    assert done.returncode == 1 and "of 30 frames could be read" in done.stderr
    *frames, last = entries(tmp_path / "p.json")
    assert len(frames) > 10 and set(last) == {"source", "frame", "error"}
    assert [frame["time"] for frame in frames] == [n / 10 for n in range(len(frames))]
    assert frames_of(tmp_path / "out" / "v.mp4") == len(frames)


def test_a_rate_of_thousands_has_people_and_an_overlay(finder: Finder, tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.avi", 9)
    set_rate(path, 1001, 120000)
    done = kdc("predict", path, "--output", tmp_path / "out", "--json", tmp_path / "p.json")
    assert done.returncode == 0, done.stderr
    assert len(entries(tmp_path / "p.json")) == 9
    assert frames_of(tmp_path / "out" / "v.mp4") == 9


# Names


def test_files_of_any_name_have_people_and_overlays(finder: Finder, tmp_path: Path) -> None:
    """Run in a process of its own too, where OpenCV would end it."""
    folder = os.fsencode(tmp_path) + b"/\xff%02d"
    os.mkdir(folder)
    video, image = make_video(tmp_path / "v.mp4", 2), tmp_path / "i.png"
    cv2.imwrite(str(image), np.zeros((*SIZE, 3), np.uint8))
    names = [b"\xfe\xff.png", b"%03d.mp4", b"%03d.png", b"a\nb.mp4", b"\xe9.mp4"]
    names += [b"y" * 250 + b".webp", b"y" * 251 + b".mp4"]
    for name in names:
        source = image if name.endswith((b"png", b"webp")) else video
        shutil.copy(source, os.fsdecode(folder + b"/" + name))
    given = os.fsdecode(folder)
    output = os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")
    done = kdc("predict", given, "--output", output, "--json", tmp_path / "p.json")
    assert done.returncode == 0, done.stderr
    told = {os.fsencode(str(entry["source"])) for entry in entries(tmp_path / "p.json")}
    assert told == {folder + b"/" + name for name in names}
    written = sorted(os.listdir(os.fsencode(output)))
    ends = {b"png": b"jpg", b"webp": b"jpg", b"mp4": b"mp4"}
    wanted = [stem + b"." + ends[end] for stem, _, end in (n.rpartition(b".") for n in names)]
    assert written == sorted(wanted)


@pytest.mark.all
def test_a_name_that_no_text_holds_in_a_process(samples: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe.jpg"
    shutil.copy(samples / "000000000885.jpg", os.fsdecode(name))
    done = subprocess.run(
        [sys.executable, "-m", "kdc_core", "predict", name, "--json", "p.json"],
        capture_output=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    [entry] = entries(tmp_path / "p.json")
    assert os.path.samefile(os.fsencode(str(entry["source"])), name) and entry["persons"]
    assert os.listdir(os.fsencode(tmp_path / "kdc_output")) == [b"\xff\xfe.jpg"]


def test_names_of_overlays_take_no_longer_with_more_files(finder: Finder, tmp_path: Path) -> None:
    """Of files that are all named alike; quadratic, these take far longer."""
    writer = OverlayWriter(tmp_path, cast(Predictor, finder), pytest.fail)
    begun = time.process_time()
    paths = {writer._path(Frame(f"{n}/a.png", None, None), ".jpg") for n in range(20_000)}
    assert len(paths) == 20_000 and time.process_time() - begun < 5


def test_a_video_given_twice_is_two_overlays(finder: Finder, tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    with OverlayWriter(tmp_path, cast(Predictor, finder), pytest.fail) as writer:
        for index in (0, 1, 0, 1, 2):
            writer.write(Frame("a.mp4", index, image, time=0.1 * index), Prediction((64, 64), ()))
    counts = {path.name: count_frames(str(path)) for path in tmp_path.iterdir()}
    assert counts == {"a.mp4": 2, "a-2.mp4": 3}


# Turned cameras


@pytest.mark.parametrize("degrees", ROTATIONS)
def test_people_come_back_to_where_they_were(degrees: Degrees) -> None:
    """A mark of one pixel and what is said of it go through every turn together."""
    image = np.zeros((30, 50, 3), np.uint8)
    image[7:10, 20:24] = 255
    turned = rotate_image(image, degrees)
    np.testing.assert_array_equal(turned, np.rot90(image, -degrees // 90))
    rows, columns = np.nonzero(turned[..., 0])
    x, y = int(columns.min()), int(rows.min())
    mask = turned[y : rows.max() + 1, x : columns.max() + 1, 0] > 0
    mask[np.nonzero(mask)[0][0], np.nonzero(mask)[1][0]] = True
    keypoints = np.array([[x, y, 0.5], [columns.max(), rows.max(), 0.7]], np.float32)
    box = np.array([x, y, columns.max() + 1, rows.max() + 1], np.float32) - 0.5
    centroids = np.array([[3, x, y, 1]], np.float32)
    person = Person(0.9, keypoints, box, mask, (x, y), centroids)
    back = rotate_back(Prediction((turned.shape[0], turned.shape[1]), (person,)), degrees)
    assert back.size == (30, 50)
    [found] = back.persons
    np.testing.assert_array_equal(found.full_mask(back.size), image[..., 0] > 0)
    assert found.box.tolist() == [19.5, 6.5, 23.5, 9.5]
    assert sorted(found.keypoints[:, 0].tolist()) == [20, 23]
    assert sorted(found.keypoints[:, 1].tolist()) == [7, 9]
    assert found.centroids[0, 0] == 3 and found.centroids[0, 1:3].tolist() == pytest.approx(
        found.keypoints[0, :2].tolist()
    )


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_camera_finds_who_an_upright_one_does(
    degrees: Degrees, predictor: Predictor, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network sees the very same pixels."""
    path = samples / "000000000885.jpg"
    image = decode_image(path.read_bytes(), path.name)
    upright = predictor(image)
    hangs = rotate_image(image, cast(Degrees, (360 - degrees) % 360))
    monkeypatch.setattr(predictor, "rotate", degrees)
    found = predictor(hangs)
    assert found.size == hangs.shape[:2] and len(found) == len(upright) > 0
    for person, other in zip(found.persons, upright.persons, strict=True):
        turned = np.rot90(other.full_mask(upright.size), degrees // 90)
        np.testing.assert_array_equal(person.full_mask(found.size), turned)
        assert person.score == other.score


@pytest.mark.all
def test_rotate_is_an_option_of_predict_and_evaluate(samples: Path, tmp_path: Path) -> None:
    content = json.loads((samples / "annotations.json").read_text())
    names = [image["file_name"] for image in content["images"]]
    for name in names:
        image = cv2.imread(str(samples / name))
        assert image is not None
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.rotate(image, cv2.ROTATE_180))
        cv2.imwrite(str(tmp_path / f"up-{name}.png"), image)
    where = ("--output", tmp_path / "out")
    counts = []
    for source, turn in ((f"up-{names[0]}.png", 0), (f"{names[0]}.png", 180)):
        file = tmp_path / f"{turn}.json"
        done = kdc_process("predict", tmp_path / source, *where, "--json", file, "--rotate", turn)
        assert done.returncode == 0, done.stderr
        [entry] = entries(file)
        counts.append(len(entry["persons"]))
    assert counts[0] == counts[1] > 0
    given = ("--annotations", samples / "annotations.json", "--images", samples)
    figures = []
    for turn in (0, 180):
        done = kdc("evaluate", *given, "--json", tmp_path / "f.json", "--rotate", turn)
        assert done.returncode == 0, done.stderr
        figures.append(json.loads((tmp_path / "f.json").read_text())["keypoint_ap"])
    assert figures[1] < figures[0] / 2, "upside down is harder, and scored where people are"
    assert kdc("evaluate", *given, "--rotate", 45).returncode == 2
    assert kdc("evaluate", *given, "--rotate", 90, "--oracle").returncode == 2


# Ids


def test_people_of_each_video_have_ids_from_1_and_those_of_images_none(
    finder: Finder, samples: Path, tmp_path: Path
) -> None:
    video, image = make_video(tmp_path / "v.mp4", 3), samples / "000000000885.jpg"
    given = ("--output", tmp_path / "out", "--json", tmp_path / "p.json")
    done = kdc("predict", video, image, video, "--track", *given)
    assert done.returncode == 0, done.stderr
    told = [entry["persons"][0].get("id") for entry in entries(tmp_path / "p.json")]
    assert told == [1, 1, 1, None, 1, 1, 1]
    assert "--track: 1 still images, whose people have no ids" in done.stderr
    assert kdc("predict", video, *given).returncode == 0
    assert all("id" not in entry["persons"][0] for entry in entries(tmp_path / "p.json"))


def test_ids_do_not_go_with_ray(samples: Path, tmp_path: Path) -> None:
    done = kdc("predict", samples, "--track", "--ray", "local", "--output", tmp_path / "out")
    assert_refused(done, "--track does not go with --ray, which predicts images alone")
