"""`kdc engine`, as a user calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.commands import assert_refused, kdc
from core.engine.conftest import FAKE, Play
from kdc_core.inference.model_files import FASTER
from kdc_core.show.progress import build_bar


def test_a_phase_is_shown_as_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with build_bar() as progress:
        progress("tactics [/x]", 1, 2)
    assert "tactics [/x]" in capsys.readouterr().err


def test_descriptions_that_are_no_files_are_not_read(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / f"{'a' * 64}.json"
    os.mkfifo(path)
    assert "description" in kdc("engine", "list", "--cache", folder).stdout
    seen = kdc("engine", "inspect", "aaaa", "--cache", folder)
    assert "its description is no file" in " ".join((seen.stdout + seen.stderr).split())


def test_build_list_inspect_clean(play: Play, folder: Path, small: Path) -> None:
    play(version="rtx 1.7.1.116", cuda={"init": "absent"})
    build = ("engine", "build", small, "--size", "448x576", "--target", "8.9", "--cache", folder)
    done = kdc(*build)
    assert done.returncode == 0, done.stderr
    assert "built, " in done.stdout and "for target 8.9" in done.stdout
    assert "Timing graph nodes" in done.stderr
    again = kdc(*build)
    assert "already there, whole and unchanged" in again.stdout
    listed = kdc("engine", "list", "--cache", folder).stdout
    (engine,) = folder.glob("*.engine")
    assert engine.stem[:12] in listed
    seen = kdc("engine", "inspect", engine.stem[:6], "--cache", folder).stdout
    lines = dict(line.split(maxsplit=1) for line in seen.splitlines() if line.split())
    assert lines["target"] == "8.9" and lines["shapes"] == "448x576"
    assert lines["precision"] == "fp32" and lines["family"] == "tensorrt-rtx"
    assert "unchanged          yes" in seen
    assert "runs here          no: no usable NVIDIA driver" in seen
    engine.write_bytes(engine.read_bytes()[:-1])
    seen = kdc("engine", "inspect", engine.stem, "--cache", folder).stdout
    assert "unchanged          no: engine of 6027 bytes, 6028 were written" in seen
    assert "broken" in " ".join(kdc("engine", "list", "--cache", folder).stdout.split())
    assert "removed 3 files" in kdc("engine", "clean", "--cache", folder).stdout
    assert not list(folder.iterdir())


def test_a_gpu_runs_its_own_engine(play: Play, folder: Path, small: Path) -> None:
    play()
    profile = "320x320,448x576,576x576"
    done = kdc("engine", "build", small, "--profile", profile, "--cache", folder)
    assert "for NVIDIA RTX 4000 Ada (8.9, 20 GiB)" in done.stdout, done.stderr
    (engine,) = folder.glob("*.engine")
    seen = kdc("engine", "inspect", engine.stem, "--cache", folder).stdout
    assert "320x320 to 448x576 to 576x576" in seen and "runs here          yes" in seen
    assert "removed 0 files" in kdc("engine", "clean", "--cache", folder).stdout
    assert kdc("engine", "clean", "--all", "--cache", folder).returncode == 0
    assert not list(folder.iterdir())


def test_what_is_built_beforehand_is_what_the_node_looks_for(play: Play, folder: Path) -> None:
    play(version="rtx 1.7.1.116", cuda={"init": "absent"})
    build = ("engine", "build", "kdc_light", "--size", "448x576", "--target", "8.9")
    assert kdc(*build, "--cache", folder).returncode == 0
    (engine,) = folder.glob("*.engine")
    seen = kdc("engine", "inspect", engine.stem, "--cache", folder).stdout
    assert f"precision          {FASTER['tensorrt']}" in seen


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "expected either --size HEIGHTxWIDTH or --profile"),
        (["--size", "448x576", "--profile", "1x1,1x1,1x1"], "expected either --size"),
        (["--size", "448"], "HEIGHTxWIDTH, such as 448x576, got '448'"),
        (["--size", "450x576", "--target", "8.9"], "multiples of 32"),
        (["--size", "448x576"], "no usable NVIDIA driver"),
        (["--size", "448x576"], "name its compute capability, such as --target 8.9"),
        (["--size", "448x576", "--target", "9.0"], "cannot target compute capability 9.0"),
        (["--size", "448x576", "--target", "ada"], "expected a compute capability such as 8.9"),
        (["--size", "448x576", "--precision", "fp16"], "there is no '"),
        (["--size", "448x576", "--precision", "fp8"], "expected auto or fp32 or fp16 or int8-trt"),
    ],
)
def test_what_cannot_be_built_is_refused(
    play: Play, folder: Path, small: Path, options: list[str], text: str
) -> None:
    play(version="rtx 1.7.1.116", cuda={"init": "absent"})
    done = kdc("engine", "build", small, *options, "--cache", folder)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    # A refused option is shown in a frame.
    assert text in " ".join(done.stderr.replace("│", " ").split()), done.stderr
    assert not list(folder.iterdir())


@pytest.mark.parametrize("command", ["list", "clean"])
def test_a_folder_that_is_absent_or_not_ours_alone_is_refused(folder: Path, command: str) -> None:
    absent = folder / "absent"
    assert_refused(kdc("engine", command, "--cache", absent), "there is no folder of engines")
    folder.chmod(0o777)
    assert_refused(kdc("engine", command, "--cache", folder), "others may write to")


@pytest.mark.all
def test_sigint_ends_a_build_with_a_sentence(play: Play, folder: Path, small: Path) -> None:
    play(steps=1000, pause_s=0.05)
    process = subprocess.Popen(
        [sys.executable, "-m", "kdc_core", "engine", "build", str(small)]
        + ["--size", "448x576", "--cache", str(folder)],
        env=os.environ | {"PYTHONPATH": str(FAKE)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not list(folder.glob(".*.part")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert "engine build cancelled: nothing was kept" in process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
