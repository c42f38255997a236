"""tools/gpu.py, `make gpu`, on a machine without a GPU."""

from __future__ import annotations

import json
import os
import re
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu
import pytest


@pytest.fixture
def runner(tmp_path: Path) -> gpu.Runner:
    return gpu.Runner(gpu.Results(tmp_path), 60.0)


def read(folder: Path) -> tuple[dict[str, Any], str]:
    found = json.loads((folder / "results.json").read_text())
    return found, (folder / "results.txt").read_text()


def test_without_a_gpu_it_says_so_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "find_gpu", lambda: "")
    assert gpu.main(["--output", str(tmp_path)]) == 2
    found, page = read(tmp_path)
    assert found["machine"]["GPU"] == "none"
    assert "nothing was run: nvidia-smi names no GPU" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.txt"]


def test_the_gpu_is_named_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'NVIDIA L4, 580.1, 23034 MiB, 8.9'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu.find_gpu() == "NVIDIA L4, 580.1, 23034 MiB, 8.9"
    command.write_text("#!/bin/sh\necho 'no driver'; exit 9\n")
    assert "no driver" not in gpu.find_gpu()


def test_a_step_whose_time_is_over_leaves_what_it_said(
    runner: gpu.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "SAVE_EVERY_S", 0.1)
    begun = time.monotonic()
    done = runner.run("slow", ["-c", "import time; print('so far'); time.sleep(60)"], 0.8)
    assert done.code is None and done.outcome.startswith("cut off") and done.output == ["so far"]
    assert time.monotonic() - begun < 10
    assert read(tmp_path)[0]["seconds"] > 0, "and the results are written meanwhile"
    assert gpu.Runner(gpu.Results(tmp_path), 0.0).run("late", ["-c", ""], 9).code is None
    assert runner.run("crash", ["-c", "import os; os.abort()"], 9).outcome == "ended by SIGABRT"


def test_a_run_that_is_stopped_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(results: gpu.Results, *others: object) -> int:
        results.found["tests"] = [
            {"name": "t", "outcome": "passed", "seconds": 1.0, "start_s": 2.0, "reason": ""}
        ]
        results.begin("kdc bench runtimes")
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "run_all", stop)
    assert gpu.main(["--output", str(tmp_path)]) == 1
    found, page = read(tmp_path)
    assert found["state"] == "stopped during: kdc bench runtimes"
    assert "passed      1.0    2.0  t" in page


@pytest.mark.parametrize(
    ("outcomes", "bench", "code"),
    [
        (["passed", "skipped"], "done", 0),
        (["passed"], "skipped: it needs torch", 0),
        (["passed", "failed"], "done", 1),
        (["passed"], "cut off after 9 s", 1),
        ([], "done", 1),
        (["skipped"], "done", 2),
    ],
)
def test_the_exit_status_says_whether_the_gpu_did_well(
    tmp_path: Path, outcomes: list[str], bench: str, code: int
) -> None:
    results = gpu.Results(tmp_path)
    row = {"name": "t", "seconds": 0.0, "start_s": 0.0, "reason": ""}
    results.found["tests"] = [{**row, "outcome": outcome} for outcome in outcomes]
    results.found["bench"] = {"outcome": bench, "output": []}
    assert gpu.finish(results) == code


def test_rtx_is_wanted_only_where_it_can_be_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"absent": "ModuleNotFoundError"}
    modules = dict.fromkeys([*gpu.NEEDED, *gpu.HELPFUL, *gpu.FOR_BENCH], absent)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    wanted = gpu.missing(modules)
    assert "tensorrt-rtx>=1.7" in wanted.values() and "torch" not in wanted
    assert "tensorrt_rtx" not in gpu.missing(modules | {"tensorrt": {"version": "10.3"}})
    assert "numpy" not in gpu.missing(modules | {"numpy": {"version": "2"}})
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    wanted = gpu.missing(modules)
    assert "tensorrt_rtx" not in wanted and wanted["onnxruntime"] == "onnxruntime"


def test_what_is_installed_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = [("PyYAML", "6.0"), ("a_b", "1"), ("pyyaml", "5.1"), (None, "2")]
    found = [SimpleNamespace(metadata={"Name": n}, version=v) for n, v in packages]
    monkeypatch.setattr("importlib.metadata.distributions", lambda: found)
    assert gpu.installed() == ["pyyaml==6.0", "a-b==1"]


@pytest.mark.all
def test_what_is_missing_comes_from_a_folder_of_wheels(runner: gpu.Runner, tmp_path: Path) -> None:
    """It is there for the steps, and this Python stays as it is."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "kdcprobe-1.0-py3-none-any.whl", "w") as wheel:
        info = "kdcprobe-1.0.dist-info"
        wheel.writestr("kdcprobe.py", "__version__ = '1.0'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: kdcprobe\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    notes = gpu.install(runner, {"kdcprobe": "kdcprobe", "absent": "kdc-absent>=2"}, wheels)
    (note,) = notes
    assert note.startswith("kdc-absent>=2 is not installed: failed: ERROR: No matching distrib")
    assert runner.run("probe", ["-c", "import kdcprobe"], 30).code == 0
    with pytest.raises(ModuleNotFoundError):
        __import__("kdcprobe")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.all
def test_tests_marked_gpu_need_no_conftest_and_are_skipped_without_one(
    runner: gpu.Runner, no_gpu: None
) -> None:
    assert gpu.test_files() == ["test/core/test_gpu.py"]
    done = runner.run("all", [*gpu.PYTEST, *gpu.test_files()], 60)
    assert done.code == 0, done.output
    assert re.fullmatch(r"\d+ skipped in .*", done.output[-1])


@pytest.mark.all
def test_a_whole_run_skips_every_test_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_gpu: None
) -> None:
    monkeypatch.setattr(gpu, "find_gpu", lambda: "a GPU that is none")
    monkeypatch.setattr(gpu, "missing", lambda modules: {})
    bench = {"outcome": "skipped: not here", "output": [], "figures": {}}
    monkeypatch.setattr(gpu, "run_bench", lambda *others: bench)
    collect = gpu.collect_tests
    monkeypatch.setattr(gpu, "collect_tests", lambda runner: collect(runner)[:2])
    assert gpu.main(["--output", str(tmp_path)]) == 2
    found, page = read(tmp_path)
    assert len(found["tests"]) == 2
    assert all(row["outcome"] == "skipped" and row["reason"] for row in found["tests"]), page
    assert "runtime onnxruntime" in page and found["modules"]["numpy"]["seconds"] >= 0
    assert set(found["cold_starts_s"]) == {"importing", "first frames", "starts of tests"}
