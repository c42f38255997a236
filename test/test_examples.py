"""The examples, run as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.data.bits16 import To8Bits
from kdc_core.data.images import Images
from kdc_ros import env

EXAMPLES = Path(__file__).parents[1] / "examples"
SAMPLES = Path(str(files("kdc_core") / "samples"))
IMAGE = "000000000885.jpg"
TIMEOUT_S = 60.0


def run(example: str, *arguments: object, cwd: Path) -> str:
    """Run an example to its end, in a folder; what it printed."""
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_image(tmp_path: Path) -> None:
    printed = run("predict_image.py", SAMPLES / IMAGE, "people.jpg", cwd=tmp_path)
    assert "person 1: score" in printed and "nose" in printed
    assert "people cover" in printed
    image, drawn = Images(SAMPLES).read(IMAGE), Images(tmp_path).read("people.jpg")
    assert drawn.shape == image.shape
    # The overlay covers the people, and the colors of the rest are not swapped.
    changed = np.abs(drawn.astype(int) - image).max(2) > 40
    assert 0.02 < changed.mean() < 0.3


def test_a_video(tmp_path: Path) -> None:
    clip = SAMPLES / "people.mp4"
    printed = run("predict_video.py", clip, "out.mp4", "--frames", 3, cwd=tmp_path)
    assert "frame 2: 1 people" in printed and "frame 3" not in printed
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 640
    assert video.get(cv2.CAP_PROP_FRAME_HEIGHT) == 360


@pytest.mark.all
def test_a_bag_of_the_sample_video(tmp_path: Path) -> None:
    pytest.importorskip("rosbags")
    from kdc_ros.bag_files import decode, open_bag

    assert "40 images on /camera/image_raw" in run("sample_bag.py", "bag", cwd=tmp_path)
    with open_bag(tmp_path / "bag") as bag:
        assert bag.topics == {"/camera/image_raw": 40}
        images = list(bag.read("/camera/image_raw"))
    header, pixels = decode(images[-1], To8Bits())
    video = cv2.VideoCapture(str(SAMPLES / "people.mp4"))
    frames = [video.read()[1] for _ in images]
    assert np.array_equal(pixels, frames[-1][..., ::-1])
    assert (header.stamp.sec, header.stamp.nanosec) == (4, 900_000_000)
    assert images[-1].log_ns == 4_900_000_000


@pytest.mark.slow
@pytest.mark.all
def test_a_data_set_of_ones_own(tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for path in sorted(SAMPLES.glob("*.jpg"))[:2]:
        (images / path.name).write_bytes(path.read_bytes())
    (output / "data").mkdir(parents=True)  # of a call that was stopped
    printed = run("own_dataset.py", images, output, cwd=tmp_path)
    assert "call again" in printed and not (output / "run").exists()
    drafted = json.loads((output / "data" / "annotations.json").read_text())
    assert len(drafted["images"]) == 2 and len(drafted["annotations"]) >= 5
    assert (output / "sheet.jpg").is_file()

    few = ["train.steps=2", "train.batch=2", "train.crop=128", "train.workers=0"]
    options = [part for setting in few for part in ("--set", setting)]
    printed = run("own_dataset.py", images, output, *options, cwd=tmp_path)
    assert printed.count(" people\n") == 2 and "kdc export" in printed
    assert (output / "run" / "model.safetensors").is_file()


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A namespace of this test's own; what ROS finds in the environment is undone with it."""
    pytest.importorskip("rclpy")
    for name in ("AMENT_PREFIX_PATH", env.FASTDDS_2, env.FASTDDS_3):
        known = os.environ.get(name)
        monkeypatch.setenv(name, known or "")
        if known is None:
            del os.environ[name]
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "ros_log"))
    env.prepare()
    return f"/examples_{os.getpid()}"


@pytest.mark.ros
def test_a_subscriber_of_a_running_node(ros: str, tmp_path: Path) -> None:
    from kdc_ros.camera import Camera, node_process

    arguments = ["--ros-args", "-r", f"__ns:={ros}"]
    command = [sys.executable, "-u", str(EXAMPLES / "subscriber_node.py"), *arguments]
    log = tmp_path / "printed.txt"
    with open(log, "w") as out, node_process(*arguments[1:], log=tmp_path / "node.txt"):
        subscriber = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        camera = Camera(namespace=ros)
        try:
            camera.wait_for_node()
            image = camera.image(Images(SAMPLES).read(IMAGE))
            end = time.monotonic() + TIMEOUT_S
            while "person 1: nose (" not in log.read_text():
                assert time.monotonic() < end, f"nobody printed within {TIMEOUT_S} s"
                camera.ask(image)
        finally:
            camera.close()
            subscriber.send_signal(signal.SIGINT)
            subscriber.wait(TIMEOUT_S)
    assert subscriber.returncode == 0, log.read_text()
    # The image was asked for about again until it was printed: one line of each answer is enough.
    stamp = image.header.stamp
    assert f"{stamp.sec}.{stamp.nanosec:09d} camera: " in log.read_text()


@pytest.mark.ros
def test_a_video_played_to_a_node_and_its_subscriber(ros: str, tmp_path: Path) -> None:
    """For longer than it lasts: it begins again."""
    from kdc_ros.camera import node_process

    namespace = ["-r", f"__ns:={ros}"]
    image = ["-r", f"image:={ros}/camera/image_raw"]
    log = tmp_path / "printed.txt"
    commands = (
        ["video_camera.py", str(SAMPLES / "people.mp4"), "--ros-args", *namespace],
        ["subscriber_node.py", "--ros-args", *namespace],
    )
    with open(log, "w") as out, node_process(*namespace, *image, log=tmp_path / "node.txt"):
        started = [
            subprocess.Popen(
                [sys.executable, "-u", str(EXAMPLES / name), *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            for name, *arguments in commands
        ]
        try:
            end = time.monotonic() + TIMEOUT_S
            while log.read_text().count(" camera: ") < 45:
                assert time.monotonic() < end, log.read_text()[-500:]
                time.sleep(0.1)
        finally:
            for process in started:
                process.send_signal(signal.SIGINT)
                process.wait(TIMEOUT_S)
    assert [process.returncode for process in started] == [0, 0], log.read_text()[-500:]


def test_what_is_no_video_is_said_so(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    (tmp_path / "a.mp4").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "video_camera.py"), "a.mp4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "'a.mp4' is not a video" in done.stderr


CPP = EXAMPLES / "cpp"
STUB = Path(__file__).parent / "stub" / "rclcpp"
# Reads the files keypoints and labels, and prints what the header of the example makes of them.
READER = """
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include "kdc_people.hpp"
std::vector<std::uint8_t> bytes(const char * name) {
  std::ifstream file(name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
int main(int, char ** n) {
  auto u = [](const char * text) {return std::uint32_t(std::stoul(text));};
  for (const auto & person : kdc::read_keypoints(bytes("keypoints"), u(n[1]), u(n[2]), u(n[3])))
    for (const auto & k : person)
      std::printf("%d %s %.9g %.9g %.9g %d\\n", k.id, kdc::KEYPOINTS[k.kp], k.u, k.v, k.score,
        k.visible);
  for (auto id : kdc::read_labels(bytes("labels"), u(n[4]), u(n[5]), u(n[6])))
    std::printf("%d ", id);
  for (int refused = 0; refused < 2; ++refused) {
    try {
      refused ? (void)kdc::read_labels({0, 0}, 1, 2, 4) : (void)kdc::read_keypoints({0}, 1, 1, 16);
    } catch (const std::invalid_argument & error) {
      std::printf("\\n%s", error.what());
    }
  }
}
"""


def compile_cpp(*words: object) -> None:
    """By g++, every warning an error."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{CPP / 'include'}"]
    done = subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.all
@pytest.mark.ros
def test_cpp_reads_what_the_node_publishes(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    from std_msgs.msg import Header

    from kdc_ros.messages import keypoints_cloud, labels_image
    from kdc_ros.tables import KEYPOINT

    rng = np.random.default_rng(1)
    people = [
        Person(
            score=0.5,
            keypoints=rng.uniform(0, 1, (17, 3)).astype(np.float32) * (9, 7, 1),
            box=np.array([0, 0, 4, 3], np.float32),
            mask=rng.uniform(size=(3, 4)) < 0.7,
            mask_origin=(index, 2 * index),
            centroids=np.zeros((0, 4), np.float32),
            id=id,
        )
        for index, id in enumerate((700, 3))
    ]
    prediction = Prediction((7, 9), tuple(people))
    cloud = keypoints_cloud(Header(), prediction, COCO17, 0.4)
    labels = labels_image(Header(), prediction)
    for name, message in (("keypoints", cloud), ("labels", labels)):
        (tmp_path / name).write_bytes(message.data.tobytes())
    (tmp_path / "reader.cpp").write_text(READER)
    compile_cpp(tmp_path / "reader.cpp", "-o", tmp_path / "reader")
    shape = (cloud.height, cloud.width, cloud.point_step, labels.height, labels.width, labels.step)
    done = subprocess.run(
        ["./reader", *map(str, shape)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *cells, ids, refused, refused_too = done.stdout.splitlines()
    rows = np.frombuffer(cloud.data, KEYPOINT)
    assert len(cells) == len(rows) == 34 and {row["id"] for row in rows} == {3, 700}
    assert 0 < rows["visible"].sum() < 34
    for cell, row in zip(cells, rows, strict=True):
        id, name, u, v, score, visible = cell.split()
        assert (int(id), int(visible)) == (row["id"], row["visible"])
        assert name == COCO17.keypoints[row["kp"]]
        numbers = np.array([u, v, score], np.float32)
        assert np.array_equal(numbers, [row["u"], row["v"], row["score"]], equal_nan=True)
    assert np.array_equal(np.array(ids.split(), "<u2"), np.frombuffer(labels.data, "<u2"))
    assert refused.startswith("not a table") and refused_too.startswith("not an image")


@pytest.mark.all
def test_the_listener_in_cpp_uses_the_messages_as_they_are() -> None:
    """Its syntax, by the headers of the real messages and a stub of rclcpp, which has no wheel."""
    include = Path(sys.prefix) / "include"
    if not (include / "sensor_msgs").is_dir():
        pytest.skip("the messages' headers are not beside this Python: they come with the wheels")
    folders = [word for path in include.iterdir() for word in ("-isystem", path)]
    source = CPP / "src" / "people_listener.cpp"
    compile_cpp("-fsyntax-only", *folders, f"-I{STUB}", source)
