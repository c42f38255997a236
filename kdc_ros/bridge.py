"""cv_bridge, tried in a process of its own.

It may be built for another numpy and then end or hang whoever imports it, or be a leftover of
ROS 1 that imports and is wrong.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

TIMEOUT_S = 10.0


def try_cv_bridge() -> tuple[frozenset[str], str]:
    """Have another process convert a frame of noise in every encoding of eight bits.

    Returns:
        The encodings in which cv_bridge may be used, and what is wrong where it is installed and
        can be used in none, "" else.
    """
    if importlib.util.find_spec("cv_bridge") is None:
        return frozenset(), ""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kdc_ros.bridge_trial"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            # A SIGINT from the keyboard is for this process.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return frozenset(), _complaint(f"did not answer within {TIMEOUT_S:.0f} s")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return frozenset(), _complaint(f"crashed with {name}")
    if done.returncode or not done.stdout:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return frozenset(), _complaint(f"failed: {lines[-1]}")
    encodings = frozenset(json.loads(done.stdout.splitlines()[-1]))
    return encodings, "" if encodings else _complaint("converts no encoding correctly")


def describe() -> str:
    """What can be said of cv_bridge here, for `kdc doctor`."""
    encodings, complaint = try_cv_bridge()
    if encodings:
        return f"right in {len(encodings)} encodings"
    return complaint or "not installed: the node converts images without it"


def _complaint(what: str) -> str:
    try:
        version = importlib.metadata.version("cv_bridge")
    except importlib.metadata.PackageNotFoundError:
        version = "(version unknown)"
    return (
        f"cv_bridge {version} beside numpy {np.__version__} {what}; the node converts images "
        "without it. If it was built for numpy 1 and you need it: pip install 'numpy<2'"
    )
