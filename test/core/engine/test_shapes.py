"""Sizes of frames, and which of them a program takes; programs that are none."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from core.engine.conftest import EngineOf, Play, write_program
from kdc_core.errors import KdcError
from kdc_core.inference.engine.cache import Cache, get_engine
from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.engine.shapes import Shapes, parse_profile, parse_size
from kdc_core.inference.manifest import FrameError, ManifestError, read_manifest


@pytest.mark.parametrize("text", [*"448 448x x576 448*576 -448x576 4.5x6 0x0".split(), ""])
def test_sizes_are_written_height_times_width(text: str) -> None:
    with pytest.raises(EngineError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_a_size_that_takes_all_memory_is_refused_before_it_does() -> None:
    assert parse_size("4096x32") == (4096, 32)
    with pytest.raises(EngineError, match="at most 4096 pixels, got 32x64000"):
        parse_size("32x64000")


def test_profiles_are_three_sizes() -> None:
    shapes = parse_profile("320x320, 448x576,576x640")
    assert shapes.sizes == ((320, 320), (448, 576), (576, 640))
    assert str(shapes) == "320x320 to 448x576 to 576x640" and not shapes.is_fixed
    with pytest.raises(EngineError, match="expected three sizes"):
        parse_profile("320x320,448x576")


@pytest.mark.parametrize("size", [(450, 576), (448, 570), (0, 576)])
def test_sides_that_do_not_fit_are_refused_before_anything_is_started(
    play: Play, folder: Path, engine_of: EngineOf, size: tuple[int, int]
) -> None:
    play(build="crash")
    with pytest.raises(FrameError, match="multiples of 32"):
        engine_of(size)
    with pytest.raises(FrameError, match="multiples of 32"):
        engine_of(Shapes(smallest=(320, 320), usual=size, largest=(576, 576)))
    with pytest.raises(EngineError, match="at most 4096"):
        engine_of((448, 8192))
    assert not list(folder.iterdir())


def test_sizes_grow(small: Path) -> None:
    manifest = read_manifest(small)
    parse_profile("320x320,320x320,448x576").check(manifest)
    with pytest.raises(EngineError, match="expected sizes that grow"):
        parse_profile("448x576,320x320,576x576").check(manifest)


def test_a_program_of_one_size_takes_no_other(tmp_path: Path) -> None:
    manifest = read_manifest(write_program(tmp_path / "one.onnx", size=[448, 576]))
    Shapes.fixed((448, 576)).check(manifest)
    with pytest.raises(FrameError, match="frames of 448 x 576 alone"):
        Shapes.fixed((320, 576)).check(manifest)


def test_a_file_for_cpu_runtimes_is_refused(play: Play, folder: Path, tmp_path: Path) -> None:
    play(build="crash")
    path = write_program(tmp_path / "cpu.onnx", precision="int8-cpu")
    with pytest.raises(EngineError, match="is for CPU runtimes: use the int8-trt file"):
        get_engine(path, (448, 576), cache=Cache(folder))


def test_what_is_no_program_of_ours_is_refused(
    tmp_path: Path, play: Play, folder: Path, small: Path
) -> None:
    play()
    content = small.read_bytes()
    model = onnx.load(small)
    del model.metadata_props[:]
    path = tmp_path / "model.onnx"
    texts = {
        b"": "is not a KDC program",
        b"hello": "is not an ONNX file",
        content[: len(content) // 2]: "is not an ONNX file",
        model.SerializeToString(): "is not a KDC program",
        write_program(tmp_path / "newer.onnx", schema_number=99).read_bytes(): "another version",
        write_program(tmp_path / "older.onnx", schema_number=0).read_bytes(): "another version",
    }
    for given, text in texts.items():
        path.write_bytes(given)
        with pytest.raises(ManifestError, match=text):
            get_engine(path, (448, 576), cache=Cache(folder))
    path.unlink()
    with pytest.raises(KdcError, match="cannot read .*No such file"):
        get_engine(path, (448, 576), cache=Cache(folder))
    assert not list(folder.iterdir())
