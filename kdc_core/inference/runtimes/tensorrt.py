"""TensorRT and TensorRT-RTX: an engine for each size of frames, on one NVIDIA GPU.

Nothing here has run on a GPU yet: its logic is tested against a stand-in for CUDA and TensorRT.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kdc_core.inference.assembly import Raw
from kdc_core.inference.engine import cuda, driver
from kdc_core.inference.engine.cache import Cache, EngineFile, get_engine
from kdc_core.inference.engine.kernels import Kernels
from kdc_core.inference.engine.key import Target
from kdc_core.inference.engine.library import (
    Family,
    check_installed,
    find_library,
    no_collection,
)
from kdc_core.inference.engine.messages import (
    OUT_OF_GPU_MEMORY,
    BrokenEngine,
    EngineError,
    explain,
)
from kdc_core.inference.engine.session import EngineSession
from kdc_core.inference.engine.worker import make_logger
from kdc_core.inference.manifest import read_manifest
from kdc_core.inference.runtimes.protocol import Pending, Runtime, UnusableRuntime
from kdc_core.inference.selftest import SelfTestFailed, self_test

log = logging.getLogger(__name__)

Size = tuple[int, int]


class TensorRtRuntime:
    """A program as TensorRT engines, one for each size of frames, made when it is first seen.

    Args:
        path: the .onnx file.
        family: `tensorrt` or `tensorrt-rtx`.
        device: `auto`, `cuda` or `cuda:N`.
        size: (height, width) of the frames to come, for which the engine is made now; None =
            with the first frame.
        engines: where engines are kept, and whether they may be built; None = in the user's cache
            folder, and they may.
        otherwise: opens what runs frames of sizes for which there is no engine; None = such a
            frame is an error.

    Raises:
        UnusableRuntime: no such TensorRT, GPU or engine; the text says which.
        ManifestError: not a program of ours.
        FrameError: no frames of that size fit the model.
        BuildCancelled: by `cancelled` of the engines' cache.
    """

    def __init__(
        self,
        path: Path,
        family: Family,
        device: str = "auto",
        size: Size | None = None,
        engines: Cache | None = None,
        otherwise: Callable[[], Runtime] | None = None,
    ):
        check_installed(family)
        _, _, index = device.partition(":")
        # Before its library is loaded, which takes 100 MB.
        self._target = Target.at_hand(int(index or 0))
        self._library = find_library(family)
        self.name: str = family
        self.manifest = read_manifest(path)
        self._path, self._engines, self._otherwise = path, engines or Cache(), otherwise
        self._sessions: dict[Size, EngineSession] = {}
        self._other: Runtime | None = None  # what runs frames that have no engine
        self._refused: set[Size] = set()
        self._said: list[str] = []
        self._logger = make_logger(self._library.module, self._said)
        with no_collection():
            self._trt_runtime = self._library.module.Runtime(self._logger)
        self._use_gpu()
        if size is not None:
            self._sessions[size] = self._open_session(size)

    def describe(self) -> dict[str, str]:
        gpu = self._target.gpu
        return {
            "runtime": self.name,
            "runtime_version": self._library.version,
            "device": gpu.name if gpu else self._target.capability,
            "precision": self.manifest.precision,
            "threads": "0",
        }

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        self.manifest.check_frame(frame)
        self._use_gpu()  # the thread may be another than the one that opened it
        size = (frame.shape[0], frame.shape[1])
        session = self._session(size)
        if session is None:
            assert self._other is not None
            return self._other.submit(frame)
        self._said.clear()
        try:
            return session.submit(frame)
        except cuda.CudaError as error:
            raise cuda.CudaError(self._why(error, "running")) from error

    def close(self) -> None:
        while self._sessions:
            self._sessions.popitem()[1].close()
        if self._other is not None:
            self._other.close()
            self._other = None
        self._refused.clear()

    def _use_gpu(self) -> None:
        cuda.use_device(self._target.gpu.index if self._target.gpu else 0)

    def _session(self, size: Size) -> EngineSession | None:
        """The engine for frames of a size, opened when the first one comes; None = the other's."""
        if size not in self._sessions and size not in self._refused:
            try:
                self._sessions[size] = self._open_session(size)
            except UnusableRuntime as error:
                if self._otherwise is None:
                    raise
                if self._other is None:
                    self._other = self._otherwise()
                log.warning("frames of %dx%d go to %s: %s", *size[::-1], self._other.name, error)
                self._refused.add(size)
        return self._sessions.get(size)

    def _open_session(self, size: Size) -> EngineSession:
        """An engine from the cache, built if it must be, in memory and tested.

        Raises:
            UnusableRuntime: there is none, or it does not find the people it should.
        """
        opened: list[EngineSession] = []

        def check(engine: EngineFile, plan: bytes) -> None:
            opened.append(self._load(engine, plan, size))

        get_engine(self._path, size, self._target, self._library, self._engines, check)
        return opened[-1]

    def _load(self, engine: EngineFile, plan: bytes, size: Size) -> EngineSession:
        """An engine in memory, tested.

        Raises:
            BrokenEngine: it cannot be deserialised, is not of this program, or fails its test.
            EngineError: there is no memory for it.
        """
        self._said.clear()
        with no_collection():
            loaded = self._trt_runtime.deserialize_cuda_engine(plan)
        if loaded is None:
            text = self._explain(f"the engine '{engine.path}' could not be loaded", "loading")
            # A good engine for which there is no memory just now is kept.
            raise EngineError(text) if OUT_OF_GPU_MEMORY in text else BrokenEngine(text)
        kernels = Kernels(Path(engine.path), driver.describe())
        try:
            with no_collection():
                session = EngineSession(self._library.module, loaded, str(engine.path), kernels)
        except cuda.CudaError as error:
            raise EngineError(self._why(error, "loading")) from error
        try:
            self_test(_OneSize(self, session), size, self._path)
        except BaseException as error:
            session.close()
            if isinstance(error, SelfTestFailed):
                raise BrokenEngine(str(error)) from error
            raise
        kernels.keep()
        return session

    def _why(self, error: cuda.CudaError, doing: str) -> str:
        """Why a call failed: what TensorRT said of it, else what CUDA did."""
        return self._explain(str(error), doing) if self._said else str(error)

    def _explain(self, fallback: str, doing: str) -> str:
        free = cuda.free_mib()
        return explain(self._said, fallback, doing=doing, free=free, library=self._library)


class _OneSize:
    """A session as the runtime that the self-test asks for."""

    def __init__(self, runtime: TensorRtRuntime, session: EngineSession):
        self.name, self.manifest = runtime.name, runtime.manifest
        self.describe, self.submit, self.close = runtime.describe, session.submit, session.close
