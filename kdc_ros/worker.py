"""The worker threads: the latest frame in, outputs out. Knows nothing of ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class LatestBox:
    """Room for one frame; a newer one replaces it.

    So a slow consumer is at most one frame late, whatever the rate of the producer.

    Args:
        dropped: frames that a box before this one dropped.

    Attributes:
        dropped: with those, frames that nobody took: a newer one came, or the box was closed.
    """

    def __init__(self, dropped: int = 0) -> None:
        self._condition = threading.Condition()
        self._item: Any = None
        self._closed = False
        self.dropped = dropped

    def put(self, item: Any) -> None:
        """Put a frame in, dropping the one before it if it is still there."""
        with self._condition:
            self.dropped += self._item is not None or self._closed
            if not self._closed:
                self._item = item
            self._condition.notify()

    def get(self) -> Any:
        """Wait for a frame and take it; None once the box is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None or self._closed)
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """Drop the frame that waits and wake whoever does; the box stays closed."""
        with self._condition:
            self.dropped += self._item is not None
            self._item, self._closed = None, True
            self._condition.notify_all()


class Worker:
    """Handles each frame of a box in two steps, in a thread of its own.

    Neither step must raise: what may fail is its own business.

    Args:
        box: of the frames.
        begin: starts on a frame; what it returns ends the frame, None where nothing is left to do.
        pipeline: end each frame in a second thread while the next one is begun; then two are
            under way at most, and still end one after the other.
    """

    def __init__(
        self,
        box: LatestBox,
        begin: Callable[[Any], Callable[[], None] | None],
        pipeline: bool = False,
    ):
        self._box, self._begin, self._pipeline = box, begin, pipeline
        self._thread = threading.Thread(target=self._run, name="kdc_worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before: Future[None] | None = None
        with ThreadPoolExecutor(1, "kdc_worker_end") as ends:
            while (item := self._box.get()) is not None:
                end = self._begin(item)
                if end is None:
                    continue
                if not self._pipeline:
                    end()
                    continue
                if before is not None:
                    before.result()
                before = ends.submit(end)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Close the box and wait for the frames in work to end.

        Args:
            timeout_s: the longest wait; None = for however long they take.

        Returns:
            Whether they have ended.
        """
        self._box.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
