"""TensorRT-RTX itself parses and builds every shipped program, without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.engine.conftest import SHIPPED
from kdc_core.inference.engine.cache import Cache, get_engine
from kdc_core.inference.engine.entries import list_entries
from kdc_core.inference.engine.key import Target
from kdc_core.inference.engine.library import find_library
from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.engine.shapes import Shapes, parse_profile

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

PROGRAMS = sorted(SHIPPED.parent.glob("*.onnx"))
ADA = Target.named("8.9")


def test_it_has_every_name_a_build_needs() -> None:
    library = find_library("tensorrt-rtx")
    assert {"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"} <= set(library.targets)
    assert "9.0" not in library.targets and "8.7" not in library.targets


@pytest.mark.all
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_every_shipped_program_builds_and_goes_through_the_cache(path: Path, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    cache = Cache(folder, progress=lambda *step: told.append(step))
    library = find_library("tensorrt-rtx")
    engine = get_engine(path, (448, 576), ADA, library, cache)
    assert engine.built and {phase for phase, _, _ in told} > {"Building engine"}
    header = bytes.fromhex(engine.sidecar.header)
    assert header[:4] == b"vtrt" and ".".join(map(str, header[24:])) == library.version
    assert int.from_bytes(header[16:24], "little") == engine.sidecar.engine_bytes
    served = get_engine(path, (448, 576), ADA, library, cache)
    assert not served.built and served.seconds < 5
    (entry,) = list_entries(folder)
    assert entry.fault is None and entry.why_not_here, "no GPU may run it"


@pytest.mark.all
@pytest.mark.parametrize("profile", ["320x320,448x576,576x576"])
def test_a_range_of_sizes_builds(profile: str, folder: Path) -> None:
    shapes = parse_profile(profile)
    assert get_engine(SHIPPED, shapes, ADA, find_library("tensorrt-rtx"), Cache(folder)).built


@pytest.mark.all
def test_a_range_that_begins_too_small_is_explained(folder: Path) -> None:
    shapes = Shapes(smallest=(128, 128), usual=(448, 576), largest=(576, 576))
    with pytest.raises(EngineError, match="sizes do not fit the network: 128x128 to 448x576"):
        get_engine(SHIPPED, shapes, ADA, find_library("tensorrt-rtx"), Cache(folder))
