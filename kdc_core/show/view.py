"""A live view in a browser, served by rerun: image, masks, skeletons, ids and rates.

Importing this needs rerun, of the extra `view`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.resources import files
from urllib.parse import quote

import numpy as np

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.errors import KdcError
from kdc_core.show.page import HOST, Page
from kdc_core.show.rerun_stream import TIMEOUT_S, Shown, Stream

PAGE_PORT, DATA_PORT = 9090, 9876  # rerun's own; where one is taken, any that is free
MEMORY = "256MiB"  # of frames that the server keeps for browsers that come later
RATE_FRAMES = 30  # the rate is over so many
# The server ends with this process, however that ends: then `cat` comes to the end of its input.
END_WITH_US = '"$@" & cat; kill $!; wait'


class View:
    """Shows frames to browsers of this machine; use as a context manager.

    A thread sends them to rerun's server, a process of its own, which keeps the last `MEMORY` of
    them. A frame that comes while another is sent replaces the one that waits: nobody waits for
    the view.

    Args:
        skeleton: of the people.
        failed: called with the reason if the view ends before it is closed.

    Attributes:
        url: of the page.
        ended: it shows nothing more.

    Raises:
        KdcError: the server did not start.
        OSError: another took the port of the page meanwhile.
    """

    def __init__(self, skeleton: Skeleton, failed: Callable[[str], object]):
        page, data, rerun = (_free_port(port) for port in (PAGE_PORT, DATA_PORT, 0))
        source = f"rerun+http://{HOST}:{data}/proxy"
        self.url = f"http://{HOST}:{page}/?url={quote(source, safe='')}"
        self._failed, self.ended = failed, False
        with ExitStack() as opening:  # what is open ends if the rest fails
            self._server = _start_server(rerun, data)
            opening.callback(_end_server, self._server)
            opening.callback(Page(page, rerun, data).close)
            self._stream = Stream(skeleton, source)
            self._open = opening.pop_all()
        self._times: deque[float] = deque(maxlen=RATE_FRAMES)
        self._waiting: deque[Shown] = deque(maxlen=1)
        self._came, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._send_all, name="view", daemon=True)
        self._thread.start()

    def show(
        self,
        image: np.ndarray,
        prediction: Prediction,
        keypoint_threshold: float,
        milliseconds: Mapping[str, float],
        time_s: float | None = None,
    ) -> None:
        """Send a frame as soon as there is time; returns at once and never fails.

        Args:
            image: (H, W, 3) uint8 RGB; must not change afterwards.
            prediction: its people.
            keypoint_threshold: keypoints below are not shown.
            milliseconds: durations by name.
            time_s: of the frame, seconds; None = it has none.
        """
        self._times.append(time.monotonic())
        seconds = self._times[-1] - self._times[0]
        rate = (len(self._times) - 1) / seconds if seconds else 0.0
        self._waiting.append(
            Shown(image, prediction, keypoint_threshold, milliseconds, rate, time_s)
        )
        self._came.set()

    def close(self) -> None:
        """Send the frame that waits, and end the server."""
        self._closing = True
        self._came.set()
        self._thread.join(TIMEOUT_S)
        self._open.close()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _send_all(self) -> None:
        """The thread: until the view is closed, or the server gone."""
        try:
            while not self._closing:
                self._came.wait()
                self._came.clear()
                while self._waiting:
                    self._stream.send(self._waiting.popleft())
            self._stream.close()
        except Exception as error:  # whoever shows frames is to go on
            self.ended = True
            self._failed(f"the view has ended: {error}")


def _free_port(wanted: int) -> int:
    """The wanted port of this machine, or any that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise KdcError(f"the view finds no free port on {HOST}")


def _start_server(page: int, data: int) -> subprocess.Popen[bytes]:
    """rerun's server, once it takes connections on both ports.

    Raises:
        KdcError: it does not take any.
    """
    program = str(files("rerun_cli") / "rerun")
    options = ["--bind", HOST, "--port", str(data), "--web-viewer-port", str(page)]
    options += ["--server-memory-limit", MEMORY]
    server = subprocess.Popen(
        ["sh", "-c", END_WITH_US, "sh", program, "--serve-web", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # With CI it tells its makers nothing of its use.
        env=os.environ | {"CI": "1"},
        # A SIGINT from the keyboard is for this process.
        start_new_session=True,
    )
    end = time.monotonic() + TIMEOUT_S
    while not (_answers(page) and _answers(data)):
        if time.monotonic() > end:
            _end_server(server)
            raise KdcError(f"the view did not start: try '{program} --serve-web' to see why")
        time.sleep(0.05)
    return server


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1.0).close()
    except OSError:
        return False
    return True


def _end_server(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
