"""Stands for cuda-python's driver; its script is JSON in the environment variable FAKE_CUDA.

init    "absent", or what cuInit answers (default 0)
gpus    [[name, major, minor, bytes], ...]
free    bytes of free memory
fails   {function: what it answers}
"""

from __future__ import annotations

import enum
import json
import os
from typing import Any

SCRIPT: dict[str, Any] = json.loads(os.environ.get("FAKE_CUDA", "{}"))


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


class CUdevice_attribute(enum.Enum):  # noqa: N801 -- NVIDIA's name
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 1
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 2


def _answer(function: str, *values: Any) -> tuple[Any, ...]:
    status = CUresult(SCRIPT.get("fails", {}).get(function, 0))
    return (status, *values) if status == CUresult.CUDA_SUCCESS else (status, None)


def cuInit(flags: int) -> tuple[Any, ...]:  # noqa: N802
    if SCRIPT.get("init") == "absent":
        raise RuntimeError("libcuda.so.1 cannot be found")
    return (CUresult(SCRIPT.get("init", 0)),)


def cuDriverGetVersion() -> tuple[Any, ...]:  # noqa: N802
    return _answer("cuDriverGetVersion", 12060)


def cuDeviceGetCount() -> tuple[Any, ...]:  # noqa: N802
    return _answer("cuDeviceGetCount", len(SCRIPT["gpus"]))


def cuDeviceGet(index: int) -> tuple[Any, ...]:  # noqa: N802
    return _answer("cuDeviceGet", index)


def cuDeviceGetName(length: int, device: int) -> tuple[Any, ...]:  # noqa: N802
    name: str = SCRIPT["gpus"][device][0]
    return _answer("cuDeviceGetName", name.encode().ljust(length, b"\0"))


def cuDeviceGetAttribute(attribute: CUdevice_attribute, device: int) -> tuple[Any, ...]:  # noqa: N802
    return _answer("cuDeviceGetAttribute", SCRIPT["gpus"][device][attribute.value])


def cuDeviceTotalMem(device: int) -> tuple[Any, ...]:  # noqa: N802
    return _answer("cuDeviceTotalMem", SCRIPT["gpus"][device][3])


def cuDevicePrimaryCtxRetain(device: int) -> tuple[Any, ...]:  # noqa: N802
    return _answer("cuDevicePrimaryCtxRetain", object())


def cuCtxSetCurrent(context: object) -> tuple[Any, ...]:  # noqa: N802
    return (_answer("cuCtxSetCurrent")[0],)


def cuMemGetInfo() -> tuple[Any, ...]:  # noqa: N802
    return _answer("cuMemGetInfo", SCRIPT["free"], SCRIPT["gpus"][0][3])
