"""The `kdc` command as a user calls it: in this process, or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path

from kdc_core import cli

Done = subprocess.CompletedProcess[str]


def kdc(*arguments: object) -> Done:
    """Run a command in this process; its output is strict about encoding, as a terminal's is."""
    out = TextIOWrapper(BytesIO(), "utf-8")
    err = TextIOWrapper(BytesIO(), "utf-8", "backslashreplace")
    given = [str(argument) for argument in arguments]
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(given)
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return Done(given, code, *texts)


def kdc_process(*arguments: object, cwd: Path | None = None) -> Done:
    """Run a command in a process of its own."""
    given = [sys.executable, "-m", "kdc_core", *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, timeout=600, cwd=cwd)


def assert_refused(done: Done, text: str) -> None:
    """It ended with 2 and said why, without a traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert text in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr
