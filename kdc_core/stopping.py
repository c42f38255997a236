"""SIGINT, SIGTERM and SIGHUP: the first asks for a stop, a second ends the process at once.

What works on in a loop asks `stop_by_signal`; all else ends where it is (`raise_on_signal`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as it is under `nohup`
    SIGNALS += (signal.SIGHUP,)  # a terminal was closed
END = b"\0"  # no signal has this number
# `timeout` sends a signal to the process and then to its group: that is one, not two.
TOGETHER_S = 0.1


class Stop:
    """Whether the work is to stop.

    Attributes:
        signal: number of the signal that asked for it, or None.
    """

    signal: int | None = None


class Stopped(SystemExit):
    """The work was stopped by a signal, and what was done is written: 130 of SIGINT, 143 of
    SIGTERM, 129 of SIGHUP.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)


def end_stopped(number: int) -> NoReturn:
    """End a command that a signal stopped, after one line on stderr.

    Raises:
        Stopped: always.
    """
    _say_stopped(number)
    raise Stopped(number)


@contextmanager
def stop_by_signal(twice: bool = True) -> Iterator[Stop]:
    """Note the first signal to stop in what is yielded; a second ends the process at once.

    Python runs its handlers between two lines, and so behind a long call of a library. Here a
    thread reads the numbers, which the C handler writes into a pipe, whatever runs meanwhile.

    Args:
        twice: whether a second signal ends the process.

    Outside the main thread, where Python takes no signals, nothing is noted.
    """
    stop = Stop()
    if not _takes_signals():
        yield stop
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    take_signals()
    thread = threading.Thread(target=_read, args=(reading, stop, twice), daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.write(writing, END)  # closing it would not do: processes forked off have it, too
        thread.join()
        os.close(writing)
        os.close(reading)


def take_signals() -> None:
    """Keep Python's handlers, or those of a library, from doing anything about the signals."""
    for number in SIGNALS if _takes_signals() else ():
        signal.signal(number, _nothing)


def leave_signals() -> None:
    """In a process that was forked off: leave the signals to the one it came from."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _takes_signals() -> bool:
    return threading.current_thread() is threading.main_thread()


def _nothing(number: int, frame: object) -> None:
    pass


def _read(pipe: int, stop: Stop, twice: bool) -> None:
    first = 0.0
    while (read := os.read(pipe, 1)) != END:
        if read[0] not in SIGNALS:  # every signal that has a handler comes
            continue
        if stop.signal is None:
            stop.signal, first = read[0], time.monotonic()
        # When a terminal is closed, kernel and shell may each send one.
        elif twice and read[0] != signal.SIGHUP and time.monotonic() - first > TOGETHER_S:
            os._exit(128 + read[0])


def raise_on_signal() -> None:
    """Have the first signal raise `Stopped` after a line on stderr, and a second end at once.

    Meant for the process's first moments, so that a signal while libraries are imported is no
    traceback.
    """
    for number in SIGNALS:
        signal.signal(number, _stop)


def exit_on_signal() -> None:
    """Have a signal end the process with nothing more: for when its work is over.

    Python then ends itself for a while, in which an exception would be a traceback.
    """
    for number in SIGNALS:
        signal.signal(number, _end)


def _say_stopped(number: int) -> None:
    with suppress(OSError):  # the terminal was closed
        # Whatever state Python's own stderr is in.
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())


def _stop(number: int, frame: FrameType | None) -> None:
    exit_on_signal()
    _say_stopped(number)
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
