"""The worker thread: the latest frame in, outputs out. Knows nothing of ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class LatestBox:
    """Room for one frame; a newer one replaces it.

    So a slow consumer is at most one frame late, whatever the rate of the producer.

    Attributes:
        dropped: frames that were replaced before anybody took them.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: Any = None
        self._closed = False
        self.dropped = 0

    def put(self, item: Any) -> None:
        """Put a frame in, dropping the one before it if it is still there."""
        with self._condition:
            if self._closed:
                return
            self.dropped += self._item is not None
            self._item = item
            self._condition.notify()

    def get(self) -> Any:
        """Wait for a frame and take it; None once the box is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None or self._closed)
            item, self._item = self._item, None
            return None if self._closed else item

    def close(self) -> None:
        """Wake whoever waits; the box stays closed."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class Worker:
    """Calls a function with each frame of a box, in a thread of its own.

    The function must not raise: what may fail is its own business.
    """

    def __init__(self, box: LatestBox, process: Callable[[Any], None]):
        self._box, self._process = box, process
        self._thread = threading.Thread(target=self._run, name="kdc_worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._box.get()) is not None:
            self._process(item)

    def stop(self) -> None:
        """Close the box and wait for the frame in work to end."""
        self._box.close()
        self._thread.join()
