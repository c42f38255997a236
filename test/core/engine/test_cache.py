"""The cache of engines: what is served, what is refused, and who may write to it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.engine.conftest import ADA, FIXED, EngineOf, Play, wanted
from kdc_core.inference.engine import cache
from kdc_core.inference.engine.cache import Cache, EngineFile, get_engine, open_entry
from kdc_core.inference.engine.driver import Gpu
from kdc_core.inference.engine.entries import clean, find_entry, list_entries
from kdc_core.inference.engine.folder import default_folder, open_folder, publish
from kdc_core.inference.engine.key import Key, Sidecar, Target
from kdc_core.inference.engine.messages import BrokenEngine, EngineError
from kdc_core.inference.engine.program import ProgramFile
from kdc_core.inference.engine.shapes import Shapes


class Kept(NamedTuple):
    """One engine in a folder: its own file and its description."""

    engine: Path
    sidecar: Path


@pytest.fixture(scope="module")
def built() -> dict[str, bytes]:
    """Files of a cache with one engine, for `kept`, which fills it."""
    return {}


@pytest.fixture
def kept(play: Play, folder: Path, engine_of: EngineOf, built: dict[str, bytes]) -> Kept:
    """An engine in `folder`, as it was built once."""
    play()
    if not built:
        engine_of()
        built |= {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, content in built.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o644)
    (engine,) = folder.glob("*.engine")
    return Kept(engine, engine.with_suffix(".json"))


def names(folder: Path) -> list[str]:
    """Endings of the files of engines; timings have names of their own."""
    files = [path.name.split(".", 1) for path in folder.iterdir()]
    return sorted(ending for stem, ending in files if len(stem) == 64)


def test_what_was_built_is_served_without_building(
    kept: Kept, play: Play, engine_of: EngineOf
) -> None:
    play(build="crash")
    engine = engine_of()
    assert not engine.built and engine.path == kept.engine
    assert engine.read().startswith(b"ftrt")
    assert names(kept.engine.parent) == ["engine", "json", "lock"]


# Everything that decides, decides


def test_whatever_differs_makes_another_name(play: Play, program: ProgramFile) -> None:
    play()
    key = wanted(program)
    other: dict[str, Any] = {
        "onnx_sha256": "0" * 64,
        "family": "tensorrt-rtx",
        "version": "10.3.1",
        "gpu": "another",
        "memory_gib": 19,
        "capability": "8.7",
        "target": "8.9",
        "precision": "fp16",
        "shapes": Shapes.fixed((448, 608)),
        "level": 4,
        "workspace_mib": 512,
    }
    assert set(other) == set(Key.model_fields) - {"schema_number"}
    digests = {key.model_copy(update={name: value}).digest for name, value in other.items()}
    assert len(digests | {key.digest}) == len(other) + 1
    assert key.digest == Key.model_validate_json(key.model_dump_json()).digest


def test_a_gpu_builds_anew_what_was_built_for_its_target(
    play: Play, folder: Path, engine_of: EngineOf, program: ProgramFile
) -> None:
    play(version="rtx 1.7.1.116")
    named = get_engine(program.path, FIXED, Target.named("8.9"), cache=Cache(folder))
    content = json.loads(named.path.with_suffix(".json").read_text())["key"]
    assert content["target"] == "8.9"
    assert not {"gpu", "memory_gib", "capability"} & set(content)
    own = engine_of()
    assert own.built and own.path != named.path
    content = json.loads(own.path.with_suffix(".json").read_text())["key"]
    assert (content["gpu"], content["memory_gib"], content["capability"]) == (ADA.name, 20, "8.9")


# Tampering


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


ENGINES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda d: d[:-1], "engine of 6027 bytes, 6028 were written"),
    "longer": (lambda d: d + b"\0", "engine of 6029 bytes, 6028 were written"),
    "empty": (lambda d: b"", "not a TensorRT engine"),
    "one bit": (lambda d: flip(d, 3000), "its content was changed"),
    "one bit of the header": (lambda d: flip(d, 17), "its content was changed"),
    "magic": (lambda d: b"vtrt" + d[4:], "engine made by TensorRT-RTX, another kind"),
    "foreign": (lambda d: b"\x7fELF" + d[4:], "not a TensorRT engine"),
    "JSON in front": (lambda d: b'{"task":1}' + d, "another tool put data in front"),
    "newer": (lambda d: flip(d, 27), "engine made by version 10.3.0.27, expected 10.3.0.26"),
    "older": (lambda d: flip(d, 25), "engine made by version 10.2.0.26, expected 10.3.0.26"),
}
SIDECARS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda d: d[:-10], "is not one that this version writes"),
    "empty": (lambda d: b"", "is not one that this version writes"),
    "no JSON": (lambda d: b"\xff\xfe", "is not one that this version writes"),
    "a list": (lambda d: b"[]", "is not one that this version writes"),
    "one more field": (lambda d: b'{"x":1,' + d.strip()[1:], "is not one that this version"),
    "one less field": (lambda d: d.replace(b'"level": 3,', b""), "changed after it was written"),
    "newer": (lambda d: d.replace(b'number": 1', b'number": 2'), "is not one that this version"),
    "older": (lambda d: d.replace(b'number": 1', b'number": 0'), "is not one that this version"),
    "other checksum": (lambda d: d.replace(b'_sha256": "', b'_sha256": "0'), "is not one that"),
    "other size": (lambda d: d.replace(b'bytes": 6', b'bytes": 7'), "changed after it was writ"),
    "other GPU": (lambda d: d.replace(b"4000", b"5000"), "changed after it was written"),
    "other seconds": (lambda d: d.replace(b'conds": ', b'conds": 1'), "changed after it was"),
}


@pytest.mark.parametrize("name", ENGINES)
def test_a_changed_engine_is_refused_and_set_aside(
    kept: Kept, name: str, engine_of: EngineOf
) -> None:
    edit, text = ENGINES[name]
    kept.engine.write_bytes(edit(kept.engine.read_bytes()))
    with pytest.raises(EngineError, match=text):
        engine_of(policy="prebuilt")
    assert names(kept.engine.parent) == ["engine.bad", "json.bad", "lock"]


@pytest.mark.parametrize("name", SIDECARS)
def test_a_changed_description_is_refused_and_set_aside(
    kept: Kept, name: str, engine_of: EngineOf
) -> None:
    edit, text = SIDECARS[name]
    before = kept.sidecar.read_bytes()
    kept.sidecar.write_bytes(edit(before))
    assert kept.sidecar.read_bytes() != before
    with pytest.raises(EngineError, match=text):
        engine_of(policy="prebuilt")
    assert names(kept.engine.parent) == ["engine.bad", "json.bad", "lock"]


def test_every_field_of_a_description_counts(kept: Kept) -> None:
    text = kept.sidecar.read_text()
    content = json.loads(text)
    for name in content:
        changed = {key: value for key, value in content.items() if key != name}
        with pytest.raises(BrokenEngine):
            Sidecar.from_json(json.dumps(changed))
    with pytest.raises(BrokenEngine, match="is not one that this version writes"):
        Sidecar.from_json("[" * 100_000)
    assert Sidecar.from_json(text).to_json() == text


def test_an_engine_of_another_key_is_refused_under_this_name(
    kept: Kept, program: ProgramFile, engine_of: EngineOf
) -> None:
    """Whole, with a right checksum, but put where another belongs."""
    folder = kept.engine.parent
    digest = wanted(program, Shapes.fixed((320, 576))).digest
    shutil.copy(kept.engine, folder / f"{digest}.engine")
    shutil.copy(kept.sidecar, folder / f"{digest}.json")
    with pytest.raises(EngineError, match="made for another shapes"):
        engine_of((320, 576), policy="prebuilt")
    assert find_entry(folder, kept.engine.stem[:12]).fault is None


def test_other_gpus_and_versions_are_never_served(
    kept: Kept, play: Play, engine_of: EngineOf
) -> None:
    for script in (
        {"version": "10.16.1.11"},
        {"cuda": {"gpus": [[ADA.name, 8, 9, ADA.memory // 2]]}},
        {"cuda": {"gpus": [["NVIDIA L4", 8, 9, ADA.memory]]}},
        {"cuda": {"gpus": [[ADA.name, 9, 0, ADA.memory]]}},
    ):
        play(**script)
        with pytest.raises(EngineError, match="holds no engine for frames of 448x576, fp32"):
            engine_of(policy="prebuilt")


def test_a_missing_engine_is_built_again(kept: Kept, engine_of: EngineOf) -> None:
    kept.engine.unlink()
    engine = engine_of()
    assert engine.built and names(kept.engine.parent) == ["engine", "json", "json.bad", "lock"]


def test_what_is_refused_is_built_anew_and_said(
    kept: Kept, caplog: pytest.LogCaptureFixture, engine_of: EngineOf
) -> None:
    kept.engine.write_bytes(b"not an engine")
    assert engine_of().built
    assert "not a TensorRT engine" in caplog.text and "building anew" in caplog.text
    assert not engine_of().built
    assert kept.engine.with_suffix(".engine.bad").read_bytes() == b"not an engine"


def test_a_power_cut_between_engine_and_description_leaves_nothing_to_serve(
    kept: Kept, engine_of: EngineOf
) -> None:
    kept.sidecar.unlink()
    with pytest.raises(EngineError, match="holds no engine"):
        engine_of(policy="prebuilt")
    assert engine_of().built


def test_a_reader_without_the_lock_never_sees_half_of_a_write(
    kept: Kept, program: ProgramFile, monkeypatch: pytest.MonkeyPatch, engine_of: EngineOf
) -> None:
    """At each step of a write that replaces a broken engine, by another of other content."""
    folder, digest = kept.engine.parent, kept.engine.stem
    kept.engine.write_bytes(b"not an engine")
    seen: list[str] = []

    def look() -> None:
        entry = open_entry(folder, digest)
        if entry is None:
            seen.append("nothing")
            return
        try:
            seen.append("whole" if entry.read().startswith(b"ftrt") else "half")
        except BrokenEngine:
            seen.append("refused")

    def step(part: Path, path: Path) -> None:
        look()
        publish(part, path)
        look()

    monkeypatch.setattr(cache, "publish", step)
    look()
    assert engine_of().built
    assert seen == ["refused", "nothing", "nothing", "nothing", "whole"]


# The check of who runs it


def test_a_check_refuses_and_one_new_build_is_tried(kept: Kept, program: ProgramFile) -> None:
    seen: list[bool] = []

    def check(engine: EngineFile, plan: bytes) -> None:
        seen.append(engine.built)
        assert plan == kept.engine.read_bytes()
        if not engine.built:
            raise BrokenEngine("a person was missed by 7 px")

    assert get_engine(program.path, FIXED, cache=Cache(kept.engine.parent), check=check).built
    assert seen == [False, True]


def test_an_engine_refused_right_after_its_build_is_not_kept(
    play: Play, folder: Path, program: ProgramFile
) -> None:
    play()

    def check(engine: EngineFile, plan: bytes) -> None:
        raise BrokenEngine("values are not finite")

    with pytest.raises(EngineError, match="just built is refused: values are not finite"):
        get_engine(program.path, FIXED, cache=Cache(folder), check=check)
    assert names(folder) == ["engine.bad", "json.bad", "lock"]


def test_other_trouble_of_a_check_leaves_the_engine(
    kept: Kept, engine_of: EngineOf, program: ProgramFile
) -> None:
    def check(engine: EngineFile, plan: bytes) -> None:
        raise EngineError("out of GPU memory while loading")

    with pytest.raises(EngineError, match="out of GPU memory while loading"):
        get_engine(program.path, FIXED, cache=Cache(kept.engine.parent), check=check)
    assert not engine_of().built


# Whom the folder belongs to


def test_a_new_folder_is_for_this_user_alone(
    play: Play, tmp_path: Path, engine_of: EngineOf
) -> None:
    play()
    before = os.umask(0)
    try:
        assert engine_of(folder=tmp_path / "a" / "b").built
    finally:
        os.umask(before)
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(EngineError, match="others may write to .* code that runs here"):
        open_folder(folder, create=True)


def test_a_folder_below_one_that_all_may_change_is_refused(folder: Path) -> None:
    folder.parent.chmod(0o777)
    with pytest.raises(EngineError, match="everybody may write to"):
        open_folder(folder, create=True)
    folder.parent.chmod(0o1777)  # in which nobody may rename what is another's
    open_folder(folder, create=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_is_refused(kept: Kept, engine_of: EngineOf) -> None:
    os.chown(kept.engine, 12345, -1)
    with pytest.raises(EngineError, match="belongs to user 12345"):
        engine_of()
    os.chown(kept.engine.parent, 12345, -1)
    with pytest.raises(EngineError, match="belongs to user 12345"):
        open_folder(kept.engine.parent, create=True)


@pytest.mark.parametrize("index", [0, 1])
def test_an_engine_that_others_may_write_to_is_refused(
    kept: Kept, index: int, engine_of: EngineOf
) -> None:
    kept[index].chmod(0o666)
    with pytest.raises(EngineError, match="others may write to"):
        engine_of()


def test_a_link_is_followed_to_the_folder_it_names(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert open_folder(link, create=True) == folder
    folder.chmod(0o777)
    with pytest.raises(EngineError, match="others may write"):
        open_folder(link, create=True)


def test_what_is_no_folder_is_refused(folder: Path) -> None:
    (folder / "file").write_text("")
    (folder / "circle").symlink_to("circle")
    for path in (folder / "file", folder / "file" / "below", folder / "circle"):
        with pytest.raises(EngineError):
            open_folder(path, create=True)
    with pytest.raises(EngineError, match="there is no folder of engines"):
        open_folder(folder / "absent", create=False)


def test_the_users_cache_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/kdc/engines")


# Folders that cannot be written to


@pytest.fixture
def read_only(kept: Kept) -> Iterator[Path]:
    """The folder with its engine, read-only as a whole."""
    folder = kept.engine.parent
    if os.getuid():
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    bind = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("root writes everywhere, and may not mount here")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder_serves_and_does_not_build(
    read_only: Path, engine_of: EngineOf
) -> None:
    assert not engine_of().built
    assert not engine_of(policy="prebuilt").built
    with pytest.raises(EngineError, match="cannot write to .*(Read-only|Permission)"):
        engine_of((320, 576))
    with pytest.raises(EngineError, match="holds no engine"):
        engine_of((320, 576), policy="prebuilt")


def test_a_full_disk_is_told_and_nothing_is_left(
    play: Play, tmp_path: Path, engine_of: EngineOf
) -> None:
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        play(build="big")
        with pytest.raises(EngineError, match=r"cannot write the engine \(8 MB\).*No space left"):
            engine_of(folder=folder)
        assert names(folder) == ["lock"]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_full_at_the_description_leaves_nothing(
    play: Play, folder: Path, monkeypatch: pytest.MonkeyPatch, engine_of: EngineOf
) -> None:
    play()

    def full(self: Path, *arguments: object, **more: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EngineError, match="cannot write to .*No space left"):
        engine_of()
    assert names(folder) == ["lock"]


def test_room_is_looked_for_before_building(
    play: Play, folder: Path, monkeypatch: pytest.MonkeyPatch, engine_of: EngineOf
) -> None:
    play(build="crash")
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(EngineError, match="no room in .*: 0 MB free"):
        engine_of()


# Listing and cleaning


def test_entries_say_what_is_wrong(kept: Kept, program: ProgramFile, play: Play) -> None:
    folder = kept.engine.parent
    (entry,) = list_entries(folder)
    assert entry.fault is None and entry.why_not_here is None
    play(version="10.16.1.11")
    assert "made by tensorrt 10.3.0, installed is 10.16.1.11" in str(
        list_entries(folder)[0].why_not_here
    )
    play(cuda={"gpus": [["NVIDIA L4", 8, 9, ADA.memory]]})
    assert "made for NVIDIA RTX 4000 Ada" in str(list_entries(folder)[0].why_not_here)
    play(cuda={"gpus": [[ADA.name, 8, 9, ADA.memory // 2]]})
    assert "(8.9, 20 GiB), here is NVIDIA RTX 4000 Ada (8.9, 10 GiB)" in str(
        list_entries(folder)[0].why_not_here
    )
    gpus = [["NVIDIA L4", 8, 9, ADA.memory], [ADA.name, 8, 9, ADA.memory]]
    play(cuda={"gpus": gpus})
    assert list_entries(folder)[0].why_not_here is None
    play(cuda={"init": "absent"})
    assert "no usable NVIDIA driver" in str(list_entries(folder)[0].why_not_here)
    play(version="rtx 1.7.1.116")
    assert "tensorrt is not usable here" in str(list_entries(folder)[0].why_not_here)
    kept.sidecar.unlink()
    assert list_entries(folder)[0].fault == "it has no description"
    with pytest.raises(EngineError, match="which fits: none"):
        find_entry(folder, "zz")


def test_cleaning_removes_what_cannot_be_used_and_nothing_else(
    kept: Kept, program: ProgramFile, play: Play, engine_of: EngineOf
) -> None:
    folder = kept.engine.parent
    other = Gpu(0, "NVIDIA L4", "8.9", ADA.memory)
    digest = wanted(program, gpu=other).digest
    for name in (
        f"{digest}.engine",
        f"{digest}.lock",
        f"{kept.engine.stem}.engine.bad",
        f".{kept.engine.stem}.abc.part",
        "notes.txt",
        "d41d8cd98f00b204e9800998ecf8427e.jpg",  # an image named by its MD5
        "d41d8cd98f00b204e9800998ecf8427e.json.gz",
    ):
        (folder / name).write_text("")
    (folder / f".{digest}.folder.part").mkdir()
    kept_files = {path.name for path in folder.iterdir()}
    removed, busy = clean(folder)
    assert len(removed) == 4 and not busy
    assert {path.name for path in folder.iterdir()} == kept_files - {p.name for p in removed}
    assert (folder / "notes.txt").exists() and len(list(folder.glob("d41d8*"))) == 2
    assert not engine_of().built
    play(version="10.16.1.11")  # an update: what the old version made only takes room
    clean(folder)
    assert not list(folder.glob("*.engine"))
    play()
    assert engine_of().built
    clean(folder, everything=True)
    left = {path.name for path in folder.iterdir() if path.is_file()}
    assert left == {"notes.txt", *(path.name for path in folder.glob("d41d8*"))}


def test_timings_are_kept_between_builds(kept: Kept, engine_of: EngineOf) -> None:
    folder = kept.engine.parent
    (timing,) = folder.glob("*.timing")
    assert timing.read_bytes() == b"timed"
    engine_of((320, 576))
    assert timing.read_bytes() == b"timedtimed"
    timing.write_bytes(b"refused")
    assert engine_of((320, 320)).built
    assert timing.read_bytes() == b"timed"
    timing.unlink()
    timing.symlink_to(timing)  # an error of the system, which root gets, too
    assert engine_of((256, 320)).built
    assert timing.read_bytes() == b"timed"


def test_an_open_entry_is_none_where_there_is_none(folder: Path) -> None:
    assert open_entry(folder, "0" * 64) is None
