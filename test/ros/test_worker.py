"""The one-slot box and the worker's threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from kdc_ros.worker import LatestBox, Worker

TIMEOUT_S = 20.0


def test_a_newer_frame_replaces_the_one_that_waits() -> None:
    box = LatestBox()
    for item in ("first", "second", "third"):
        box.put(item)
    assert box.get() == "third"
    assert box.dropped == 2


def test_a_frame_that_was_taken_does_not_count_as_dropped() -> None:
    box = LatestBox()
    box.put("first")
    assert box.get() == "first"
    box.put("second")
    assert box.get() == "second"
    assert box.dropped == 0


def test_get_waits_for_a_frame() -> None:
    box, got = LatestBox(), []
    thread = threading.Thread(target=lambda: got.append(box.get()), daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    box.put("late")
    thread.join(TIMEOUT_S)
    assert got == ["late"]


def test_close_wakes_whoever_waits() -> None:
    box, got = LatestBox(), []
    threads = [
        threading.Thread(target=lambda: got.append(box.get()), daemon=True) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    box.close()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert got == [None, None]


def test_a_closed_box_stays_closed() -> None:
    box = LatestBox()
    box.close()
    box.put("after")
    assert box.get() is None
    assert box.dropped == 1


def test_a_frame_that_waits_when_the_box_is_closed_counts_as_dropped() -> None:
    box = LatestBox(dropped=2)
    box.put("waits")
    box.close()
    assert box.get() is None
    assert box.dropped == 3


class Slow:
    """Work that takes until it is released.

    Attributes:
        begun, done: items in the order in which their two steps came.
        begins: set when one begins.
        release: lets them end.
    """

    def __init__(self) -> None:
        self.begins, self.release = threading.Event(), threading.Event()
        self.begun: list[str] = []
        self.done: list[str] = []

    def __call__(self, item: str) -> Callable[[], None]:
        self.begun.append(item)
        self.begins.set()
        return partial(self._end, item)

    def _end(self, item: str) -> None:
        self.release.wait(TIMEOUT_S)
        self.done.append(item)


def test_worker_processes_frame_after_frame_in_its_own_thread() -> None:
    box, threads = LatestBox(), []
    finished = threading.Event()

    def begin(item: str) -> None:
        threads.append((item, threading.current_thread()))
        if item == "first":
            box.put("second")
        else:
            finished.set()

    worker = Worker(box, begin)
    box.put("first")
    assert finished.wait(TIMEOUT_S)
    worker.stop()
    assert [item for item, _ in threads] == ["first", "second"]
    assert threading.current_thread() not in [thread for _, thread in threads]


def test_worker_takes_the_latest_when_it_is_slow() -> None:
    box, slow = LatestBox(), Slow()
    worker = Worker(box, slow)
    box.put("in work")
    assert slow.begins.wait(TIMEOUT_S)
    box.put("old")
    box.put("new")
    slow.begins.clear()
    slow.release.set()
    assert slow.begins.wait(TIMEOUT_S)
    worker.stop()
    assert slow.done == ["in work", "new"]
    assert box.dropped == 1


def test_stop_waits_for_the_frame_in_work_and_leaves_the_next() -> None:
    box, slow = LatestBox(), Slow()
    worker = Worker(box, slow)
    box.put("in work")
    assert slow.begins.wait(TIMEOUT_S)
    box.put("next")
    stopper = threading.Thread(target=worker.stop, daemon=True)
    stopper.start()
    stopper.join(0.1)
    assert stopper.is_alive(), "stop returned while a frame was in work"
    slow.release.set()
    stopper.join(TIMEOUT_S)
    assert not stopper.is_alive()
    assert slow.done == ["in work"]
    assert box.dropped == 1, "the next"


def put_and_wait(box: LatestBox, slow: Slow, item: str) -> bool:
    """Put an item in; whether it is begun within a moment."""
    slow.begins.clear()
    box.put(item)
    return slow.begins.wait(0.2)


def test_in_a_pipeline_two_frames_are_under_way_and_end_in_their_order() -> None:
    box, slow = LatestBox(), Slow()
    worker = Worker(box, slow, pipeline=True)
    assert put_and_wait(box, slow, "first")
    assert put_and_wait(box, slow, "second"), "begun while the first is in work"
    assert not put_and_wait(box, slow, "old")
    assert not put_and_wait(box, slow, "third"), "a third waits, and the latest is taken"
    slow.begins.clear()
    slow.release.set()
    assert slow.begins.wait(TIMEOUT_S)
    worker.stop()
    assert slow.done == slow.begun == ["first", "second", "third"]
    assert box.dropped == 1


def test_without_a_pipeline_one_frame_is_under_way() -> None:
    box, slow = LatestBox(), Slow()
    worker = Worker(box, slow)
    assert put_and_wait(box, slow, "first")
    assert not put_and_wait(box, slow, "second")
    slow.release.set()
    worker.stop()


def test_stop_waits_for_both_frames_of_a_pipeline() -> None:
    box, slow = LatestBox(), Slow()
    worker = Worker(box, slow, pipeline=True)
    assert put_and_wait(box, slow, "first") and put_and_wait(box, slow, "second")
    box.put("third")
    stopper = threading.Thread(target=worker.stop, daemon=True)
    stopper.start()
    stopper.join(0.1)
    assert stopper.is_alive()
    slow.release.set()
    stopper.join(TIMEOUT_S)
    assert not stopper.is_alive()
    assert slow.done == ["first", "second"]
    assert box.dropped == 1


def test_stop_of_an_idle_worker_returns() -> None:
    stopper = threading.Thread(target=Worker(LatestBox(), Slow()).stop, daemon=True)
    stopper.start()
    stopper.join(TIMEOUT_S)
    assert not stopper.is_alive()
