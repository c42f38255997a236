"""How a command ends by SIGINT or SIGTERM where nothing of it asks for the signal itself."""

from __future__ import annotations

import os
import signal
from types import FrameType

from kdc_core.stopping import SIGNALS, Stopped


def end_by_signal() -> None:
    """Have the first signal raise `Stopped` after a line on stderr, and a second end at once.

    Meant for the process's first moments, so that a signal while libraries are imported is no
    traceback.
    """
    for number in SIGNALS:
        signal.signal(number, _stop)


def end_at_once() -> None:
    """Have a signal end the process with nothing more: for when its work is over.

    Python then ends itself for a while, in which an exception would be a traceback.
    """
    for number in SIGNALS:
        signal.signal(number, _end)


def say_stopped(number: int) -> None:
    """One line on stderr, whatever state its Python object is in."""
    os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())


def _stop(number: int, frame: FrameType | None) -> None:
    end_at_once()
    say_stopped(number)
    if _importing(frame):  # a library may take the exception for a fault of its own, and go on
        _end(number, frame)
    raise Stopped(number)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
