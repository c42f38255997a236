"""What only an NVIDIA GPU can show, in eight minutes: `make gpu`, or `python tools/gpu.py`.

Runs with any Python from 3.10 on, which is left as it is: what it lacks is installed into a
folder beside the results. Then come `kdc doctor`, the tests marked `gpu`, each in a process of its
own, and `kdc bench runtimes`. Results are written as they come: a run cut off leaves what it had.

Ends with 0 if something ran on the GPU and all of it passed, 1 if something failed or was cut off,
2 if nothing ran on a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 480.0  # of the whole run
BENCH_S = 150.0  # of it kept for the benchmark
BENCH = ("--rounds", "15", "--frames", "500")  # also on a CPU within that time
INSTALL_S = 120.0
TEST_S = 120.0  # for one test: a small robot builds an engine in it
SAVE_EVERY_S = 20.0
SHOWN = 100  # last lines of a step's output that go into the results; its file has all
# Modules, and what brings them. torch is as it is: it must fit the machine's CUDA, and is large.
NEEDED = {
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime-gpu",
    "platformdirs": "platformdirs",
    "pydantic": "pydantic>=2",
    "pytest": "pytest",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "typer": "typer",
    "yaml": "pyyaml",
}
HELPFUL = {
    "cuda.bindings.runtime": "cuda-python",
    "tensorrt": "",
    "tensorrt_rtx": "tensorrt-rtx>=1.7",
    "torch": "",
}
FOR_BENCH = {
    "faster_coco_eval": "faster-coco-eval>=1.8",
    "onnx": "onnx",
    "pycocotools": "pycocotools",
}
# conftest.py needs torch and more; a test marked `gpu` does without.
PYTEST = ["-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-m", "gpu"]
# Prints the seconds, or the error, of each import.
IMPORT = """
import importlib, json, sys, time
for name in sys.argv[1:]:
    begun = time.perf_counter()
    try:
        version = getattr(importlib.import_module(name), "__version__", "")
        row = {"version": version, "seconds": round(time.perf_counter() - begun, 2)}
    except Exception as error:
        row = {"absent": f"{type(error).__name__}: {error}"[:300]}
    print(json.dumps({name: row}), flush=True)
"""


@dataclass
class Results:
    """What was found so far, and the files it is kept in.

    Attributes:
        folder: of `results.json`, `results.txt` and the steps' output.
        state: what is being done.
        found: content of the JSON file.
    """

    folder: Path
    state: str = "starting"
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begun = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def begin(self, state: str) -> None:
        """Say what is done next, on the terminal too."""
        self.state = state
        print(f"{self.seconds:5.0f} s  {state}", flush=True)
        self.save()

    def save(self) -> None:
        """Write both files, each whole."""
        self._saved = time.monotonic()
        content = {"state": self.state, "seconds": round(self.seconds, 1)} | self.found
        texts = {
            "results.json": json.dumps(content, indent=1) + "\n",
            "results.txt": page(content),
        }
        for name, text in texts.items():
            part = self.folder / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(self.folder / name)

    def save_now_and_then(self) -> None:
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self.save()


def page(found: dict[str, Any]) -> str:
    """The results as a page of text."""
    lines = [
        f"make gpu: {found['state']}",
        f"{found['seconds']:.0f} s; docs/deployment.md says how to send this",
        *(f"{name:10} {value}" for name, value in found.get("machine", {}).items()),
    ]
    if "modules" in found:
        lines += ["", "modules"]
        for name, row in found["modules"].items():
            seconds = f"{row.get('version', '')}, imported in {row.get('seconds')} s"
            lines.append(f"  {name:22} {row.get('absent') or seconds}")
        lines += [f"  {note}" for note in found.get("install", [])]
    if "doctor" in found:
        lines += ["", "kdc doctor", *(f"  {line}" for line in found["doctor"])]
    if "tests" in found:
        lines += ["", "tests marked gpu: seconds of the test, and of its start before"]
        for row in found["tests"]:
            numbers = f"{row['seconds']:6.1f} {row['start_s']:6.1f}"
            lines.append(
                f"  {row['outcome']:8} {numbers}  {row['name']}  {row['reason']}".rstrip()
            )
    if "bench" in found:
        lines += ["", f"kdc bench runtimes: {found['bench']['outcome']}"]
        lines += [f"  {line}" for line in found["bench"]["output"]]
    if "cold_starts_s" in found:
        cold = found["cold_starts_s"]
        parts = ", ".join(f"{name} {value:.1f}" for name, value in cold.items())
        lines += ["", f"cold starts, counted in the seconds above: {sum(cold.values()):.1f} s"]
        lines.append(f"  {parts}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Done:
    """A step that ended.

    Attributes:
        code: its exit status; None = cut off when its time was over.
        output: its lines.
        seconds: it took.
    """

    code: int | None
    output: list[str]
    seconds: float

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        if self.code is None:
            return f"cut off after {self.seconds:.0f} s"
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        last = self.output[-1] if self.output else "it said nothing"
        return "done" if self.code == 0 else f"failed: {last[:300]}"


class Runner:
    """Runs steps as processes of this Python.

    Args:
        results: kept up to date meanwhile.
        limit_s: for everything.
    """

    def __init__(self, results: Results, limit_s: float):
        self._results, self._limit_s = results, limit_s
        self.packages = results.folder / "packages"
        # Engines are built anew, and nothing of the user's is touched.
        self._cache = tempfile.TemporaryDirectory(prefix="kdc_gpu_")

    @property
    def left_s(self) -> float:
        """Seconds until everything must have ended."""
        return self._limit_s - self._results.seconds

    def run(self, name: str, arguments: list[str], limit_s: float) -> Done:
        """Run Python with arguments; its output goes to a file as it comes."""
        limit_s = min(limit_s, self.left_s)
        if limit_s <= 0:
            return Done(None, [], 0.0)
        begun, path = time.monotonic(), self._results.folder / f"{name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = self._wait(process, begun + limit_s)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return Done(code, lines[-SHOWN:], time.monotonic() - begun)

    def _wait(self, process: subprocess.Popen[bytes], deadline: float) -> int | None:
        while time.monotonic() < deadline:
            try:
                return process.wait(0.2)
            except subprocess.TimeoutExpired:
                self._results.save_now_and_then()
        return None

    def _environment(self) -> dict[str, str]:
        found = [*self.packages.rglob("site-packages"), *self.packages.rglob("dist-packages")]
        path = [str(ROOT), *map(str, found), os.environ.get("PYTHONPATH", "")]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(entry for entry in path if entry),
            "PYTHONUNBUFFERED": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "XDG_CACHE_HOME": self._cache.name,
            "COLUMNS": "200",
        }


def find_gpu() -> str:
    """The GPU in a line; empty = there is none."""
    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode == 0 and done.stdout.strip():
            return "; ".join(done.stdout.split("\n")).strip("; ")
    except (OSError, subprocess.TimeoutExpired):
        pass
    if Path("/dev/nvidia0").exists():
        return "of a driver without nvidia-smi"
    try:  # of a Jetson
        return Path("/etc/nv_tegra_release").read_text(encoding="utf-8").split("\n")[0]
    except OSError:
        return ""


def install(runner: Runner, wanted: dict[str, str], wheels: Path | None) -> list[str]:
    """Install packages that bring modules; what remains absent, and why, in sentences."""
    fixed = runner.packages / "installed.txt"
    fixed.parent.mkdir(exist_ok=True)
    fixed.write_text("\n".join(installed()), encoding="utf-8")
    command = "-m pip install --disable-pip-version-check --retries 0 --timeout 15".split()
    command += ["--prefix", str(runner.packages), "--constraint", str(fixed)]
    command += ["--no-index", "--find-links", str(wheels.resolve())] if wheels else []
    end = time.monotonic() + INSTALL_S
    if runner.run("install", [*command, *wanted.values()], INSTALL_S).code == 0:
        return []
    notes = []
    for package in wanted.values():  # one that cannot be had keeps none of the others away
        name = re.split(r"[<>=]", package)[0]
        done = runner.run(f"install_{name}", [*command, package], end - time.monotonic())
        if done.code != 0:
            notes.append(f"{package} is not installed: {done.outcome}")
    return notes


def installed() -> list[str]:
    """What this Python has, each as `name==version`, so that nothing of it is exchanged."""
    found: dict[str, str] = {}
    for package in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"] or "").lower()
        found.setdefault(name, package.version)  # a further one of this name is not imported
    return [f"{name}=={version}" for name, version in found.items() if name]


def missing(modules: dict[str, Any]) -> dict[str, str]:
    """Modules that are absent and can be installed, with their packages."""
    packages = NEEDED | HELPFUL | FOR_BENCH
    x86 = platform.machine() == "x86_64"
    if not x86:
        packages["onnxruntime"] = "onnxruntime"
    if "version" in modules["tensorrt"] or not x86:
        packages.pop("tensorrt_rtx")  # full TensorRT comes first, and RTX knows no Jetson
    return {m: p for m, p in packages.items() if p and "absent" in modules[m]}


def import_all(runner: Runner) -> dict[str, Any]:
    """Version and seconds of each module's import, or why it is absent."""
    names = [*NEEDED, *HELPFUL, *FOR_BENCH]
    done = runner.run("imports", ["-c", IMPORT, *names], LIMIT_S)
    rows: dict[str, Any] = {}
    for line in done.output:
        if line.startswith("{"):
            rows |= json.loads(line)
    return {name: rows.get(name, {"absent": f"importing: {done.outcome}"}) for name in names}


def collect_tests(runner: Runner) -> list[str]:
    """Every test marked `gpu`."""
    done = runner.run("collect", [*PYTEST, "--collect-only", *test_files()], TEST_S)
    return [line for line in done.output if "::" in line and " " not in line]


def test_files() -> list[str]:
    """The files that have tests marked `gpu`, from the root."""
    return [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "test").rglob("test_*.py"))
        if "\n@pytest.mark.gpu\n" in path.read_text(encoding="utf-8")
    ]


def run_test(runner: Runner, name: str, number: int) -> dict[str, Any]:
    """One test in a process of its own: a crash on the GPU ends no other."""
    report = runner.packages.parent / f"test_{number}.xml"
    report.unlink(missing_ok=True)
    options = [f"--junitxml={report}", name]
    done = runner.run(f"test_{number}", [*PYTEST, *options], min(TEST_S, runner.left_s - BENCH_S))
    row = {"name": name, "outcome": "failed", "seconds": 0.0, "start_s": round(done.seconds, 1)}
    try:
        case = next(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError, StopIteration):
        return row | {"reason": done.outcome}
    report.unlink()
    seconds = float(case.get("time", 0))
    row |= {"seconds": round(seconds, 1), "start_s": round(done.seconds - seconds, 1)}
    for kind in ("skipped", "failure", "error"):
        found = case.find(kind)
        if found is not None:
            outcome = "skipped" if kind == "skipped" else "failed"
            return row | {"outcome": outcome, "reason": found.get("message", "")[:500]}
    return row | {"outcome": "passed", "reason": ""}


def run_bench(runner: Runner, modules: dict[str, Any]) -> dict[str, Any]:
    """`kdc bench runtimes`, as long as there is time."""
    absent = [name for name in ("torch", *FOR_BENCH) if "absent" in modules[name]]
    if absent:
        return {"outcome": f"skipped: it needs {', '.join(absent)}", "output": [], "figures": {}}
    path = runner.packages.parent / "bench.json"
    path.unlink(missing_ok=True)
    command = ["-m", "kdc_core", "bench", "runtimes", *BENCH, "--json", str(path)]
    done = runner.run("bench", command, runner.left_s - 5)
    figures = json.loads(path.read_text(encoding="utf-8")) if done.code == 0 else {}
    return {"outcome": done.outcome, "output": done.output, "figures": figures}


def run_all(results: Results, runner: Runner, wheels: Path | None) -> int:
    """Every step; the exit status."""
    found = results.found
    found["machine"] = describe_machine()
    if not found["machine"]["GPU"]:
        found["machine"]["GPU"] = "none"
        results.begin("nothing was run: nvidia-smi names no GPU, and this is no Jetson")
        return 2
    cold = found["cold_starts_s"] = {}
    results.begin("importing what is installed")
    found["modules"], cold["importing"] = timed(results, import_all, runner)
    wanted = missing(found["modules"])
    if wanted:
        results.begin(f"installing {', '.join(wanted.values())}")
        found["install"], cold["installing"] = timed(results, install, runner, wanted, wheels)
        found["modules"] = import_all(runner)
    absent = [name for name in NEEDED if "absent" in found["modules"][name]]
    if absent:
        results.begin(f"nothing was run: {', '.join(absent)} cannot be imported, see results.txt")
        return 2
    results.begin("kdc doctor: the first frame of every runtime")
    doctor, cold["first frames"] = timed(
        results, runner.run, "doctor", ["-m", "kdc_core", "doctor"], TEST_S
    )
    found["doctor"] = doctor.output + ([] if doctor.code == 0 else [doctor.outcome])
    found["tests"] = []
    results.begin("collecting the tests marked gpu")
    for number, name in enumerate(collect_tests(runner)):
        results.begin(name)
        found["tests"].append(run_test(runner, name, number))
        cold["starts of tests"] = sum(row["start_s"] for row in found["tests"])
    results.begin("kdc bench runtimes")
    found["bench"] = run_bench(runner, found["modules"])
    return finish(results)


def finish(results: Results) -> int:
    """Say how it went; the exit status."""
    outcomes = [row["outcome"] for row in results.found["tests"]]
    bench = results.found["bench"]["outcome"]
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in ("passed", "failed", "skipped"))
    results.begin(f"finished: {counts}; bench {bench}")
    if "failed" in outcomes or not outcomes or not bench.startswith(("done", "skipped")):
        return 1
    return 0 if "passed" in outcomes else 2


def timed(results: Results, call: Callable[..., T], *arguments: object) -> tuple[T, float]:
    """What a call gives, and the seconds it took."""
    begun = results.seconds
    value = call(*arguments)
    return value, round(results.seconds - begun, 1)


def describe_machine() -> dict[str, str]:
    """Where this ran: no names of hosts or users."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    return {
        "GPU": find_gpu(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit or "unknown",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0))),
        "Python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "gpu_results", help="folder")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install from")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for everything")
    options = parser.parse_args(arguments)
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(folder)
    try:
        code = run_all(results, Runner(results, options.limit), options.wheels)
    except KeyboardInterrupt:
        results.begin(f"stopped during: {results.state}")
        code = 1
    print(f"results: '{folder / 'results.txt'}', '{folder / 'results.json'}'")
    return code


if __name__ == "__main__":
    # What ends this process ends its steps too, and the results say so.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
