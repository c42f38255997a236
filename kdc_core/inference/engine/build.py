"""Building an engine in a process of its own, watched from this one."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from kdc_core.inference.engine.job import Answer, Built, Job
from kdc_core.inference.engine.lock import BuildProgress, ignore, never
from kdc_core.inference.engine.messages import CANCELLED, BuildCancelled, EngineError

POLL_S = 0.1
STOP_S = 3.0  # for the builder to come to its next step; then it is killed
ROOT = Path(__file__).parents[3]  # of the package


def build_engine(
    job: Job, progress: BuildProgress = ignore, cancelled: Callable[[], bool] = never
) -> Built:
    """Build one engine in a child process.

    Its working folder is that of the package, and its search path for modules is this process's.

    Args:
        job: what to build; afterwards its part holds the engine.
        progress: given the builder's phase, steps done, and steps in all.
        cancelled: asked some ten times a second.

    Raises:
        EngineError: says why there is no engine; also where the child crashed.
        BuildCancelled: cancelled; the child has ended.
    """
    with tempfile.TemporaryFile() as noise, _child(job, noise) as (process, pipe):
        for answer in _answers(pipe, cancelled):
            if answer.progress is not None:
                progress(*answer.progress)
            elif answer.built is not None:
                return answer.built
            elif answer.failed is not None:
                raise EngineError(answer.failed)
            elif answer.cancelled:
                break
        if cancelled():
            raise BuildCancelled(CANCELLED)
        raise EngineError(_ended(process.wait(), noise))


@contextlib.contextmanager
def _child(job: Job, noise: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process that builds and the pipe it answers on; ended in any case."""
    read, write = os.pipe()
    try:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "kdc_core.inference.engine.worker",
                job.model_dump_json(),
                str(write),
            ],
            stdin=subprocess.DEVNULL,
            stdout=noise,
            stderr=noise,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            pass_fds=(write,),
            # A SIGINT from the keyboard is for this process alone, which then stops the child.
            start_new_session=True,
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    try:
        yield process, read
    finally:
        os.close(read)
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the builder stop at its next step, or kill it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also at a second SIGINT
        process.kill()
        process.wait()


def _answers(pipe: int, cancelled: Callable[[], bool]) -> Iterator[Answer]:
    """What the child says, until it ends or nobody wants the engine any more."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not cancelled():
            if not selector.select(POLL_S):
                continue
            data = os.read(pipe, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from (Answer.model_validate(json.loads(line)) for line in lines)


def _ended(code: int, noise: IO[bytes]) -> str:
    """Why a builder that said nothing has ended."""
    if code == -signal.SIGKILL:
        return (
            "the engine builder was killed, most likely for want of memory: close other programs, "
            "or build for a smaller size"
        )
    noise.seek(0)
    lines = noise.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"the engine builder {how}: {last[:300]}"
