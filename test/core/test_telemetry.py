"""Telemetry stays off: ONNX Runtime's unless the user turns it on, OpenVINO's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLE = "ORT_DISABLE_TELEMETRY"
# Where one of these is set, OpenVINO tells nobody.
QUIET = ("CI", "TF_BUILD", "JENKINS_URL")
NOWHERE = "http://127.0.0.1:9"  # a proxy that is not there: this test tells nobody, either
# Where no network is, what would have been sent has no route, and the kernel counts it.
PREDICT_AND_WATCH = """
import sys, time
import numpy as np
from kdc_core import Predictor

def packets():
    lines = [line.split() for line in open("/proc/self/net/snmp") if line.startswith("Ip:")]
    counts = dict(zip(*lines))
    return int(counts["OutNoRoutes"]) + int(counts["OutRequests"])

Predictor.from_pretrained("kdc_light", "onnxruntime")(np.zeros((64, 64, 3), np.uint8))
end = time.monotonic() + 60
while not packets() and time.monotonic() < end:
    time.sleep(0.1)
sys.exit("sent something" if packets() else 0)
"""
WITHOUT_NETWORK = ("unshare", "--net", "--map-root-user")


def environment(home: Path, setting: str | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in (VARIABLE, "XDG_CACHE_HOME")}
    return {**kept, "HOME": str(home), **({} if setting is None else {VARIABLE: setting})}


@pytest.mark.parametrize(("setting", "found"), [(None, "1"), ("0", "0")])
@pytest.mark.parametrize("module", ["kdc_core", "kdc_ros.env"])
def test_it_is_off_before_anything_else_is_imported(
    module: str, setting: str | None, found: str, tmp_path: Path
) -> None:
    """Also in a worker of Ray, which imports the package to find its class."""
    code = (
        f"import os, sys; sys.modules['onnxruntime'] = None; import {module};"
        f"print(os.environ['{VARIABLE}'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path, setting),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == found, done.stderr


def test_openvino_tells_nobody_that_it_was_imported(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    code = "from kdc_core import Predictor; Predictor.from_pretrained('kdc_light', 'openvino')"
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    for home, text in ((plain, "import openvino"), (ours, code)):
        home.mkdir()
        kept = {k: v for k, v in environment(home, None).items() if k not in QUIET}
        kept |= dict.fromkeys(("http_proxy", "https_proxy"), NOWHERE)
        subprocess.run([sys.executable, "-c", text], env=kept, check=True, timeout=120)
    if not list(plain.rglob("*")):
        pytest.skip("this OpenVINO has no telemetry")
    assert not list(ours.rglob("*")), "OpenVINO wrote an id to send"


@pytest.mark.all
@pytest.mark.slow
def test_nothing_is_written_to_the_home_folder_and_nothing_sent(tmp_path: Path) -> None:
    """Beside it runs one whose telemetry is on: what it does, this test would notice."""
    if subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True).returncode:
        pytest.skip("this user may not make a network namespace")
    processes, homes = [], []
    for name, setting in (("off", None), ("on", "0")):
        home = tmp_path / name
        home.mkdir()
        homes.append(home)
        processes.append(
            subprocess.Popen(
                [*WITHOUT_NETWORK, sys.executable, "-c", PREDICT_AND_WATCH],
                env=environment(home, setting),
            )
        )
    off, on = processes
    try:
        if on.wait(120) == 0 and not list(homes[1].rglob("*")):
            pytest.skip("this ONNX Runtime has no telemetry")
        with pytest.raises(subprocess.TimeoutExpired):  # it goes on watching
            off.wait(3)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert on.returncode == 1 and list(homes[1].rglob("*.db"))
    assert not list(homes[0].rglob("*"))


@pytest.mark.all
@pytest.mark.slow
def test_workers_of_ray_write_nothing_to_the_home_folder(samples: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray: the extra 'ray'")
    home, output = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    image = samples / "000000409475.jpg"
    arguments = ("predict", image, "--ray", "local", "--workers", "1", "--output", output)
    done = subprocess.run(
        [sys.executable, "-m", "kdc_core", *map(str, arguments)],
        env=environment(home, None),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0 and list(output.glob("part-*")), done.stderr
    assert not list(home.rglob("*onnxruntime*"))
