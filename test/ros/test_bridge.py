"""cv_bridge, tried in a process of its own and used where it is right.

cv_bridge itself cannot be had here. A stub (test/stub/cv_bridge) stands in for it: it converts in
earnest and has the real one's habits. Broken ones are modules written for the test.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kdc_core import doctor
from kdc_ros import bridge
from kdc_ros.converter import Converter
from kdc_ros.images import PACKED, BadFrame

from .test_images import HEIGHT, IMAGES, WIDTH, assert_is_scene, frame

if TYPE_CHECKING:  # these need rclpy
    from .peer import MakePeer
    from .process import Start

STUBS = Path(__file__).parents[1] / "stub"
UNKNOWN_TO_IT = {"8UC1", "8UC3", "8UC4"}
EIGHT_BITS = {name for name, (dtype, _, _) in PACKED.items() if dtype is np.uint8}

Install = Callable[[str], None]


@pytest.fixture
def no_cv_bridge() -> Iterator[None]:
    """What is imported of it is forgotten before and after."""
    sys.modules.pop("cv_bridge", None)
    yield
    sys.modules.pop("cv_bridge", None)


@pytest.fixture
def install(no_cv_bridge: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """install(code): a module cv_bridge, version 3.2.1, in place of whatever is installed."""

    def install(code: str) -> None:
        (tmp_path / "cv_bridge.py").write_text(code)
        about = tmp_path / "cv_bridge-3.2.1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cv_bridge\nVersion: 3.2.1\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


@pytest.fixture
def stub(no_cv_bridge: None, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stub of cv_bridge that converts."""
    monkeypatch.syspath_prepend(str(STUBS))
    return importlib.import_module("cv_bridge")


# It is loaded by its place: its name is taken by what wraps it.
AS_STUB = f"""
import importlib.util, numpy as np
spec = importlib.util.spec_from_file_location("stub", {str(STUBS / "cv_bridge/__init__.py")!r})
stub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stub)
class CvBridge(stub.CvBridge):
    def imgmsg_to_cv2(self, message, desired_encoding):
        return {{}}(super().imgmsg_to_cv2(message, desired_encoding))
"""

BROKEN = {
    "dies": ("import os\nos.abort()", "crashed with SIGABRT"),
    "segfault": ("import ctypes\nctypes.string_at(0)", "crashed with SIGSEGV"),
    "leaves": ("import os\nos._exit(0)", "failed: exit status 0"),
    "does not import": (
        "raise ImportError('numpy.core.multiarray failed to import')",
        "failed: ImportError: numpy.core.multiarray failed to import",
    ),
    "is not constructed": (
        "class CvBridge:\n    def __init__(self):\n        raise RuntimeError('not today')",
        "failed: RuntimeError: not today",
    ),
    "raises": (
        "class CvBridge:\n    def imgmsg_to_cv2(self, *_, **__):\n        raise AttributeError",
        "converts no encoding correctly",
    ),
    "gives bytes of another type": (
        AS_STUB.format("np.float32"),
        "converts no encoding correctly",
    ),
    "gives another shape": (AS_STUB.format("np.ravel"), "converts no encoding correctly"),
}


@pytest.mark.parametrize(("code", "what"), BROKEN.values(), ids=BROKEN)
def test_a_broken_cv_bridge_is_told_of_and_not_used(
    install: Install, code: str, what: str
) -> None:
    install(code)
    converter = Converter()
    assert converter.bridged == frozenset()
    assert f"cv_bridge 3.2.1 beside numpy {np.__version__} {what};" in converter.complaint
    assert "pip install 'numpy<2'" in converter.complaint
    assert "\n" not in converter.complaint
    assert_is_scene(converter(frame("bgr8")), "bgr8")


def test_a_cv_bridge_that_hangs_is_left_after_a_while(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bridge.TIMEOUT_S <= 10
    monkeypatch.setattr(bridge, "TIMEOUT_S", 0.5)
    install("import time\ntime.sleep(60)")
    bridged, complaint = bridge.try_cv_bridge()
    assert not bridged
    assert f"cv_bridge 3.2.1 beside numpy {np.__version__} did not answer within" in complaint


@pytest.mark.ros
@pytest.mark.all
def test_the_node_lives_beside_a_cv_bridge_that_ends_its_process(
    install: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: Start,
    peer: MakePeer,
) -> None:
    install(BROKEN["dies"][0])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = start("-r", "__ns:=/bridge")
    peer("/bridge").meet()
    warnings = [line for line in process.log.splitlines() if "cv_bridge" in line]
    assert len(warnings) == 1 and "[WARN]" in warnings[0]
    assert f"cv_bridge 3.2.1 beside numpy {np.__version__} crashed" in warnings[0]
    assert "'numpy<2'" in warnings[0]


def test_a_cv_bridge_that_is_not_installed_is_no_fault(
    no_cv_bridge: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    assert bridge.try_cv_bridge() == (frozenset(), "")


@pytest.mark.all
def test_doctor_has_a_row_of_it(install: Install) -> None:
    install("import os\nos.abort()")
    text = dict(doctor._packages())["cv_bridge"]
    assert f"cv_bridge 3.2.1 beside numpy {np.__version__} crashed with SIGABRT" in text
    assert "pip install 'numpy<2'" in text


def test_it_is_described_in_a_line(stub: ModuleType) -> None:
    assert bridge.describe() == f"right in {len(EIGHT_BITS - UNKNOWN_TO_IT)} encodings"


def test_a_good_cv_bridge_is_used_where_it_knows_the_encoding(stub: ModuleType) -> None:
    """The stub's own list: all but the OpenCV types, as in the real one."""
    converter = Converter()
    assert converter.bridged == EIGHT_BITS - UNKNOWN_TO_IT
    assert converter.complaint == ""


def test_one_that_swaps_colors_is_used_for_gray_at_most(install: Install) -> None:
    install(AS_STUB.format("(lambda rgb: rgb[..., ::-1])"))
    assert Converter().bridged == {"mono8"}


@pytest.fixture
def converter(stub: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Converter:
    """One that leaves everything it may to the stub, which is not tried each time."""
    found = frozenset(EIGHT_BITS - UNKNOWN_TO_IT)
    monkeypatch.setattr("kdc_ros.converter.try_cv_bridge", lambda: (found, ""))
    return Converter()


def test_a_bridged_frame_goes_through_cv_bridge(
    converter: Converter, stub: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = np.full((HEIGHT, WIDTH, 3), 9, np.uint8)
    monkeypatch.setattr(stub.CvBridge, "imgmsg_to_cv2", lambda *_, **__: marked)
    assert (converter(frame("mono8")) == 9).all()


@pytest.mark.parametrize("encoding", IMAGES)
def test_frames_are_the_same_with_cv_bridge(converter: Converter, encoding: str) -> None:
    """Also padded, cut, too long, and said to be of swapped bytes."""
    assert_is_scene(converter(frame(encoding)), encoding)
    for padding in (1, 12):
        assert_is_scene(converter(frame(encoding, padding)), encoding)
        cut = frame(encoding, padding)
        cut.data = cut.data[:-padding]
        assert_is_scene(converter(cut), encoding)
    longer = frame(encoding)
    longer.data.extend([0xA5] * 100)
    assert_is_scene(converter(longer), encoding)
    assert_is_scene(converter(frame(encoding, is_bigendian=1)), encoding)


def test_what_cv_bridge_refuses_is_a_bad_frame(
    converter: Converter, stub: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise stub.CvBridgeError("no")

    monkeypatch.setattr(stub.CvBridge, "imgmsg_to_cv2", refuse)
    with pytest.raises(BadFrame, match="cv_bridge: no"):
        converter(frame("rgb8"))
