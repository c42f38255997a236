"""Engines kept on disk: a wanted one is served whole and unchanged, or not at all.

An engine is `<digest>.engine`, its description `<digest>.json`; `<digest>.lock` is held by whoever
builds, loads or removes it. The engine is published first and its description last, so that what
has a description is complete. What is found wrong is renamed to `.bad`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kdc_core.inference.engine.build import build_engine
from kdc_core.inference.engine.folder import (
    check_trusted,
    default_folder,
    make_part,
    open_folder,
    publish,
)
from kdc_core.inference.engine.header import check_header
from kdc_core.inference.engine.job import Job
from kdc_core.inference.engine.key import Key, Sidecar, Target
from kdc_core.inference.engine.library import Library, find_library
from kdc_core.inference.engine.lock import BuildProgress, ignore, locked, never
from kdc_core.inference.engine.messages import CPU_ONLY, BrokenEngine, EngineError
from kdc_core.inference.engine.program import ProgramFile, open_program
from kdc_core.inference.engine.shapes import Shapes
from kdc_core.inference.engine.timing import timing_path

log = logging.getLogger(__name__)

Policy = Literal["build", "prebuilt"]
LOCK_S = 3600.0  # a build on a small robot takes minutes; other builds may be before ours


@dataclass(frozen=True)
class EngineFile:
    """An engine in the cache.

    Attributes:
        path: `<digest>.engine`.
        sidecar: what it was made of and for.
        built: it was built just now.
        seconds: it took to get it: the build, or the checks; waiting included.
    """

    path: Path
    sidecar: Sidecar
    built: bool = False
    seconds: float = 0.0

    def read(self) -> bytes:
        """The engine, header and checksum checked.

        Raises:
            BrokenEngine: it is not what was written, or others may write to it.
        """
        try:
            check_trusted(self.path)
            plan = self.path.read_bytes()
        except FileNotFoundError as error:
            raise BrokenEngine("its engine is missing") from error
        except OSError as error:
            raise EngineError(f"cannot read '{self.path}': {error.strerror}") from error
        check_header(plan, self.sidecar.header, self.sidecar.engine_bytes)
        if hashlib.sha256(plan).hexdigest() != self.sidecar.engine_sha256:
            raise BrokenEngine("its content was changed after it was written")
        return plan


Check = Callable[[EngineFile, bytes], None]


def accept(engine: EngineFile, plan: bytes) -> None:
    """An engine whose checksum fits is not looked at any further."""


@dataclass(frozen=True)
class Cache:
    """A folder of engines.

    Attributes:
        folder: it; None = in the user's cache folder.
        policy: `build` what is missing or broken, or take only what is `prebuilt`.
        lock_s: how long to wait for another process that works on the same engine.
        progress: told what a build does: phase, steps done, steps in all (0 = unknown).
        cancelled: asked some ten times a second.
    """

    folder: Path | None = None
    policy: Policy = "build"
    lock_s: float = LOCK_S
    progress: BuildProgress = ignore
    cancelled: Callable[[], bool] = never

    def get(
        self, program: ProgramFile, key: Key, gpu: int | None, check: Check = accept
    ) -> EngineFile:
        """The engine of a key.

        Args:
            program: what it is made of.
            key: what it is wanted for.
            gpu: number of the GPU that builds it; None where the key names a target.
            check: called with the engine and its content while no other process works on it;
                raises BrokenEngine to have it set aside and, by policy, built anew once.

        Raises:
            EngineError, BuildCancelled: says why there is no engine.
        """
        started = time.monotonic()
        folder = open_folder(self.folder or default_folder(), create=self.policy == "build")
        lock = folder / f"{key.digest}.lock"
        with locked(lock, self.lock_s, self.progress, self.cancelled):
            engine = self._kept(folder, key, check)
            if engine is None:
                engine = self._build(folder, program, key, gpu)
                try:
                    check(engine, engine.read())
                except BrokenEngine as error:
                    set_aside(folder, key.digest)
                    raise EngineError(f"the engine just built is refused: {error}") from error
        return replace(engine, seconds=time.monotonic() - started)

    def _kept(self, folder: Path, key: Key, check: Check) -> EngineFile | None:
        """The engine if it is there and right; None if it is to be built."""
        try:
            engine = open_entry(folder, key.digest)
            if engine is not None:
                different = engine.sidecar.key.differences(key)
                if different:
                    raise BrokenEngine(f"made for another {', '.join(different)}")
                check(engine, engine.read())
                return engine
        except BrokenEngine as error:
            aside = set_aside(folder, key.digest)
            if self.policy == "prebuilt":
                raise EngineError(
                    f"the engine '{folder / key.digest}.engine' is refused: {error}; build it "
                    "with `kdc engine build`"
                ) from error
            log.warning("engine refused (%s), kept as '%s': building anew", error, aside)
        if self.policy == "prebuilt":
            raise EngineError(
                f"'{folder}' holds no engine for frames of {key.shapes}, {key.precision}, "
                f"{key.family} {key.version}, {key.place}: build it there with `kdc engine build`"
            )
        return None

    def _build(self, folder: Path, program: ProgramFile, key: Key, gpu: int | None) -> EngineFile:
        remove_parts(folder, key.digest)
        _check_room(folder, program.path)
        path, description = (folder / f"{key.digest}{end}" for end in (".engine", ".json"))
        parts = [make_part(folder, key.digest)]
        # RTX makes no use of timings, and a target without a GPU has none.
        timing = timing_path(folder, key) if key.family == "tensorrt" and gpu is not None else None
        job = Job(program=program.path.absolute(), key=key, gpu=gpu, part=parts[0], timing=timing)
        try:
            built = build_engine(job, self.progress, self.cancelled)
            sidecar = Sidecar(key=key, model=program.path.stem, **built.model_dump())
            parts.append(make_part(folder, key.digest))
            parts[1].write_text(sidecar.to_json(), encoding="utf-8")
            description.unlink(missing_ok=True)
            publish(parts[0], path)
            publish(parts[1], description)
        except OSError as error:
            raise EngineError(f"cannot write to '{folder}': {error.strerror}") from error
        finally:
            for part in parts:
                part.unlink(missing_ok=True)
        return EngineFile(path, sidecar, built=True)


def get_engine(
    onnx_path: str | os.PathLike[str],
    shapes: Shapes | tuple[int, int],
    target: Target | None = None,
    library: Library | None = None,
    cache: Cache | None = None,
    check: Check = accept,
) -> EngineFile:
    """The engine of a program for one size or range of frames, from the cache or built.

    Args:
        onnx_path: program of ours.
        shapes: (height, width) of its frames, or a range.
        target: what it is for; None = the first GPU of this machine.
        library: the TensorRT to use; None = the first that is usable and can build for the target.
        cache: where and how; None = in the user's cache folder, built if missing.
        check: as of `Cache.get`.

    Raises:
        EngineError: says why there is none.
        FrameError, ManifestError: the program takes no such frames, or is not ours.
        BuildCancelled: by the cache's `cancelled`.
    """
    if not isinstance(shapes, Shapes):
        shapes = Shapes.fixed(shapes)
    program = open_program(Path(onnx_path))
    shapes.check(program.manifest)
    if program.manifest.precision == "int8-cpu":
        raise EngineError(CPU_ONLY)
    target = target or Target.at_hand()
    named = target.gpu is None
    library = library or find_library(target=target.capability if named else None)
    library.check_target(target.capability, named)
    key = Key.of(program, shapes, target, library)
    gpu = None if target.gpu is None else target.gpu.index
    return (cache or Cache()).get(program, key, gpu, check)


def open_entry(folder: Path, digest: str) -> EngineFile | None:
    """An engine by its description; None = there is no description.

    Raises:
        BrokenEngine: the description is no file or not whole, or others may write to it.
        EngineError: it cannot be read.
    """
    path = folder / f"{digest}.json"
    try:
        if path.exists() and not path.is_file():  # a device or a pipe may give data for ever
            raise BrokenEngine("its description is no file")
        text = path.read_bytes()
        check_trusted(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"cannot read '{path}': {error.strerror}") from error
    return EngineFile(folder / f"{digest}.engine", Sidecar.from_json(text))


def set_aside(folder: Path, digest: str) -> Path:
    """Rename an engine, its description and kernels to `.bad`; the caller holds its lock.

    Where the folder cannot be written to, they stay and are refused again.
    """
    engine = folder / f"{digest}.engine"
    # The kernels too: they may be why it failed its test.
    for path in (folder / f"{digest}.json", engine, *folder.glob(f"{digest}.*.kernels")):
        with contextlib.suppress(OSError):
            os.replace(path, f"{path}.bad")
    return Path(f"{engine}.bad")


def remove_parts(folder: Path, digest: str) -> None:
    """Remove what a builder of this engine left that was killed; the caller holds its lock."""
    for part in folder.glob(f".{digest}.*.part"):
        part.unlink(missing_ok=True)


def _check_room(folder: Path, program: Path) -> None:
    """An engine is about as large as its program: better said before minutes of building."""
    try:
        needed, free = program.stat().st_size, shutil.disk_usage(folder).free
    except OSError as error:
        raise EngineError(f"cannot use '{folder}': {error.strerror}") from error
    if free < needed:
        raise EngineError(
            f"no room in '{folder}': {free / 1e6:.0f} MB free, an engine takes about "
            f"{needed / 1e6:.0f} MB"
        )
