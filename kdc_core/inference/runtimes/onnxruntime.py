"""ONNX Runtime: on the CPU the default, which needs no torch; on CUDA and through TensorRT.

The two on a GPU are tested against a stand-in for a GPU's package alone.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from kdc_core.inference.assembly import Raw
from kdc_core.inference.manifest import OUTPUTS, read_manifest
from kdc_core.inference.onnx_file import why_not_run
from kdc_core.inference.runtimes.protocol import Pending, UnusableRuntime

SPIN_US = 100
BOUNDED_SPIN_SINCE = (1, 26)
CPU = "CPUExecutionProvider"


# The default search for convolutions tries them all out at the first frame of each size.
# Decode subtracts squares of positions: TF32's 10 bits blur them by many pixels.
CUDA = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})
# Execution providers by preference, with their options beside the device's number. The operators
# that one lacks the next executes, and the CPU those that all lack.
GPU_PROVIDERS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "onnxruntime-cuda": (CUDA,),
    # It keeps no engines: its cache serves one of other weights or another size.
    "onnxruntime-tensorrt": (
        ("TensorrtExecutionProvider", {"trt_engine_cache_enable": "False"}),
        CUDA,
    ),
}


Jobs = SimpleQueue[tuple[Future[list[np.ndarray]], Callable[[], list[np.ndarray]]] | None]


class Session:
    """An ONNX file opened with the options used everywhere, run in a thread of its own.

    Its threads spin for SPIN_US at most: the next of hundreds of operators mostly comes within
    that time, and waking a thread takes longer than it runs. On a robot whose cores are busy,
    threads that spin on take them from others and slow the program itself.

    Args:
        model: file or bytes.
        threads: on the CPU.
        providers: as onnxruntime takes them; None = the CPU.

    Attributes:
        raw: onnxruntime's.
    """

    def __init__(self, model: str | bytes, threads: int, providers: list[Any] | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
        spin = version >= BOUNDED_SPIN_SINCE  # older versions would spin without end
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
        options.log_severity_level = 3
        self.raw = onnxruntime.InferenceSession(model, options, providers=providers or [CPU])
        # No executor: Python ends those before the threads that may still use this one.
        self._jobs: Jobs = SimpleQueue()
        thread = threading.Thread(
            target=_work, args=(self._jobs,), name="kdc_onnxruntime", daemon=True
        )
        thread.start()
        # Also where it is forgotten, and before Python ends, in which nothing may run.
        self._end_thread = weakref.finalize(self, _end, self._jobs, thread)
        self._closing, self._closed = threading.Lock(), False

    def run(self, outputs: list[str] | None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Execute; None = all outputs."""
        return self.submit(outputs, inputs).result()

    def submit(
        self, outputs: list[str] | None, inputs: dict[str, np.ndarray]
    ) -> Future[list[np.ndarray]]:
        """As `run`, without waiting.

        Raises:
            UnusableRuntime: it is closed.
        """
        found: Future[list[np.ndarray]] = Future()
        with self._closing:
            if self._closed:
                raise UnusableRuntime("the model is closed")
            self._jobs.put((found, partial(self.raw.run, outputs, inputs)))
        return found

    def close(self) -> None:
        """End the thread, after what was submitted, and free the model."""
        with self._closing:
            before, self._closed = self._closed, True
        self._end_thread()
        if not before:
            del self.raw


def _work(jobs: Jobs) -> None:
    """Do one job after the other, until there is None."""
    while (job := jobs.get()) is not None:
        found, run = job
        try:
            found.set_result(run())
        except Exception as error:  # onnxruntime raises classes of its own for every cause
            found.set_exception(error)
        del job, found, run  # while it waits for the next one, this one's model may be freed


def _end(jobs: Jobs, thread: threading.Thread) -> None:
    jobs.put(None)
    if thread is not threading.current_thread():  # which may hold the last reference
        thread.join()


class OnnxRuntime:
    """A program in one of ONNX Runtime's execution providers.

    Args:
        path: the .onnx file.
        device: `auto`, `cpu`, or for providers of GPUs `cuda` or `cuda:N`.
        threads: on the CPU.
        name: `onnxruntime` (CPU), or one of GPU_PROVIDERS.

    Raises:
        UnusableRuntime: it cannot be had here, or the file cannot be run.
        ManifestError: not a program of ours.
    """

    def __init__(self, path: Path, device: str, threads: int, name: str = "onnxruntime"):
        import onnxruntime

        self.name = name
        if name in GPU_PROVIDERS:
            providers, self._device = _gpu_providers(name, device)
        elif device in ("auto", "cpu"):
            providers, self._device = [CPU], "cpu"
        else:
            raise UnusableRuntime(
                f"onnxruntime runs on the CPU; got device '{device}': use cpu, or runtime "
                "'onnxruntime-cuda' or 'torch' for CUDA"
            )
        self.manifest = read_manifest(path)
        try:
            self._session = Session(str(path), threads, providers)
        except Exception as error:  # onnxruntime raises classes of its own for every cause
            library = f"onnxruntime {onnxruntime.__version__}"
            raise UnusableRuntime(why_not_run(path, library, error)) from error
        self._threads = threads
        wanted = providers[0] if name == "onnxruntime" else providers[0][0]
        used = self._session.raw.get_providers()
        if used[0] != wanted:
            raise UnusableRuntime(
                f"{name}: ONNX Runtime could not start its {wanted} and took {used[0]} instead: "
                "its CUDA or cuDNN libraries do not load, or not in the versions it was made for"
            )
        got = (
            [(i.name, i.type) for i in self._session.raw.get_inputs()],
            [o.name for o in self._session.raw.get_outputs()],
        )
        if got != ([("frame", "tensor(uint8)")], list(OUTPUTS)):
            raise UnusableRuntime(
                f"'{path}': expected the input 'frame' (uint8) and the outputs {OUTPUTS}, "
                f"got {got}: export it again"
            )

    def describe(self) -> dict[str, str]:
        import onnxruntime

        return {
            "runtime": self.name,
            "runtime_version": onnxruntime.__version__,
            "device": self._device,
            "precision": self.manifest.precision,
            "threads": str(self._threads),
        }

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        self.manifest.check_frame(frame)
        found = self._session.submit(list(OUTPUTS), {"frame": frame})
        return Pending(lambda: Raw(*found.result()))

    def close(self) -> None:
        self._session.close()


def _gpu_providers(name: str, device: str) -> tuple[list[Any], str]:
    """Providers as onnxruntime takes them, and the device they run on.

    Raises:
        UnusableRuntime: the package lacks them, or the device is none of theirs.
    """
    import onnxruntime

    family, _, number = device.partition(":")
    if family not in ("auto", "cuda") or not (number or "0").isdecimal():
        raise UnusableRuntime(
            f"{name} runs on an NVIDIA GPU, got device '{device}': expected cuda or cuda:N"
        )
    wanted, here = GPU_PROVIDERS[name], onnxruntime.get_available_providers()
    if wanted[0][0] not in here:
        raise UnusableRuntime(
            f"the onnxruntime installed has no {wanted[0][0]}, only {', '.join(here)}: on an "
            "NVIDIA GPU install onnxruntime-gpu in its place"
        )
    device_id = {"device_id": number or "0"}
    providers = [(each, device_id | own) for each, own in wanted if each in here]
    return [*providers, CPU], f"cuda:{number or 0}"
