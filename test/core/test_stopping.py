"""The first signal is noted, a second ends the process, and afterwards all is as before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from kdc_core.stopping import SIGNALS, Stop, Stopped, stop_by_signal, take_signals

BOTH = (signal.SIGINT, signal.SIGTERM)


def noted(stop: Stop) -> int | None:
    """The signal, as soon as the thread has read it."""
    deadline = time.monotonic() + 5
    while stop.signal is None and time.monotonic() < deadline:
        time.sleep(0.001)
    return stop.signal


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_handlers_come_back(number: int) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with stop_by_signal() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert noted(stop) == number
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert "_read" not in str(threading.enumerate())


def test_other_signals_are_not_noted() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with stop_by_signal() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert noted(stop) == signal.SIGTERM
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_second_signal_may_be_left_to_whoever_started_the_process() -> None:
    with stop_by_signal(twice=False) as stop:
        for number in BOTH:
            os.kill(os.getpid(), number)
        assert noted(stop) in BOTH
        time.sleep(0.05)


def test_another_thread_takes_no_signals() -> None:
    before, found = [signal.getsignal(one) for one in BOTH], []

    def work() -> None:
        with stop_by_signal() as stop:
            take_signals()
            found.append((stop.signal, [signal.getsignal(one) for one in BOTH]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(None, before)]


TWICE = """
import os, signal, sys, time
from kdc_core.stopping import stop_by_signal
with stop_by_signal() as stop:
    if os.fork() == 0:  # it has the pipe, too
        os.close(1)
        time.sleep(2)
        os._exit(0)
    for number in map(int, sys.argv[2:]):
        os.kill(os.getpid(), number)
        time.sleep(float(sys.argv[1]))
print(stop.signal)
"""


def run(*numbers: int, apart_s: float = 0.3) -> tuple[int, str]:
    """Exit status and output of a process that sends itself signals."""
    given = [str(apart_s), *(str(int(number)) for number in numbers)]
    arguments = [sys.executable, "-c", TWICE, *given]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    code = process.wait(10)
    assert process.stdout is not None
    return code, process.stdout.read()


def test_a_second_signal_ends_the_process() -> None:
    assert run(signal.SIGTERM) == (0, "15\n"), "though a process forked off lives on"
    assert run(signal.SIGTERM, signal.SIGINT) == (130, "")
    assert run(signal.SIGINT, signal.SIGTERM) == (143, "")
    assert run(signal.SIGTERM, signal.SIGTERM, apart_s=0.01) == (0, "15\n"), "sent as one"


def test_who_was_stopped_ends_with_the_status_of_the_signal() -> None:
    assert [Stopped(number).code for number in BOTH] == [130, 143]
