"""Export: preprocessing, network and decode as one ONNX file that describes itself."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import nn

from kdc_core.files import whole_file
from kdc_core.inference.manifest import KEY, OUTPUTS, Manifest, field_names, read_manifest
from kdc_core.inference.program import Program
from kdc_core.network.backbones import side_rule
from kdc_core.network.weights import load_model

OPSET = 20
LARGEST_SIDE = 4096


def export_onnx(model: str | os.PathLike[str], path: str | os.PathLike[str]) -> Manifest:
    """Write the program of a model file as ONNX, whole or not at all.

    Height and width stay free (within `side_rule`). The network's maps keep their names
    inside the graph, so that the program can be cut there for measurement.

    Args:
        model: safetensors file of `save_model`.
        path: the ONNX file to write.
    """
    network, provenance = load_model(model)
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    manifest = Manifest(config=network.config, provenance=provenance, weights_sha256=digest)
    names = [*OUTPUTS, *field_names(network.config)]
    graph = to_onnx(Program(network), side_rule(network.config), names)
    graph.graph.value_info.extend(graph.graph.output[len(OUTPUTS) :])
    del graph.graph.output[len(OUTPUTS) :]
    del graph.metadata_props[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    graph.metadata_props.add(key=KEY, value=manifest.model_dump_json())
    onnx.checker.check_model(graph)
    with whole_file(path) as part:
        onnx.save(graph, part)
    return manifest


def to_onnx(
    module: nn.Module, sides: tuple[int, int], outputs: list[str] | None = None
) -> onnx.ModelProto:
    """Write a module as ONNX whose only input is the frame; height and width stay free.

    Args:
        module: maps a frame (H, W, 3) uint8 to a tuple of tensors.
        sides: (m, r); H and W are n * m + r.
        outputs: their names; None = torch's.
    """
    step, rest = sides
    # An input of neither equal nor round sides: the exporter must not take them for constants.
    example = torch.zeros(5 * step + rest, 7 * step + rest, 3, dtype=torch.uint8)
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
            dynamic_shapes=(free,),
            input_names=["frame"],
            output_names=outputs,
            verbose=False,
        )
    assert exported is not None
    graph: onnx.ModelProto = exported.model_proto
    return graph


def cut_before_decode(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The network of an exported program alone: frame to Fields."""
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    names = field_names(read_manifest(metadata, str(path)).config)
    return onnx.utils.Extractor(model).extract_model(["frame"], names)


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
