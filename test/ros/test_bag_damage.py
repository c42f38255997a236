"""`kdc bag`: damaged images and bags, full disks and signals. It needs no ROS."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .bags import (
    IMAGE,
    LOG_S,
    STORE,
    TOPIC,
    Stub,
    assert_nothing_left,
    compressed,
    gray,
    jpeg,
    log_times,
    people_in,
    raw,
    rosbags,
    write_bag,
)

# Damage


def test_a_bad_image_is_counted_and_the_rest_goes_on(bag: Any, stub: Stub, tmp_path: Path) -> None:
    bad = raw(1, gray(0), encoding="32FC1")
    given = write_bag(
        tmp_path / "in",
        raw(0, gray(200)),
        bad,
        raw(2, gray(0), height=60_000),
        raw(3, gray(0), encoding="32FC1"),
        compressed(4, jpeg(gray(200))[:900]),
        compressed(5, png_of(60_000, 60_000)),
        raw(6, gray(200)),
    )
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 1
    assert f"2 images of '{TOPIC}', 2 persons, 5 failed" in done.out
    lines = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 4, "each cause once"
    assert "image 2: encoding '32FC1'" in lines[0] and "320x60000" in lines[1]
    assert "cut off" in lines[2] and "60000x60000" in lines[3]
    assert log_times(tmp_path / "out") == [0, 6]


def png_of(width: int, height: int) -> bytes:
    """A png that says this size and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_messages_that_are_none_are_bad_images(bag: Any, stub: Stub, tmp_path: Path) -> None:
    whole = bytes(STORE.serialize_cdr(raw(0, gray(200)).content, IMAGE))
    claims = bytearray(whole)
    length = len(whole) - gray(0).size - 4
    assert struct.unpack_from("<I", whole, length)[0] == gray(0).size
    struct.pack_into("<I", claims, length, 2**32 - 1)
    with rosbags.Writer(tmp_path / "in", version=9) as writer:
        camera = writer.add_connection(TOPIC, IMAGE, typestore=STORE)
        for number, data in enumerate((b"", b"\0\1\0\0", whole[:1000], bytes(claims), whole)):
            writer.write(camera, (LOG_S + number) * 10**9 + 3, data)
    done = bag(tmp_path / "in", "--output", tmp_path / "out")
    assert done.code == 1 and "1 persons, 4 failed" in done.out
    assert log_times(tmp_path / "out") == [4]


def test_a_time_that_no_bag_can_have_is_a_bad_image(bag: Any, stub: Stub, tmp_path: Path) -> None:
    early = raw(0, gray(0))._replace(log_ns=-5)
    given = write_bag(tmp_path / "in", early, raw(1, gray(0)), storage="SQLITE3")
    done = bag(given / "in.db3", "--output", tmp_path / "out.mcap")
    assert done.code == 1 and "1 failed" in done.out and "-5 ns" in done.err
    assert log_times(tmp_path / "out.mcap") == [1]


def test_no_bag_is_written_where_no_image_can_be_used(
    bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(0), encoding="16UC1"))
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 1 and "16UC1" in done.err and "no bag is written" in done.err
    assert_nothing_left(tmp_path, "in")


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_cut_bag_leaves_nothing_and_fails(
    storage: str, share: float, bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", *(raw(n, gray(0)) for n in range(6)), storage=storage)
    file = next(file for file in given.iterdir() if file.suffix != ".yaml")
    os.truncate(file, int(share * file.stat().st_size))
    for path in (given, file):
        done = bag(path, "--output", tmp_path / "out")
        assert done.code == 1 and "cut off or damaged" in done.err, done
        assert_nothing_left(tmp_path, "in")


@pytest.mark.parametrize(
    "content", [None, "", "a: [", "rosbag2_bagfile_information: {version: 5}"]
)
def test_a_bag_whose_metadata_cannot_be_read_fails(
    content: str | None, bag: Any, stub: Stub, tmp_path: Path
) -> None:
    given = write_bag(tmp_path / "in", raw(0, gray(0)))
    if content is None:
        (given / "metadata.yaml").unlink()
    else:
        (given / "metadata.yaml").write_text(content)
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 1 and "cut off or damaged" in done.err
    assert ("reindex" in done.err) == (content is None)


def test_what_can_be_read_of_a_damaged_bag_is_kept(bag: Any, stub: Stub, tmp_path: Path) -> None:
    given = write_bag(tmp_path / "in", *(raw(n, gray(200)) for n in range(12)))
    file = given / "in.mcap"
    data = bytearray(file.read_bytes())
    third = [at for at in range(len(data)) if data.startswith(b"\x06", at)]
    with rosbags.Reader(file) as reader:
        chunk = reader.storage.chunks[-1]
    assert chunk.chunk_start_offset in third and chunk.message_start_time > LOG_S * 10**9 + 10**9
    begin = chunk.chunk_start_offset + 9 + 40
    data[begin : begin + 1000] = b"\xff" * 1000
    file.write_bytes(data)
    done = bag(given, "--output", tmp_path / "out")
    read = log_times(tmp_path / "out")
    assert 0 < len(read) < 12 and read == list(range(len(read)))
    assert done.code == 1 and f"{len(read)} of 12 images could be read" in done.err


def test_a_chunk_that_unpacks_to_more_than_memory_fails(
    bag: Any, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdc_ros.bag_files.MOST_MEMORY", 100 << 20)
    small = [raw(n, gray(200)) for n in range(6)]
    large = raw(6, gray(0), data=np.zeros(200 << 20, np.uint8))
    given = write_bag(tmp_path / "in", *small, large, packed=True)
    assert (given / "in.mcap").stat().st_size < 1 << 20
    done = bag(given, "--output", tmp_path / "out")
    assert done.code == 1 and "of 7 images could be read" in done.err, done
    assert people_in(tmp_path / "out") == [1] * 5, "those of the chunk before"


# What breaks it off


@pytest.mark.parametrize("ending", [".mcap", ".db3"])
def test_a_full_disk_leaves_nothing(ending: str, bag: Any, stub: Stub, tmp_path: Path) -> None:
    given = write_bag(tmp_path / "in", *(raw(n, gray(0)) for n in range(20)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        done = bag(given, "--output", tmp_path / f"out{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code == 1 and "cannot write" in done.err, done
    assert_nothing_left(tmp_path, "in")


def process(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kdc_core", "bag", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.all
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_half_bag_is_left_by_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    given = write_bag(tmp_path / "in", *(raw(n, gray(0)) for n in range(400)))
    running = process(given, "--output", tmp_path / "out")
    while not list(tmp_path.glob(".kdc-*/out/*")):  # the bag under way
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 128 + number and f"stopped by {number.name}" in err
    assert "Traceback" not in err and "people in" not in out
    assert_nothing_left(tmp_path, "in")


@pytest.mark.all
def test_a_view_stays_until_ctrl_c_with_the_bag_written(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun is not installed (extra `view`)")
    given = write_bag(tmp_path / "in", *(raw(n, gray(0)) for n in range(3)))
    running = process(given, "--output", tmp_path / "out", "--view")
    try:
        assert running.stderr is not None
        lines: list[str] = []
        while not lines or "stays until Ctrl-C" not in lines[-1]:
            assert (line := running.stderr.readline()), lines
            lines.append(line)
        assert any("live view: http://127.0.0.1:" in line for line in lines)
        assert people_in(tmp_path / "out") == [0, 0, 0]
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0 and "error" not in err.lower(), err
        assert "people in" in out
    finally:
        running.kill()


def test_what_is_missing_is_named_with_its_extra(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules['rosbags'] = sys.modules['rclpy'] = None\n"
        "from kdc_core import cli\n"
        f"print(cli.run(['bag', 'x', '--output', {str(tmp_path / 'out')!r}]), cli.run(['echo']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "2"], done.stderr
    assert "'rosbags': pip install 'kdc_ros[bag]'" in done.stderr
    assert "'rclpy': source /opt/ros/DISTRIBUTION/setup.bash, or where no ROS" in done.stderr
    assert "pip install 'kdc_ros[ros-wheels]'" in done.stderr
