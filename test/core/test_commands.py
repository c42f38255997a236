"""Every command, as a user calls it."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from pycocotools.coco import COCO

import kdc_core
from kdc_core.cli import app, join_commands
from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17, SKELETONS
from kdc_core.commands import paper
from kdc_core.config import Config
from kdc_core.data.images import Images
from kdc_core.data.sources import Frame
from kdc_core.inference.predictor import Predictor
from kdc_core.network.weights import load_model

from .commands import assert_refused, kdc, kdc_process

# All commands

COMMANDS = "predict evaluate flicker ablate limits paper train tune export data bench doctor"
COMMANDS += " bag echo soak"  # of kdc_ros
PAPER = "table1 table2 table3 table4 figure4 figure5"
BENCH = {"bench", *map("bench {}".format, "predictor node data runtimes ids".split())}


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group below one."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from paths(below, (*path, name))


def test_the_version_is_told() -> None:
    assert kdc("--version").stdout == f"kdc {kdc_core.__version__}\n"


def test_every_command_tells_what_it_does() -> None:
    join_commands()
    found = list(paths(typer.main.get_command(app)))
    names = {" ".join(path) for path in found}
    assert {*COMMANDS.split(), *map("paper {}".format, PAPER.split()), "data check"} <= names
    assert {name for name in names if "bench" in name} == BENCH
    for path in found:
        done = kdc(*path, "--help")
        words = " ".join((*path, "[OPTIONS]"))
        assert done.returncode == 0 and words in done.stdout.splitlines()[1], path
        assert path == () or path[-1] in kdc(*path[:-1], "--help").stdout


@pytest.fixture
def few(data_set: Path) -> tuple[str | Path, ...]:
    """Options that name two annotated images."""
    content = json.loads(data_set.read_text())
    data_set.write_text(json.dumps({**content, "images": content["images"][:2]}))
    return ("--annotations", data_set, "--images", data_set.with_name("few"))


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("evaluate", "mask_ap_full"),
        ("ablate edges", "masks of persons with keypoints"),
        ("paper table1 --model kdc_light", "KDC RN-152 (published)"),
    ],
)
def test_commands_about_data_sets_as_processes(
    command: str, text: str, few: tuple[str | Path, ...]
) -> None:
    done = kdc_process(*command.split(), *few)
    assert done.returncode == 0, done.stderr
    assert text in done.stdout


def test_doctor_says_what_runs() -> None:
    done = kdc_process("doctor")
    assert done.returncode == 0
    assert "runtime onnxruntime" in done.stdout and "works on cpu" in done.stdout
    assert "runtime tensorrt-rtx" in done.stdout and "auto takes" in done.stdout


@pytest.mark.all
def test_export_writes_a_model_that_predicts(samples: Path, tmp_path: Path) -> None:
    done = kdc_process("export", "kdc_light", "--output", tmp_path / "m.onnx")
    assert done.returncode == 0, done.stderr
    image = cv2.imread(str(samples / "000000000885.jpg"))
    assert image is not None
    ours, shipped = (
        Predictor.from_pretrained(model, image_format="bgr")(image)
        for model in (str(tmp_path / "m.onnx"), "kdc_light")
    )
    assert ours.persons
    assert [p.score for p in ours.persons] == [p.score for p in shipped.persons]


def test_export_with_the_settings_of_a_preset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exported: list[Path] = []

    def export(model: Path, output: Path, *_: object) -> None:
        exported.append(model)
        output.write_bytes(b"a graph")

    monkeypatch.setattr("kdc_core.inference.export.export_onnx", export)
    monkeypatch.setattr("kdc_core.inference.check.check_program", lambda program, model: ())
    preset = tmp_path / "mine.yaml"
    preset.write_text("name: mine\npredict: {confidence: 0.7}\n")
    to = ("--output", tmp_path / "m.onnx", "--preset", preset)
    done = kdc("export", "kdc_light", *to)
    assert done.returncode == 0 and f"wrote '{tmp_path / 'm.onnx'}'" in done.stdout, done.stderr
    model = tmp_path / "m.safetensors"
    assert exported == [model]
    network, _ = load_model(model)
    assert network.config.predict.confidence == 0.7 and network.config.name == "kdc_light"
    before = model.read_bytes()
    assert_refused(kdc("export", model, *to), "would overwrite")
    assert model.read_bytes() == before


def test_help_loads_no_library_of_images_or_networks() -> None:
    """`kdc --help` answers at once."""
    heavy = "numpy cv2 torch onnxruntime pydantic scipy matplotlib rclpy rosbags".split()
    script = (
        "import sys\nfrom kdc_core.cli import run\nrun(['--help'])\n"
        f"print([m for m in {heavy} if m in sys.modules], 'kdc_ros.bag' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[] True", done.stderr


def test_commands_of_other_packages_are_loaded_where_they_are_asked_for() -> None:
    script = (
        "import sys\nfrom kdc_core.cli import run\n"
        "for words in (['data', '--help'], ['echo', '--help'], ['echoes']):\n"
        "    print(run(words), sorted(m for m in sys.modules if m.startswith('kdc_ros.')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("0 [", "2 ["))]
    echo = "'kdc_ros.echo'"
    assert lines == ["0 []", f"0 [{echo}]", f"2 ['kdc_ros.bag', {echo}, 'kdc_ros.soak']"]
    assert "No such command 'echoes'" in done.stderr


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for words in (
        ("train", "kdc_light", "--data", "a", "--output", "b"),
        ("paper", "table1", "--model", "kdc_light", "--annotations", "a", "--images", "b"),
        ("paper", "table3", "--model", "kdc_light", "--annotations", "a", "--images", "b"),
    ):
        assert_refused(kdc(*words), "this command needs 'torch': pip install 'kdc_ros[train]'")


def test_a_mistake_of_ours_is_no_message_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(progress: object) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr("kdc_core.doctor.report", wrong)
    with pytest.raises(ValueError, match="a mistake"):
        kdc("doctor")


def test_options_that_may_be_given_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs: list[tuple[Config, list[str]]] = []

    def train(config: Config, data: list[str], *others: object, **settings: object) -> None:
        runs.append((config, data))

    monkeypatch.setattr("kdc_core.training.run.train", train)
    monkeypatch.setattr("logging.basicConfig", lambda **settings: None)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    several = ("--data", "a", "--data", "b", "--set", "train.batch=3", "--set", "train.steps=7")
    done = kdc("train", "kdc_light", *several, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    [(config, data)] = runs
    assert data == ["a", "b"] and (config.train.batch, config.train.steps) == (3, 7)

    scored = SimpleNamespace(
        protocol="COCO", figures={"mask_ap_full": 0.123}, annotations=SimpleNamespace(images=[0])
    )
    monkeypatch.setattr(paper, "score", lambda *others, **settings: scored)
    monkeypatch.setattr(paper, "check_weights", lambda models: None)
    models = ("--model", "one", "--model", "other", "--annotations", "a", "--images", "b")
    done = kdc("paper", "table3", *models, "--json", tmp_path / "3.json")
    assert list(json.loads((tmp_path / "3.json").read_text())) == ["one", "other"]
    assert "1 images; protocol: COCO" in " ".join(done.stdout.split())
    assert "ours: one, end to end" in done.stdout and "ours: other, end to end" in done.stdout
    assert_refused(kdc("train", "kdc_light", "--data", "a", "b", "--output", "c"), "argument")


def test_bench_prints_and_writes_its_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "kdc_core.bench.predictor.bench_predictor",
        lambda model, rounds: {"network_ms": 79.5, "rounds": float(rounds)},
    )
    done = kdc("bench", "predictor", "--rounds", 3, "--json", tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == {"network_ms": 79.5, "rounds": 3.0}
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["network_ms", "79.500"],
        ["rounds", "3.000"],
    ]


# kdc predict


def test_predict_goes_on_past_files_it_cannot_read(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(samples / "000000409475.jpg", folder / "a.jpg")
    data = (samples / "000000283520.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(b"not an image")
    (folder / "c.jpg").write_bytes(b"")
    (folder / "d.jpg").write_bytes(data)
    done = kdc("predict", folder, "--output", tmp_path / "out", "--json", tmp_path / "p.json")
    assert done.returncode == 1, done.stderr
    assert "b.jpg' cannot be read as a" in done.stderr
    assert "2 images, " in done.stdout and " 2 failed" in done.stdout
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "d.jpg"]
    people = json.loads((tmp_path / "p.json").read_text())
    assert list(people) == ["model", "keypoints", "images"]
    assert people["model"] == "kdc_light" and people["keypoints"] == list(COCO17.keypoints)
    assert [Path(i["source"]).name for i in people["images"]] == [f"{n}.jpg" for n in "abcd"]
    first = people["images"][0]
    assert list(first) == ["source", "frame", "size", "persons"] and first["frame"] is None
    assert len(first["persons"]) >= 2 and len(first["persons"][0]["keypoints"]) == 17
    assert list(people["images"][1]) == ["source", "frame", "error"]


def test_predict_writes_a_video_for_a_video(samples: Path, tmp_path: Path) -> None:
    video = samples / "people.mp4"
    done = kdc_process("predict", video, "--output", tmp_path / "out", "--frames", 6)
    assert done.returncode == 0, done.stderr
    written = cv2.VideoCapture(str(tmp_path / "out" / "people.mp4"))
    assert int(written.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["people.mp4"]


class Camera:
    """A camera that no machine has, and a predictor that finds one person in each frame.

    Args:
        frames: it gives.
        before_each: called with the number of a frame before it is given.
    """

    def __init__(self, frames: int, before_each: Callable[[int], None] = lambda number: None):
        self.config, self.skeleton = SimpleNamespace(name="fake"), COCO17
        self.thresholds = SimpleNamespace(keypoint=0.3)
        self._frames, self._before_each = frames, before_each
        self.about = "a stub"
        self._arrays: list[weakref.ref[np.ndarray]] = []

    def read(self, source: str) -> Iterator[Frame]:
        for number in range(self._frames):
            self._before_each(number)
            image = self._kept(np.zeros((48, 64, 3), np.uint8))
            yield Frame(source, number, image, None, number / 10, 0.1)

    def __call__(self, image: np.ndarray, thresholds: Any = None) -> Prediction:
        mask = self._kept(np.ones((20, 10), bool))
        box = np.array([5, 5, 15, 25], np.float32)
        person = Person(0.9, np.zeros((17, 3)), box, mask, (5, 5), np.zeros((0, 4)))
        return Prediction((48, 64), (person,))

    def _kept(self, array: np.ndarray) -> np.ndarray:
        self._arrays.append(weakref.ref(array))
        return array

    def alive(self) -> int:
        """How many of its images and masks anything still refers to."""
        return sum(array() is not None for array in self._arrays)

    def predict(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *more: object) -> Any:
        """Run `kdc predict` on it."""
        monkeypatch.setattr("kdc_core.data.sources.read_frames", self.read)
        monkeypatch.setattr(Predictor, "from_pretrained", lambda *a, **settings: self)
        return kdc("predict", "0", "--output", folder / "out", *more)


@pytest.mark.parametrize("with_json", [False, True])
def test_a_camera_left_running_holds_its_memory(
    with_json: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alive: list[int] = []
    written: list[int] = []
    part = tmp_path / f".p.{os.getpid()}.part.json"

    def look(number: int) -> None:
        alive.append(camera.alive())
        written.append(part.stat().st_size if part.exists() else 0)

    camera = Camera(300, look)
    more = ("--json", tmp_path / "p.json") if with_json else ()
    done = camera.predict(monkeypatch, tmp_path, *more)
    assert done.returncode == 0, done.stderr
    assert "300 images, 300 persons, 0 failed" in done.stdout
    # The image and the mask of one frame before, not of all.
    assert len(alive) == 300 and max(alive) <= 4
    if with_json:
        assert written[150] > 0 and written[-1] > 1.5 * written[150], "as they come"
        images = json.loads((tmp_path / "p.json").read_text())["images"]
        assert [image["frame"] for image in images] == list(range(300))
        [person] = images[-1]["persons"]
        assert person["segmentation"]["size"] == [48, 64] and not part.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_what_was_done(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a live camera Ctrl-C is the usual end."""

    def stop(frame: int) -> None:
        if frame == 4:
            os.kill(os.getpid(), number)
            time.sleep(0.2)

    done = Camera(9, stop).predict(monkeypatch, tmp_path, "--json", tmp_path / "p.json")
    assert done.returncode == (0 if number == signal.SIGINT else 143), done.stderr
    content = json.loads((tmp_path / "p.json").read_text())
    assert [image["frame"] for image in content["images"]] == [0, 1, 2, 3]
    assert [image["time"] for image in content["images"]] == [0.0, 0.1, 0.2, 0.3]
    assert content["keypoints"] == list(COCO17.keypoints)
    video = cv2.VideoCapture(str(tmp_path / "out" / "camera0.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 4
    assert {p.name for p in tmp_path.rglob("*")} == {"p.json", "out", "camera0.mp4"}


def test_a_signal_before_the_first_frame_leaves_a_file_of_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(frame: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)

    done = Camera(1, stop).predict(monkeypatch, tmp_path, "--json", tmp_path / "p.json")
    assert done.returncode == 143
    assert json.loads((tmp_path / "p.json").read_text())["images"] == []


def test_a_file_that_cannot_be_written_is_said_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(number: int) -> None:
        raise AssertionError("a frame was read")

    camera = Camera(1, never)
    done = camera.predict(monkeypatch, tmp_path, "--json", tmp_path / "none" / "p.json")
    assert_refused(done, "cannot write")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("nothing.jpg", None, "does not exist"),
        ("empty", {}, "no images or videos"),
        ("a.txt", "x", "neither an image nor a video"),
    ],
)
def test_predict_refuses_what_is_no_source(
    name: str, content: object, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif content is not None:
        (tmp_path / name).mkdir()
    assert_refused(kdc("predict", tmp_path / name), text)
    assert not (tmp_path / "kdc_output").exists()


def test_a_truncated_video_is_an_error_not_an_end(samples: Path, tmp_path: Path) -> None:
    data = (samples / "people.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:2000])
    done = kdc("predict", tmp_path / "cut.mp4", "--output", tmp_path / "out")
    assert done.returncode == 1 and "cut.mp4" in done.stderr


def test_a_broken_model_is_one_line_not_a_traceback(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing of ours")
    done = kdc("predict", samples / "000000000885.jpg", "--model", tmp_path / "m.onnx")
    assert_refused(done, "m.onnx")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


# kdc evaluate


def test_evaluate_from_a_tar_with_an_image_missing(
    few: tuple[str, Path, str, Path], tmp_path: Path
) -> None:
    _, annotations, _, folder = few
    content = json.loads(annotations.read_text())
    name = content["images"][0]["file_name"]
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        tar.add(folder / name, name)
    zipped = tmp_path / "few.json.gz"
    zipped.write_bytes(gzip.compress(annotations.read_bytes()))
    where = ("--annotations", zipped, "--images", tmp_path / "two.tar")
    files = ("--json", tmp_path / "f.json", "--results", tmp_path / "r.json")
    done = kdc("evaluate", *where, *files)
    assert done.returncode == 1
    assert "is not in" in done.stderr
    assert json.loads((tmp_path / "f.json").read_text())["failed"] == 1
    results = json.loads((tmp_path / "r.json").read_text())
    assert len(results) == len(COCO(str(annotations)).loadRes(str(tmp_path / "r.json")).anns) > 0
    assert {result["image_id"] for result in results} == {content["images"][0]["id"]}
    # A table of the paper would not be true.
    done = kdc("paper", "table1", "--model", "kdc_light", *where)
    assert done.returncode == 1 and "1 images could not" in done.stderr and not done.stdout


@pytest.mark.parametrize(("broken", "status"), [(1, 2), (2, 1)])
def test_a_fault_of_the_system_is_a_refusal_only_before_the_work(
    broken: int, status: int, monkeypatch: pytest.MonkeyPatch, few: tuple[str, Path, str, Path]
) -> None:
    calls = 0
    usual = Predictor.__call__

    def predict(self: Predictor, image: np.ndarray) -> Prediction:
        nonlocal calls
        calls += 1
        if calls == broken:
            raise OSError(errno.EIO, "the disk is gone")
        return usual(self, image)

    monkeypatch.setattr(Predictor, "__call__", predict)
    done = kdc("evaluate", *few)
    assert done.returncode == status, done.stderr
    assert "error: [Errno 5] the disk is gone" in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a complete JSON"),
        ("[1, 2]", "not a COCO annotation file"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1]}]}', "annotation 0"),
        ('{"images": [{"id": 1}], "annotations": []}', "image 0"),
    ],
)
def test_evaluate_refuses_foreign_annotations(
    text: str, reason: str, samples: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(text)
    done = kdc("evaluate", "--annotations", tmp_path / "a.json", "--images", samples)
    assert_refused(done, reason)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("evaluate --subset none", "expected all or coco_persons, got 'none'"),
        ("evaluate --scales 640,32", "expected sides of 128 to 4096 px"),
        ("evaluate --scales a", "expected sides of 128 to 4096 px"),
        ("evaluate --oracle --flip", "--oracle decodes the annotations: expected none of --flip"),
        ("evaluate --preset oracle", "--preset gives settings of --oracle"),
        ("evaluate --oracle --scales 640", "--oracle decodes the annotations"),
        ("evaluate --oracle --model m.onnx", "--oracle decodes the annotations, no model"),
        ("evaluate --flip --runtime openvino", "run by torch, on the CPU: got --runtime openvino"),
        ("evaluate --oracle --device cuda", "run by torch, on the CPU"),
        ("predict a.jpg --workers 3", "--workers and --format go with --ray"),
        ("predict a.jpg --format parquet", "--workers and --format go with --ray"),
        ("paper table3 --model kdc_light --split train", "expected val or test, got 'train'"),
        ("train kdc_light --data a --output b --max-time 3", "expected e.g. 90m, 2h or 45s"),
        ("train nothing --data a --output b", "no preset 'nothing'"),
        ("flicker video.mp4 --confidence 2", "--confidence"),
    ],
)
def test_values_of_options_are_checked_first(command: str, text: str, tmp_path: Path) -> None:
    words = command.split()
    if words[0] in ("evaluate", "paper"):
        words += ["--annotations", str(tmp_path / "a"), "--images", str(tmp_path / "b")]
    assert_refused(kdc(*words), text)


def test_frames_limit_videos_and_not_the_pages_of_an_image(samples: Path, tmp_path: Path) -> None:
    page = cv2.resize(Images(samples).read("000000409475.jpg"), (96, 64))
    assert cv2.imwritemulti(str(tmp_path / "pages.tiff"), [page] * 3)
    given = (tmp_path / "pages.tiff", samples / "people.mp4", "--output", tmp_path / "out")
    done = kdc("predict", *given, "--frames", 2)
    assert done.returncode == 0 and done.stdout.startswith("5 images"), done.stderr


def test_oracle_on_the_sample_images(samples: Path, tmp_path: Path) -> None:
    where = ("--annotations", samples / "annotations.json", "--images", samples)
    done = kdc("evaluate", "--oracle", *where, "--json", tmp_path / "f.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["keypoint_ap"] > 0.97 and figures["mask_ap_keypoint_persons"] > 0.80
    assert figures["model"] == "oracle (oracle)"


def test_data_check_knows_every_skeleton() -> None:
    refused = kdc("data", "check", "a", "--skeleton", "none")
    assert_refused(refused, "expected coco17 or ")
    assert all(name in refused.stderr for name in SKELETONS)


def test_a_pickled_file_is_named_as_such(tmp_path: Path) -> None:
    """Not as a program for other runtimes, which an .onnx file is."""
    for name in ("resnet101.pth", "last.ckpt"):
        torch.save({"weight": torch.zeros(2)}, tmp_path / name)
        done = kdc("limits", tmp_path / name, "--annotations", tmp_path, "--images", tmp_path)
        assert_refused(done, "it looks pickled, which is never loaded")
