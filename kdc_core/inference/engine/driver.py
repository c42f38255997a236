"""The NVIDIA driver and its GPUs, asked through NVIDIA's own cuda-python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kdc_core.inference.engine.messages import NO_DRIVER, EngineError

NO_PACKAGE = "cuda-python is not installed: pip install cuda-python"
NO_DEVICE = (
    "the NVIDIA driver finds no GPU: is one plugged in, visible to this container, and not hidden "
    "by CUDA_VISIBLE_DEVICES?"
)
KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver names it.

    Attributes:
        index: among those the driver shows this process.
        name: such as `NVIDIA GeForce RTX 4090`.
        capability: compute capability, such as `8.9`.
        memory: bytes in all.
    """

    index: int
    name: str
    capability: str
    memory: int

    @property
    def memory_gib(self) -> int:
        """Whole GiB; cards of one name are told apart by it."""
        return round(self.memory / (1 << 30))

    @property
    def place(self) -> str:
        """In words, without its index."""
        return in_words(self.name, self.capability, self.memory_gib)


def in_words(name: str, capability: str, memory_gib: int) -> str:
    """What kind of GPU."""
    return f"{name} ({capability}, {memory_gib} GiB)"


def find_gpus() -> list[Gpu]:
    """All GPUs that the driver shows this process, one at least.

    Raises:
        EngineError: as `find_gpu`.
    """
    first = find_gpu()
    count = _call(_driver(), "cuDeviceGetCount")
    return [first, *(find_gpu(index) for index in range(1, count))]


def find_gpu(index: int = 0) -> Gpu:
    """The GPU of this number.

    Raises:
        EngineError: no cuda-python, no usable driver, no GPU, or none of this number.
    """
    driver = _driver()
    count = _call(driver, "cuDeviceGetCount")
    if not count:
        raise EngineError(NO_DEVICE)
    if not 0 <= index < count:
        raise EngineError(f"no GPU {index}: the driver shows {count}, counted from 0")
    device = _call(driver, "cuDeviceGet", index)
    name: bytes = _call(driver, "cuDeviceGetName", 256, device)
    attributes = driver.CUdevice_attribute
    major, minor = (
        _call(driver, "cuDeviceGetAttribute", attribute, device)
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    memory = int(_call(driver, "cuDeviceTotalMem", device))
    return Gpu(index, name.split(b"\0")[0].decode(), f"{major}.{minor}", memory)


def cuda_version() -> str:
    """The newest CUDA the driver can run, such as `12.6`.

    Raises:
        EngineError: as `find_gpu`.
    """
    version = int(_call(_driver(), "cuDriverGetVersion"))
    return f"{version // 1000}.{version % 1000 // 10}"


def make_current(gpu: Gpu) -> int:
    """Let this thread work on a GPU, in its primary context, which TensorRT shares.

    Returns:
        Its free memory, bytes.

    Raises:
        EngineError: the driver refuses.
    """
    driver = _driver()
    device = _call(driver, "cuDeviceGet", gpu.index)
    _call(driver, "cuCtxSetCurrent", _call(driver, "cuDevicePrimaryCtxRetain", device))
    free, _ = _call(driver, "cuMemGetInfo")
    return int(free)


def module_version(path: Path = KERNEL_MODULE) -> str | None:
    """The version of the driver's kernel module, such as `580.159.04`; None = none is loaded.

    Args:
        path: where the module says it.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", text)
    return found[1] if found else "unknown"


def describe(path: Path = KERNEL_MODULE) -> str:
    """The driver in a few words: its versions, or why it cannot be used.

    Args:
        path: as for `module_version`.
    """
    module = module_version(path)
    loaded = f", kernel module {module}" if module else ""
    try:
        return f"CUDA {cuda_version()}{loaded}"
    except EngineError as error:
        return f"{error}{loaded}"


def _driver() -> Any:
    """cuda-python's module of the driver, the driver started."""
    try:
        driver = import_module("cuda.bindings.driver")
    except ImportError as error:
        raise EngineError(NO_PACKAGE) from error
    try:
        _call(driver, "cuInit", 0)
    except RuntimeError as error:  # of cuda-python itself, where libcuda.so.1 is absent
        raise EngineError(NO_DRIVER) from error
    return driver


def _call(driver: Any, name: str, *arguments: object) -> Any:
    status, *values = getattr(driver, name)(*arguments)
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        raise EngineError(NO_DEVICE)
    if status != driver.CUresult.CUDA_SUCCESS:
        cause = getattr(status, "name", status)
        raise EngineError(f"{NO_DRIVER} ({name} answered {cause})")
    return values[0] if len(values) == 1 else tuple(values)
