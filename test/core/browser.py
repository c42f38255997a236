"""A browser without a window, told what to do through its DevTools pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
# The browser reads what to do from file 3 and answers on file 4.
AS_3_AND_4 = """
import os, sys
read, write = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]))
for have, wanted in ((read, 3), (write, 4)):
    os.dup2(have, wanted)
    os.set_inheritable(wanted, True)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page of a size; use as a context manager.

    Args:
        folder: for what the browser keeps.
        size: (height, width) of the page.

    Attributes:
        asked: addresses that the page asked for, and was not kept from.
    """

    def __init__(self, folder: Path, size: tuple[int, int]):
        assert PROGRAM is not None
        theirs, self._write = os.pipe()
        self._read, answers = os.pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            f"--user-data-dir={folder}",
            f"--window-size={size[1]},{size[0]}",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", AS_3_AND_4, str(theirs), str(answers), PROGRAM, *options],
            pass_fds=(theirs, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        self._calls, self._rest, self._page = 0, b"", ""
        self._asked: dict[str, str] = {}  # address by number of the request

    def open(self, url: str) -> None:
        """Begin to load a page."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._page = attached["sessionId"]
        self._call("Network.enable")
        self._call("Page.enable")
        self._call("Page.navigate", url=url)
        while self._next().get("method") != "Page.domContentEventFired":
            pass

    @property
    def asked(self) -> set[str]:
        return set(self._asked.values())

    def screenshot(self) -> np.ndarray:
        """What the page looks like: (H, W, 3) uint8 RGB."""
        data = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return image[..., ::-1]

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params}
        if self._page:
            message["sessionId"] = self._page
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._calls:
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        """The next answer or event."""
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        text, self._rest = self._rest.split(b"\0", 1)
        message = dict(json.loads(text))
        happened = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self._asked[happened["requestId"]] = happened["request"]["url"]
        elif happened.get("blockedReason") == "csp":
            self._asked.pop(happened["requestId"])
        return message

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
