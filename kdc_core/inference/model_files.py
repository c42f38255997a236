"""Which file is meant by the model that a user names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kdc_core.inference.manifest import ManifestError, Precision, read_manifest
from kdc_core.inference.runtimes.protocol import UnusableRuntime

MODELS = Path(__file__).parents[1] / "models"
# What `auto` takes of a model given by name, if its file is there and its self-test passes; int8
# only if it loses no more than this in AP.
FASTER: dict[str, Precision] = {
    "tensorrt": "fp16",
    "tensorrt-rtx": "fp16",
    "openvino": "int8-cpu",
}
LARGEST_AP_LOSS = 0.015
LONGEST_NAME = 500  # characters of a name that a message repeats


def find_model(model: str, suffixes: tuple[str, ...]) -> Path:
    """Find a model by name (shipped with the package) or by path.

    Args:
        model: name such as `kdc_light`, or a file.
        suffixes: endings to look for, in order, when a name is given.

    Raises:
        UnusableRuntime: there is no such model.
    """
    if _is_path(model):
        if _is_file(Path(model)):
            return Path(model)
        raise UnusableRuntime(f"no model file '{model:.{LONGEST_NAME}}'")
    for suffix in suffixes:
        path = MODELS / f"{model}{suffix}"
        if _is_file(path):
            return path
    known = ", ".join(sorted({p.name.split(".")[0] for p in MODELS.glob("*.onnx")})) or "none"
    raise UnusableRuntime(
        f"no model '{model:.{LONGEST_NAME}}' with {' or '.join(suffixes)}: expected a file, or "
        f"one of the shipped models ({known})"
    )


def find_program(model: str, precision: Precision) -> Path:
    """Find the ONNX file of a model in one precision.

    Args:
        model: name such as `kdc_light`, an .onnx file of this precision, or one beside which
            the other lies as NAME.PRECISION.onnx.
        precision: of the network.

    Raises:
        UnusableRuntime: there is none.
        ManifestError: the file given is none of ours.
    """
    ending = ".onnx" if precision == "fp32" else f".{precision}.onnx"
    path = find_model(model, (ending,))
    have = read_manifest(path).precision
    if have == precision:
        return path
    if not _is_path(model):
        raise UnusableRuntime(f"'{path}' is {have}, expected {precision}: install kdc_ros again")
    other = path.with_name(path.name.removesuffix(".onnx").removesuffix(f".{have}") + ending)
    if not other.is_file():
        raise UnusableRuntime(
            f"'{path}' is {have}, and there is no '{other}': write it with `kdc export "
            f"--precision {precision}`"
        )
    return other


def files_to_try(
    model: str, runtime: str, precision: Precision | Literal["auto"]
) -> Iterator[tuple[str, Path]]:
    """Files of a model to try with a runtime, the first first, and what each try is called.

    Args:
        model, runtime, precision: as for `choose_runtime`.

    Raises:
        UnusableRuntime: there is none.
        ManifestError: the file given is none of ours.
    """
    article, suffix = ("a", ".safetensors") if runtime == "torch" else ("an", ".onnx")
    if _is_path(model) and Path(model).suffix != suffix:
        given = f"'{model:.{LONGEST_NAME}}'"
        raise UnusableRuntime(f"{runtime} needs {article} {suffix} file, got {given}")
    if runtime == "torch":
        if precision not in ("auto", "fp32"):
            raise UnusableRuntime(f"torch runs models in fp32, got precision {precision}")
        yield runtime, find_model(model, (".safetensors",))
    elif precision != "auto":
        yield runtime, find_program(model, precision)
    elif _is_path(model):
        yield runtime, find_model(model, ())
    else:
        faster = FASTER.get(runtime)
        if faster is not None:
            path = MODELS / f"{model}.{faster}.onnx"
            if path.is_file() and (faster == "fp16" or _is_exact(path)):
                yield f"{runtime} {faster}", path
        yield runtime, find_program(model, "fp32")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _is_path(model: str) -> bool:
    return Path(model).suffix in (".onnx", ".safetensors") or "/" in model


def _is_exact(path: Path) -> bool:
    """Whether a file says that its precision loses little; one that is damaged says why later."""
    try:
        loss = read_manifest(path).ap_loss
    except ManifestError:
        return True
    return loss is not None and loss <= LARGEST_AP_LOSS
