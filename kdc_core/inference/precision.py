"""Precision lives in the file: the network of an exported program in fp16, the rest in fp32.

TensorRT builds what the file says, type by type. Preprocessing and decode stay as they are: their
sums and coordinates have no room in fewer bits.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

# Inputs of an operator that are fp32 whatever its data are.
ALWAYS_FLOAT = {"Resize": (1, 2)}
# What ConstantOfShape is filled with unless told otherwise.
ZERO = numpy_helper.from_array(np.zeros(1, np.float32))


def network_nodes(model: onnx.ModelProto, maps: Iterable[str]) -> list[NodeProto]:
    """The nodes of a program's network: from the first convolution of each level to the maps.

    Args:
        model: an exported program.
        maps: names of the network's maps (`manifest.field_names`).
    """
    maker = {output: node for node in model.graph.node for output in node.output}
    needed: set[str] = set()
    waiting = list(maps)
    while waiting:
        name = waiting.pop()
        if name in maker and name not in needed:
            needed.update(maker[name].output)
            waiting += maker[name].input
    inside: set[str] = set()
    nodes = []
    for node in model.graph.node:
        follows = node.op_type == "Conv" or not inside.isdisjoint(node.input)
        if follows and node.output[0] in needed:
            inside.update(node.output)
            nodes.append(node)
    return nodes


def fold_batch_norms(model: onnx.ModelProto) -> None:
    """Put each batch norm that follows a convolution into its weights, in place.

    Levels of the pyramid share their weights before and after.
    """
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    maker = {node.output[0]: node for node in graph.node}
    users: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            users[name] = users.get(name, 0) + 1
    gone = []
    for norm in graph.node:
        conv = maker.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or users[conv.output[0]] > 1:
            continue
        gamma, beta, mean, variance = (numpy_helper.to_array(values[n]) for n in norm.input[1:5])
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        bias = numpy_helper.to_array(values[conv.input[2]]) if len(conv.input) > 2 else 0.0
        weight = numpy_helper.to_array(values[conv.input[1]])
        folded = {
            f"{conv.input[1]}.folded": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)),
            f"{conv.input[1]}.folded_bias": (bias - mean) * scale + beta,
        }
        for name, value in folded.items():
            if name not in values:
                values[name] = numpy_helper.from_array(value.astype(np.float32), name)
                graph.initializer.append(values[name])
        del conv.input[1:]
        conv.input.extend(folded)
        conv.output[0] = norm.output[0]
        gone.append(norm)
    for norm in gone:
        graph.node.remove(norm)
    drop_unused(model)


def to_fp16(model: onnx.ModelProto, maps: list[str]) -> onnx.ModelProto:
    """A program whose network is fp16, weights and all; its maps are cast back to fp32.

    Args:
        model: an exported program in fp32; is changed.
        maps: names of the network's maps.
    """
    fold_batch_norms(model)
    graph = model.graph
    floats = {
        value.name
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    weights = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    inside = {node.output[0] for node in network_nodes(model, maps)}
    halves: dict[str, str] = {}  # name in fp32 -> name in fp16
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.output[0] not in inside:
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            if place in ALWAYS_FLOAT.get(node.op_type, ()):
                continue
            if name not in halves and name in weights:
                halves[name] = f"{name}.fp16"
                graph.initializer.append(_half(weights[name], halves[name]))
            elif name not in halves and name in floats:
                halves[name] = f"{name}.fp16"
                nodes.append(_cast(name, halves[name], TensorProto.FLOAT16))
            node.input[place] = halves.get(name, name)
        if node.op_type == "ConstantOfShape" and not node.attribute:
            node.attribute.append(helper.make_attribute("value", ZERO))
        for attribute in node.attribute:
            if attribute.t.data_type == TensorProto.FLOAT:  # of a ConstantOfShape
                attribute.t.CopyFrom(_half(attribute.t, ""))
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in floats:
                halves[name] = f"{name}.fp16"
                node.output[place] = halves[name]
                if name in maps:
                    nodes.append(_cast(halves[name], name, TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(model)
    stale = [
        value for value in graph.value_info if value.name in halves and value.name not in maps
    ]
    for value in stale:
        graph.value_info.remove(value)
    onnx.checker.check_model(model, full_check=True)
    return model


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove weights that no node reads, in place."""
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)


def _half(tensor: TensorProto, name: str) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=to)
