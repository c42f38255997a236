"""How a command ends by SIGINT or SIGTERM where nothing of it asks for the signal itself."""

from __future__ import annotations

import os
import signal

from kdc_core.stopping import SIGNALS, Stopped


def end_by_signal() -> None:
    """Have the first signal raise `Stopped` after a line on stderr, and a second end at once.

    Meant for the process's first moments: a signal while libraries are imported is no traceback.
    """
    for number in SIGNALS:
        signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    for second in SIGNALS:
        signal.signal(second, _end)
    say_stopped(number)
    raise Stopped(number)


def _end(number: int, frame: object) -> None:
    os._exit(128 + number)


def say_stopped(number: int) -> None:
    """One line on stderr, whatever state its Python object is in."""
    os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
