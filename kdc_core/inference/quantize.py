"""int8: convolutions with 8-bit inputs and weights, in TensorRT's dialect or the CPU runtimes'.

Measurements on real images decide the rest: the range of each convolution's input; what 8 bits
add to its output on average, which its bias takes out again; and how much the network's maps
change when it alone has 8 bits. The few that matter much and save little time stay in fp32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from kdc_core.codec.skeleton import SKELETONS
from kdc_core.config import Config
from kdc_core.data.datasets import open_data
from kdc_core.errors import KdcError
from kdc_core.inference.precision import drop_unused, fold_batch_norms, network_nodes
from kdc_core.inference.predictor import fit_letterbox, letterbox_image
from kdc_core.inference.runtimes.onnxruntime import Session
from kdc_core.inference.runtimes.threads import default_threads

# Images that are looked at.
IMAGES = 64
# Of these, those on which convolutions are tried singly: each is a run of the whole network.
TRIALS = 4
# A convolution gets 8 bits if no map changes by more than this for the time it saves (`_prices`).
HIGHEST_PRICE = 0.1


@dataclass(frozen=True)
class Dialect:
    """How numbers become 8 bits; weights are symmetric, one scale for each output channel.

    Attributes:
        zero_point: whether inputs have one (uint8), or are symmetric around 0 (int8).
        largest: of a weight. AVX2 adds two products in 16 bits, which 7-bit weights cannot exceed.
    """

    zero_point: bool
    largest: int


DIALECTS = {"int8-trt": Dialect(False, 127), "int8-cpu": Dialect(True, 63)}


def training_frames(
    data: str | Path,
    config: Config,
    size: tuple[int, int] | None = None,
    count: int = IMAGES,
    category: str | None = None,
) -> Iterator[np.ndarray]:
    """Frames of training images, evenly from the whole data set.

    Args:
        data: data set, as for `find_data`.
        config: of the model.
        size: (H, W) of each frame; None = as the image needs.
        count: of images.
        category: as for `read_annotations`.

    Raises:
        AnnotationError, ImageError: no such data set.
    """
    skeleton = SKELETONS[config.fields.skeleton]
    annotations, images = open_data(data, "train", skeleton, category=category)
    total = len(annotations.images)
    for place in np.linspace(0, total - 1, min(count, total)).round().astype(int):
        annotated = annotations.images[place]
        image = images.read(annotated.file_name)
        letterbox = fit_letterbox((image.shape[0], image.shape[1]), config, frame_size=size)
        yield letterbox_image(image, letterbox)


def to_int8(
    model: onnx.ModelProto, maps: list[str], precision: str, frames: Iterable[np.ndarray]
) -> onnx.ModelProto:
    """A program whose network computes its convolutions in 8 bits, where that changes little.

    Args:
        model: an exported program in fp32; is changed.
        maps: names of the network's maps.
        precision: one of DIALECTS.
        frames: (H, W, 3) uint8 of real images.

    Raises:
        KdcError: there is no frame.
    """
    kept = list(frames)
    if not kept:
        raise KdcError("int8 needs training images to see what values the network has, got none")
    fold_batch_norms(model)
    shaped = onnx.shape_inference.infer_shapes(model)
    network = onnx.utils.Extractor(shaped).extract_model(["frame"], maps)
    convs = [node for node in network_nodes(network, maps) if node.op_type == "Conv"]
    writer = Writer(DIALECTS[precision], _ranges(network, convs, kept))
    shifts, shares = _shifts_and_shares(network, convs, writer, kept)
    trials = kept[:: max(1, len(kept) // TRIALS)][:TRIALS]
    prices = _prices(network, writer, shifts, shares, maps, trials)
    writer.quantize(
        model, {name: shift for name, shift in shifts.items() if prices[name] <= HIGHEST_PRICE}
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class Writer:
    """Writes convolutions in 8 bits.

    Args:
        dialect: how.
        ranges: least and largest value of each input.
    """

    def __init__(self, dialect: Dialect, ranges: dict[str, tuple[float, float]]):
        self._dialect, self._ranges = dialect, ranges

    def quantize(self, model: onnx.ModelProto, convs: dict[str, np.ndarray]) -> None:
        """Quantize these convolutions in place.

        Args:
            model: with them.
            convs: by name, what is added to their bias.
        """
        graph = model.graph
        values = {tensor.name: tensor for tensor in graph.initializer}
        nodes: list[NodeProto] = []
        made: set[str] = set()
        for node in graph.node:
            if node.name in convs:
                nodes += self.inputs(node, values, made)
                bias = numpy_helper.to_array(values[node.input[2]]) if len(node.input) > 2 else 0.0
                name = f"{node.output[0]}.bias"
                value = np.asarray(bias + convs[node.name], np.float32)
                values[name] = numpy_helper.from_array(value, name)
                node.input[:] = [*(f"{name}.int8" for name in node.input[:2]), name]
            nodes.append(node)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(values.values())
        drop_unused(model)

    def inputs(
        self, conv: NodeProto, values: dict[str, TensorProto], made: set[str]
    ) -> list[NodeProto]:
        """Nodes that give a convolution's input and weights in 8 bits, named NAME.int8.

        Args:
            conv: it.
            values: constants of its graph; new ones are added.
            made: inputs and weights that have been written; new ones are added.
        """
        nodes = []
        x, weight = conv.input[0], conv.input[1]
        if x not in made:
            low, high = (min(0.0, self._ranges[x][0]), max(0.0, self._ranges[x][1], 1e-6))
            if self._dialect.zero_point:
                scale = (high - low) / 255
                zero = np.array(round(-low / scale), np.uint8)
            else:
                scale, zero = max(-low, high) / 127, np.array(0, np.int8)
            names = _keep(values, x, scale=np.array(scale, np.float32), zero=zero)
            nodes.append(helper.make_node("QuantizeLinear", [x, *names], [f"{x}.q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{x}.q", *names], [f"{x}.int8"]))
        if weight not in made:
            value, most = numpy_helper.to_array(values[weight]), self._dialect.largest
            scales = np.maximum(np.abs(value).reshape(len(value), -1).max(1), 1e-8) / most
            whole = np.rint(value / scales.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
            zeros = np.zeros(len(value), np.int8)
            names = _keep(values, weight, q=whole, scale=scales.astype(np.float32), zero=zeros)
            nodes.append(helper.make_node("DequantizeLinear", names, [f"{weight}.int8"], axis=0))
        made.update((x, weight))
        return nodes


def _keep(values: dict[str, TensorProto], of: str, **arrays: np.ndarray) -> list[str]:
    for name, array in arrays.items():
        values[f"{of}.{name}"] = numpy_helper.from_array(array, f"{of}.{name}")
    return [f"{of}.{name}" for name in arrays]


def _ranges(
    network: onnx.ModelProto, convs: list[NodeProto], frames: list[np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Least and largest value of the input of each convolution."""
    names = list(dict.fromkeys(conv.input[0] for conv in convs))
    model = copy.deepcopy(network)
    for name in names:
        for operator in ("ReduceMin", "ReduceMax"):
            model.graph.node.append(
                helper.make_node(operator, [name], [f"{name}.{operator}"], keepdims=0)
            )
    ends = ("ReduceMin", "ReduceMax")
    found = _measure(model, [f"{name}.{end}" for name in names for end in ends], frames)
    return {
        n: (float(found[2 * i].min()), float(found[2 * i + 1].max())) for i, n in enumerate(names)
    }


def _shifts_and_shares(
    network: onnx.ModelProto, convs: list[NodeProto], writer: Writer, frames: list[np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What is to be added to the bias of each convolution in 8 bits, and how much it handles.

    Returns:
        By name: (C,) of what 8 bits take from each channel on average, its input being that of
        the fp32 network; the numbers that it reads and writes, weights among them, over those of
        all convolutions, as the time that 8 bits save.
    """
    model = copy.deepcopy(network)
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    (axes,) = _keep(values, "each channel", axes=np.array([0, 2, 3]))
    made: set[str] = set()
    for conv in convs:
        x, y = conv.input[0], conv.output[0]
        graph.node.extend(writer.inputs(conv, values, made))
        beside = copy.deepcopy(conv)
        beside.input[:2] = [f"{name}.int8" for name in conv.input[:2]]
        beside.output[0], beside.name = f"{y}.beside", f"{conv.name}.beside"
        shift, read, written, size = (
            f"{y}.{value}" for value in ("shift", "read", "written", "size")
        )
        graph.node.extend(
            [
                beside,
                helper.make_node("Sub", [y, beside.output[0]], [f"{y}.lost"]),
                helper.make_node("ReduceMean", [f"{y}.lost", axes], [shift], keepdims=0),
                helper.make_node("Size", [x], [read]),
                helper.make_node("Size", [y], [written]),
                helper.make_node("Add", [read, written], [f"{y}.both"]),
                helper.make_node("Cast", [f"{y}.both"], [size], to=TensorProto.FLOAT),
            ]
        )
    del graph.initializer[:]
    graph.initializer.extend(values.values())
    names = [f"{conv.output[0]}.{value}" for conv in convs for value in ("shift", "size")]
    found = [values.mean(0) for values in _measure(model, names, frames)]
    shifts = {conv.name: shift for conv, shift in zip(convs, found[::2], strict=True)}
    weights = [np.prod(values[conv.input[1]].dims) for conv in convs]
    sizes = np.array(found[1::2]) + weights
    shares = sizes / sizes.sum()
    return shifts, dict(zip(shifts, shares.tolist(), strict=True))


def _prices(
    network: onnx.ModelProto,
    writer: Writer,
    shifts: dict[str, np.ndarray],
    shares: dict[str, float],
    maps: list[str],
    frames: list[np.ndarray],
) -> dict[str, float]:
    """What 8 bits in each convolution alone cost the network's maps, for the time saved.

    Returns:
        By name: mean square of the change, over the variance, of the map that changes most; over
        the convolution's share of all that convolutions handle.
    """
    right = _run(copy.deepcopy(network), maps, frames)
    variances = _mean_squares(right, [[of.mean() for of in found] for found in right])
    prices = {}
    for name, shift in shifts.items():
        model = copy.deepcopy(network)
        writer.quantize(model, {name: shift})
        changes = _mean_squares(_run(model, maps, frames), right)
        worst = (changes / np.maximum(variances, 1e-12)).max()
        prices[name] = float(worst) / shares[name]
    return prices


def _mean_squares(rows: list[list[np.ndarray]], beside: list[list[np.ndarray]]) -> np.ndarray:
    """Mean squares of how maps (frames, maps) differ from others: (maps,)."""
    squares = [
        [np.square(one - other).mean() for one, other in zip(row, by, strict=True)]
        for row, by in zip(rows, beside, strict=True)
    ]
    return np.mean(squares, 0)


def _measure(
    model: onnx.ModelProto, outputs: list[str], frames: list[np.ndarray]
) -> list[np.ndarray]:
    """Values of these tensors, of a size that no frame changes, for all frames: (frames, ...)."""
    return [np.stack(values) for values in zip(*_run(model, outputs, frames), strict=True)]


def _run(
    model: onnx.ModelProto, outputs: list[str], frames: list[np.ndarray]
) -> list[list[np.ndarray]]:
    """Values of these tensors, (frames, outputs); the model is changed."""
    del model.graph.output[:]
    for name in outputs:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = Session(model.SerializeToString(), default_threads())
    return [session.run(outputs, {"frame": frame}) for frame in frames]
