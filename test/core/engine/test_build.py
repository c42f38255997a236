"""Builders in processes of their own: progress, stops, crashes, and two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.engine.conftest import FAKE, EngineOf, Play
from kdc_core.inference.engine.entries import clean
from kdc_core.inference.engine.lock import WAITING, locked
from kdc_core.inference.engine.messages import BuildCancelled, EngineError

Start = Callable[[], subprocess.Popen[str]]
BUILD = """
import sys
sys.path.insert(0, {fake!r})
from pathlib import Path
from kdc_core.inference.engine.cache import Cache, get_engine
engine = get_engine({program!r}, (448, 576), cache=Cache(Path({folder!r})))
print("built" if engine.built else "served", flush=True)
"""


@pytest.fixture
def start(folder: Path, small: Path) -> Start:
    """Gets the engine in another process, which follows the same scripts."""
    code = BUILD.format(fake=str(FAKE), program=str(small), folder=str(folder))
    command = [sys.executable, "-c", code]

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return begin


def wait_until(true: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def builders(folder: Path) -> list[int]:
    """Processes that build into the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"kdc_core.inference.engine.worker" in words and str(folder).encode() in words[3]:
            found.append(int(path.parent.name))
    return found


def left(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_progress_comes_from_the_child(play: Play, engine_of: EngineOf) -> None:
    play(steps=3, pause_s=0.11)
    told: list[tuple[str, int, int]] = []
    engine = engine_of(progress=lambda *step: told.append(step))
    assert told[0] == ("Timing graph nodes", 0, 3) and told[-1] == ("Timing graph nodes", 3, 3)
    assert engine.sidecar.build_seconds >= 0.33 and engine.seconds >= engine.sidecar.build_seconds


def test_a_cancelled_build_ends_and_leaves_nothing(
    play: Play, folder: Path, engine_of: EngineOf
) -> None:
    play(steps=1000, pause_s=0.02)
    told: list[str] = []
    begun = time.monotonic()
    with pytest.raises(BuildCancelled, match="engine build cancelled"):
        engine_of(
            progress=lambda phase, done, total: told.append(phase),
            cancelled=lambda: len(told) > 2,
        )
    assert time.monotonic() - begun < 10 and not builders(folder)
    assert left(folder) == [".lock"]


def test_a_builder_that_does_not_listen_is_killed(
    play: Play, folder: Path, monkeypatch: pytest.MonkeyPatch, engine_of: EngineOf
) -> None:
    play(steps=1, pause_s=60)
    monkeypatch.setattr("kdc_core.inference.engine.build.STOP_S", 0.2)
    told: list[str] = []
    with pytest.raises(BuildCancelled):
        engine_of(progress=lambda *step: told.append("x"), cancelled=lambda: bool(told))
    assert not builders(folder) and left(folder) == [".lock"]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        ("crash", "the engine builder was ended by SIGSEGV"),
        ("kill", "the engine builder was killed, most likely for want of memory"),
        ("none", "TensorRT 10.3.0 built no engine"),
    ],
)
def test_a_builder_that_dies_is_a_message(
    play: Play, folder: Path, build: str, text: str, engine_of: EngineOf
) -> None:
    play(build=build)
    with pytest.raises(EngineError, match=text):
        engine_of()
    assert left(folder) == [".lock"]


def test_too_little_memory_for_a_build_reaches_whoever_asked(
    play: Play, folder: Path, engine_of: EngineOf
) -> None:
    out_of_memory = "Error Code 1: Cuda Runtime (out of memory)"
    play(said=[out_of_memory], build="none", cuda={"free": 512 << 20})
    text = "out of GPU memory while building: 512 MiB free, workspace 256 MiB: close other prog"
    with pytest.raises(EngineError, match=f"^{text}"):
        engine_of()
    play(cuda={"fails": {"cuMemGetInfo": 2}})
    with pytest.raises(EngineError, match="cuMemGetInfo answered CUDA_ERROR_OUT_OF_MEMORY"):
        engine_of()
    assert left(folder) == [".lock"]


def test_a_builder_that_cannot_start_is_a_message(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine_of: EngineOf
) -> None:
    play()
    (tmp_path / "scripted.py").write_text("print('a strange place'); raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineError, match="builder ended with code 3: a strange place"):
        engine_of()


@pytest.mark.all
def test_two_builders_at_once_give_one_build(
    play: Play, folder: Path, engine_of: EngineOf, start: Start
) -> None:
    play(steps=20, pause_s=0.1)
    processes = [start() for _ in range(3)]
    told: set[str] = set()
    wait_until(lambda: builders(folder), "a build has begun")
    mine = engine_of(progress=lambda phase, done, total: told.add(phase))
    outputs = [process.communicate(timeout=60) for process in processes]
    assert not mine.built and told == {WAITING}
    assert sorted(out.strip() for out, _ in outputs) == ["built", "served", "served"], outputs
    assert len(list(folder.glob("*.engine"))) == 1


@pytest.mark.all
def test_a_reader_during_a_build_waits_and_is_served(
    play: Play, folder: Path, engine_of: EngineOf, start: Start
) -> None:
    play(steps=10, pause_s=0.1)
    process = start()
    wait_until(lambda: builders(folder), "a build has begun")
    assert not engine_of(policy="prebuilt").built
    assert process.communicate(timeout=60)[0].strip() == "built"


@pytest.mark.all
def test_a_reader_that_waits_too_long_or_is_cancelled_says_so(
    play: Play, folder: Path, engine_of: EngineOf, start: Start
) -> None:
    play(steps=100, pause_s=0.1)
    process = start()
    wait_until(lambda: builders(folder), "a build has begun")
    with pytest.raises(EngineError, match="waiting for another build took too long"):
        engine_of(lock_s=0.3)
    with pytest.raises(BuildCancelled):
        engine_of(cancelled=lambda: True)
    assert clean(folder)[1], "what is being built is left alone"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert not builders(folder) and not list(folder.glob(".*"))


@pytest.mark.all
def test_a_process_killed_half_way_leaves_no_builder_no_lock_and_no_engine(
    play: Play, folder: Path, engine_of: EngineOf, start: Start
) -> None:
    play(steps=1000, pause_s=0.05)
    process = start()
    wait_until(lambda: builders(folder), "a build has begun")
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: not builders(folder), "the builder has seen that nobody listens")
    assert not list(folder.glob("*.engine")) and list(folder.glob(".*.part"))
    play()
    assert engine_of().built
    assert not list(folder.glob(".*.part"))


@pytest.mark.all
def test_a_builder_killed_half_way_is_told_to_whoever_waits(
    play: Play, folder: Path, start: Start
) -> None:
    play(steps=1000, pause_s=0.05)
    process = start()
    wait_until(lambda: builders(folder), "a build has begun")
    for pid in builders(folder):
        os.kill(pid, signal.SIGKILL)
    assert "most likely for want of memory" in process.communicate(timeout=30)[1]
    assert left(folder) == [".lock"]


def test_a_lock_file_removed_by_its_holder_is_no_lock(folder: Path) -> None:
    path = folder / "x.lock"
    with locked(path, 0):
        with pytest.raises(EngineError, match="another process still holds"):
            with locked(path, 0):
                pass
        path.unlink()
        with locked(path, 0):
            assert path.exists()
