"""torch: the reference, on CPU or CUDA, straight from the weights."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdc_core.inference.assembly import Raw
from kdc_core.inference.manifest import OUTPUTS, Manifest
from kdc_core.inference.runtimes.protocol import Pending, UnusableRuntime

if TYPE_CHECKING:
    import torch

    from kdc_core.inference.program import Program
    from kdc_core.network.kdc import KDC


class TorchRuntime:
    """A model's weights run by torch.

    Args:
        network: with its weights.
        provenance: how they were made.
        device: to run on.
        weights_sha256: of their file; empty where there is none.
        graphs: how many sizes of frames get a CUDA graph, on CUDA.
    """

    name = "torch"

    def __init__(
        self,
        network: KDC,
        provenance: dict[str, object],
        device: torch.device,
        weights_sha256: str = "",
        graphs: int = 0,
    ):
        from kdc_core.inference.program import Program

        self.manifest = Manifest(
            config=network.config, provenance=provenance, weights_sha256=weights_sha256
        )
        self._device = device
        self._program = Program(network).eval().to(device)
        self._on_cuda = None
        if device.type == "cuda":
            from kdc_core.inference.runtimes.torch_cuda import CudaProgram

            self._on_cuda = CudaProgram(self._program, device, graphs)

    @classmethod
    def open(cls, path: Path, device: str, threads: int) -> TorchRuntime:
        """Open a model file.

        Raises:
            UnusableRuntime: no torch, or no such device.
        """
        try:
            import torch
        except ImportError as error:
            raise UnusableRuntime(
                "torch is not installed: pip install 'kdc_ros[train]', or use onnxruntime"
            ) from error
        from kdc_core.inference.runtimes.torch_cuda import GRAPHS
        from kdc_core.network.weights import load_model

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device.startswith("cuda") and (torch.device(device).index or 0) >= usable:
            raise UnusableRuntime(
                f"device '{device}': torch finds {usable or 'no'} usable CUDA device"
                f"{'s' if usable > 1 else ''}"
            )
        network, provenance = load_model(path)
        torch.set_num_threads(threads)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(network, provenance, torch.device(device), digest, GRAPHS)

    def describe(self) -> dict[str, str]:
        import torch

        return {
            "runtime": self.name,
            "runtime_version": torch.__version__,
            "device": str(self._device),
            "precision": "fp32",
            "threads": str(torch.get_num_threads()),
        }

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        self.manifest.check_frame(frame)
        if self._on_cuda is not None:
            return self._on_cuda.submit(frame)
        return Pending(partial(_run_on_cpu, self._program, frame))

    def close(self) -> None:
        if not hasattr(self, "_program"):  # closed already
            return
        if self._on_cuda is not None:
            self._on_cuda.close()
        del self._program, self._on_cuda


def _run_on_cpu(program: Program, frame: np.ndarray) -> Raw:
    import torch

    with torch.inference_mode():
        outputs = program(torch.from_numpy(frame))
    return Raw(*(value.numpy() for value in outputs[: len(OUTPUTS)]))
