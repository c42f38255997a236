"""The live view: what its page shows, to whom, and what becomes of it when things go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("rerun", reason="rerun is not installed (extra `view`)")

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.show.drawing import MASK_ALPHA, PALETTE
from kdc_core.show.rerun_stream import TIMEOUT_S
from kdc_core.show.view import View

from .browser import PROGRAM, Browser

SIZE = (240, 320)
GROUND = np.array((0.0, 120.0, 40.0))
GAMMA = 2.2  # the viewer mixes colors as light
PAGE_S = 240.0  # a browser without a GPU on a busy machine


def person(number: int, left: int) -> Person:
    """A box of 60 by 160 pixels with seen shoulders and hips."""
    keypoints = np.zeros((COCO17.num_keypoints, 3), np.float32)
    for index, place in {5: (45, 40), 6: (15, 40), 11: (40, 90), 12: (20, 90)}.items():
        keypoints[index] = left + place[0], 40 + place[1], 0.9
    box = np.array((left, 40, left + 60, 200), np.float32)
    none = np.zeros((0, 4), np.float32)
    return Person(0.9, keypoints, box, np.ones((160, 60), bool), (left, 40), none, number)


def show(view: View, *people: Person) -> None:
    image = np.full((*SIZE, 3), GROUND, np.uint8)
    view.show(image, Prediction(SIZE, people), 0.3, {"model": 20.0}, 1.5)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def view(told: list[str]) -> Iterator[View]:
    with View(COCO17, told.append) as view:
        yield view


def until(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not (reached := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return reached


def listening() -> set[tuple[str, int]]:
    """Addresses (hexadecimal) and ports on which this machine takes connections."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        (address, int(port, 16))
        for words in lines
        if words[3] == "0A"
        for address, port in [words[1].split(":")]
    }


def server_of(pid: int) -> int:
    """Number of the process of rerun's server that belongs to a view's shell."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if "rerun" in Path(f"/proc/{child}/cmdline").read_text().split("\0")[0]:
            return int(child)
    raise AssertionError("no server")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or read
        return False


@pytest.mark.all
@pytest.mark.slow
@pytest.mark.skipif(
    PROGRAM is None, reason="no chromium is installed (apt: chromium-headless-shell)"
)
def test_a_browser_shows_image_masks_and_plots(view: View, tmp_path: Path) -> None:
    for _ in range(4):
        show(view, person(3, 30), person(20, 200))
        time.sleep(0.2)

    def near(page: np.ndarray, color: np.ndarray) -> int:
        return int((np.abs(page.astype(int) - color).max(-1) < 16).sum())

    def tint(number: int) -> np.ndarray:
        color = PALETTE[(number - 1) % len(PALETTE)].astype(float)
        mixed = GROUND**GAMMA * (1 - MASK_ALPHA) + color**GAMMA * MASK_ALPHA
        return np.asarray(mixed ** (1 / GAMMA))

    with Browser(tmp_path, (480, 800)) as browser:
        browser.open(view.url)

        def seen() -> bool:
            page = browser.screenshot()
            people, plots = page[:, :530], page[:, 540:]
            return (
                near(people, GROUND) > 10_000
                and min(near(people, tint(3)), near(people, tint(20))) > 2_000
                and near(people, PALETTE[2]) > 100  # bones and box
                and min(near(plots, PALETTE[2]), near(plots, PALETTE[3])) > 10  # ids
            )

        assert until(seen, PAGE_S)
        hosts = {urlsplit(address).hostname for address in browser.asked}
    assert hosts == {"127.0.0.1"}, "the page asks nobody else, and tells nobody of its use"


def test_only_this_machine_is_served(view: View) -> None:
    server = Path(f"/proc/{server_of(view._server.pid)}/cmdline").read_text().split("\0")
    rerun, data = (int(server[server.index(o) + 1]) for o in ("--web-viewer-port", "--port"))
    ports = {urlsplit(view.url).port, rerun, data}
    mine = {(address, port) for address, port in listening() if port in ports}
    assert mine == {("0100007F", port) for port in ports}, "on 127.0.0.1"


def test_two_views_are_served_at_once(view: View, told: list[str]) -> None:
    with View(COCO17, told.append) as other:
        assert other.url != view.url
        show(other, person(1, 30))
    assert not told


@pytest.mark.all
def test_a_server_that_hangs_holds_up_nobody(view: View, told: list[str]) -> None:
    show(view)
    assert until(lambda: not view._waiting)
    server = server_of(view._server.pid)
    os.kill(server, signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(20):
        show(view, person(1, 30))
    assert time.monotonic() - begun < TIMEOUT_S, "less than the server has for one frame"
    view.close()
    assert until(lambda: not lives(server)), "killed, if it takes a moment"


def test_a_server_that_died_is_told_once(view: View, told: list[str]) -> None:
    show(view)
    os.kill(server_of(view._server.pid), signal.SIGKILL)

    def shown() -> bool:
        show(view, person(1, 30))
        return bool(told)

    assert until(shown)
    show(view)
    assert len(told) == 1 and told[0].startswith("the view has ended: ") and view.ended


@pytest.mark.all
def test_the_server_ends_with_a_process_that_is_killed() -> None:
    code = (
        "from kdc_core.codec.skeleton import COCO17; from kdc_core.show.view import View\n"
        "import sys; print(View(COCO17, print)._server.pid, flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True
    ) as done:
        assert done.stdout is not None
        server = server_of(int(done.stdout.readline()))
        assert lives(server)
        done.kill()
    assert until(lambda: not lives(server))
