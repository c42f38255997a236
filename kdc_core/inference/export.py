"""Export: preprocessing, network and decode as one ONNX file that describes itself."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from kdc_core.codec.grid import SideRule
from kdc_core.files import whole_file
from kdc_core.inference.manifest import (
    KEY,
    LARGEST_SIDE,
    OUTPUTS,
    SCHEMA,
    Manifest,
    Precision,
    field_names,
    read_manifest,
)
from kdc_core.inference.precision import to_fp16
from kdc_core.inference.program import Program
from kdc_core.inference.quantize import to_int8
from kdc_core.network.backbones import side_rule
from kdc_core.network.weights import load_model

OPSET = 20
FOLDED = 1 << 20  # bytes of a constant that is computed when exporting, not when running


def export_onnx(
    model: str | os.PathLike[str],
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
) -> Manifest:
    """Write the program of a model file as ONNX in fp32, whole or not at all.

    The network's maps keep their names inside the graph, so that the program can be cut there
    for measurement.

    Args:
        model: safetensors file of `save_model`.
        path: the ONNX file to write.
        size: (H, W) of the only frame it takes; None = any that `side_rule` allows.

    Raises:
        ModelFileError: not a model file of ours.
        FrameError: no such size fits the model.
    """
    network, provenance = load_model(model)
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    manifest = Manifest(
        config=network.config,
        provenance=provenance,
        weights_sha256=digest,
        size=size,
    )
    if size is not None:
        manifest.check_size(size)
    maps = field_names(network.config)
    graph = to_onnx(Program(network), side_rule(network.config), [*OUTPUTS, *maps], size)
    graph.graph.value_info.extend(graph.graph.output[len(OUTPUTS) :])
    del graph.graph.output[len(OUTPUTS) :]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    save_program(graph, manifest, path)
    return manifest


def change_precision(
    program: str | os.PathLike[str],
    path: str | os.PathLike[str],
    precision: Precision,
    frames: Iterable[np.ndarray] = (),
) -> Manifest:
    """Write an fp32 program with its network in another precision, whole or not at all.

    Args:
        program: the ONNX file of `export_onnx`.
        path: the ONNX file to write.
        precision: of the network.
        frames: of real images, (H, W, 3) uint8, to see what values the network has; for int8.

    Raises:
        ManifestError: not such a file.
        KdcError: int8 without frames.
    """
    manifest = read_manifest(program)
    maps, graph = field_names(manifest.config), onnx.load(program)
    if precision == "fp16":
        to_fp16(graph, maps)
    elif precision != "fp32":
        to_int8(graph, maps, precision, frames)
    manifest = manifest.model_copy(update={"schema_number": SCHEMA, "precision": precision})
    save_program(graph, manifest, path)
    return manifest


def write_ap_loss(path: str | os.PathLike[str], loss: float) -> None:
    """Write into an exported program how much AP its precision costs."""
    graph = onnx.load(path)
    manifest = read_manifest(path).model_copy(update={"ap_loss": loss})
    save_program(graph, manifest, path)


def save_program(graph: onnx.ModelProto, manifest: Manifest, path: str | os.PathLike[str]) -> None:
    """Write a program with its manifest, whole or not at all."""
    del graph.metadata_props[:]
    graph.metadata_props.add(key=KEY, value=manifest.model_dump_json())
    onnx.checker.check_model(graph)
    with whole_file(path) as part:
        onnx.save(graph, part)


def to_onnx(
    module: nn.Module,
    sides: SideRule,
    outputs: list[str] | None = None,
    size: tuple[int, int] | None = None,
) -> onnx.ModelProto:
    """Write a module as ONNX whose only input is the frame.

    Args:
        module: maps a frame (H, W, 3) uint8 to a tuple of tensors.
        sides: that H and W may have.
        outputs: their names; None = torch's.
        size: (H, W); None = they stay free.
    """
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    step, rest = sides
    # An input of neither equal nor round sides: the exporter must not take them for constants.
    example_size = size or (5 * step + rest, 7 * step + rest)
    example = torch.zeros(*example_size, 3, dtype=torch.uint8)
    free = {
        axis: step * torch.export.Dim(name, min=1, max=LARGEST_SIDE // step) + rest
        for axis, name in enumerate(("rows", "columns"))
    }
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(free,) if size is None else None,
            input_names=["frame"],
            output_names=outputs,
            verbose=False,
        )
    assert exported is not None
    # Weights put together from others: the exporter leaves what is so large to the runtimes.
    fold_constants(exported.model, input_size_limit=FOLDED, output_size_limit=FOLDED)
    remove_unused_nodes(exported.model)
    graph: onnx.ModelProto = exported.model_proto
    return graph


def cut_before_decode(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The network of an exported program alone: frame to Fields."""
    names = field_names(read_manifest(path).config)
    return onnx.utils.Extractor(onnx.load(path)).extract_model(["frame"], names)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes, on its own passes and on torchvision, are no news to anybody."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
