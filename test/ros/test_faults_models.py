"""Files that are no model, and an engine that two nodes want, each node in its own process."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from kdc_core.inference.model_files import MODELS
from kdc_ros.diagnostics import resident_mb

from .peer import MakePeer
from .process import Start

pytestmark = [pytest.mark.ros, pytest.mark.all]

HERE = Path(__file__).parent


# Models


def make_models(folder: Path) -> dict[str, Path]:
    """Files that are no model of ours, by what is wrong with them."""
    from onnx import helper

    whole = (MODELS / "kdc_light.onnx").read_bytes()
    contents = {
        "empty.onnx": b"",
        "truncated.onnx": whole[: len(whole) // 2],
        "noise.onnx": np.random.default_rng(0).bytes(10**5),
        "another.onnx": helper.make_model(
            helper.make_graph([], "none", [], [])
        ).SerializeToString(),
        "pickle.onnx": pickle.dumps({"os": "system"}),
        "pickle.safetensors": pickle.dumps({"os": "system"}),
        # The first eight bytes are the length of what follows.
        "long.safetensors": b"\xff" * 8 + b"{}",
        "pickle.pt": pickle.dumps({"os": "system"}),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.onnx").mkdir()
    os.mkfifo(folder / "pipe.onnx")
    (folder / "device.onnx").symlink_to("/dev/zero")
    (folder / "circle.onnx").symlink_to("circle.onnx")
    names = [*contents, "folder.onnx", "pipe.onnx", "device.onnx", "circle.onnx", "missing.onnx"]
    return {name: folder / name for name in names}


def test_what_is_no_model_is_named_and_the_next_configure_succeeds(
    start_once: Start, peer: MakePeer, tmp_path: Path
) -> None:
    process = start_once("-r", "__ns:=/models", "-p", "autostart:=false")
    manager = peer("/models")
    pid = process.pid
    for name, path in make_models(tmp_path).items():
        memory_mb, lines = resident_mb(pid), len(process.log)
        manager.set_parameters(model=str(path))
        assert not manager.change_state("configure"), name
        status = manager.status(lambda s: s.level == DiagnosticStatus.ERROR, name)
        assert status.message.startswith("configure failed: "), name
        assert name in status.message, status.message
        assert "Traceback" not in process.log[lines:], process.log[lines:]
        assert manager.state() == "unconfigured"
        assert resident_mb(pid) < memory_mb + 300, name
    for name in ("x" * 5000, "../../etc/passwd", "~"):
        manager.set_parameters(model=name)
        assert not manager.change_state("configure"), name
    manager.set_parameters(model="")
    for size in ("64000x64000", "0x0", "x" * 5000):
        manager.set_parameters(input_size=size)
        assert not manager.change_state("configure"), size
    manager.set_parameters(input_size="")
    assert "Traceback" not in process.log
    assert manager.change_state("configure")
    assert manager.change_state("activate")
    manager.meet()


# Engines


def test_two_nodes_that_want_one_engine_build_it_once(
    start_once: Start, peer: MakePeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for NVIDIA's builder and GPU."""
    folder = tmp_path / "engines"
    folder.mkdir(mode=0o700)
    command = (sys.executable, str(HERE / "building_node.py"))
    processes, cameras = [], []
    for name in ("left", "right"):
        arguments = ("-r", f"__ns:=/{name}", "-p", f"engine_cache:={folder}")
        processes.append(start_once(*arguments, command=command))
        cameras.append(peer(f"/{name}"))
    for camera in cameras:
        camera.meet()
    assert len(list(folder.glob("*.engine"))) == 1
    told = [process.log for process in processes]
    assert sorted("the engine was built" in log for log in told) == [False, True], told
    assert all("building an engine: " in log for log in told), told
