"""`kdc bench peers`: MoveNet MultiPose and BodyPix beside our Predictor, on one runtime.

The peers are rebuilt from published weights, which are no part of the package.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from kdc_core.bench import bodypix
from kdc_core.codec.grid import Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.data.annotations import read_coco, read_json
from kdc_core.data.images import Images
from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import coco_results, score
from kdc_core.evaluation.run import Progress
from kdc_core.inference.export import LARGEST_SIDE, OPSET, cut_before_decode
from kdc_core.inference.predictor import Predictor, letterbox_image
from kdc_core.inference.runtimes.choice import default_threads, find_model
from kdc_core.inference.runtimes.onnxruntime import make_session
from kdc_core.network.movenet import Head, MoveNet, from_google
from kdc_core.network.weights import read_tensors

SHARED = Path(__file__).parents[2].parent / "shared"  # beside the repository
WEIGHTS = SHARED / "weights"
ANNOTATIONS = SHARED / "data" / "coco_person" / "val.json.gz"
IMAGES = SHARED / "data" / "coco_person" / "val.tar"
MOVENET, BODYPIX = "movenet_multipose", "bodypix_mobilenet_075"
MOVENET_FILE, BODYPIX_FILE = f"{MOVENET}.safetensors", f"{BODYPIX}.safetensors"
MOVENET_SIDE, BODYPIX_SIDE = 512, 641

MOVENET_STRIDE = 4
MOVENET_PEOPLE = 6  # a limit of the published graph
MOVENET_INPUT = 0.007843017578125  # 2 / 255 as the published graph has it
MOVENET_SPREAD = 0.30005
MOVENET_VISIBLE = 0.12695  # keypoint score from which it counts for the person's

# People of an image, ms of the network, ms of all.
Run = Callable[[np.ndarray], tuple[Prediction, float, float]]
Decode = Callable[[list[np.ndarray], Letterbox, tuple[int, int]], Prediction]


def bench_peers(
    annotations: Path,
    images: Path,
    weights: Path,
    model: str,
    limit: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Predict every picture with each model in turn, so that load of the machine hits all alike.

    All run in ONNX Runtime with default_threads(), and return all they find: no threshold.

    Args:
        annotations: COCO .json or .json.gz.
        images: folder or tar of the pictures.
        weights: folder of the peers' published weights.
        model: ours, shipped model's name or an .onnx file.
        limit: only so many pictures, the first ones.
        progress: wraps the pictures and their number.

    Returns:
        pictures, threads, and by model: longer_side of its input; figures of
        `kdc_core.evaluation.coco.score` (no mask figures of MoveNet); network_ms and whole_ms
        (letterbox, network and decode), medians over pictures; whole_over_ours, median of the
        ratios.

    Raises:
        KdcError: weights, annotations or pictures are missing or unusable.
    """
    for what, path in (("annotations", annotations), ("pictures", images)):
        if not path.exists():
            raise KdcError(
                f"no {what} at '{path}': expected COCO person annotations and their pictures; "
                "give them with --annotations and --images"
            )
    threads = default_threads()
    movenet, body = movenet_peer(weights, threads), bodypix_peer(weights, threads)
    ours, name, side = our_predictor(model, threads)
    runs = {name: ours, MOVENET: movenet, BODYPIX: body}
    sides = {name: side, MOVENET: MOVENET_SIDE, BODYPIX: BODYPIX_SIDE}

    pictures, source = read_coco(annotations)[:limit], Images(images)
    if not pictures:
        raise KdcError(f"'{annotations}' has no pictures")
    results: dict[str, list[dict[str, Any]]] = {key: [] for key in runs}
    times: dict[str, list[tuple[float, float]]] = {key: [] for key in runs}
    for run in runs.values():  # warm
        run(source.read(pictures[0].file_name))
    for picture in progress(pictures, len(pictures)):
        image = source.read(picture.file_name)
        for key, run in runs.items():
            prediction, network, whole = run(image)
            results[key] += coco_results(prediction, picture.id)
            times[key].append((network, whole))

    content = read_json(annotations)
    chosen = {picture.id for picture in pictures}
    content["images"] = [i for i in content["images"] if i["id"] in chosen]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in chosen]
    models: dict[str, dict[str, float]] = {}
    for key in runs:
        figures = score(content, results[key])
        if key == MOVENET:
            figures = {k: v for k, v in figures.items() if k.startswith("keypoint")}
        network, whole = np.median(times[key], 0)
        ratio = np.array(times[key])[:, 1] / np.array(times[name])[:, 1]
        models[key] = {
            "longer_side": sides[key],
            **figures,
            "network_ms": round(float(network), 2),
            "whole_ms": round(float(whole), 2),
            "whole_over_ours": round(float(np.median(ratio)), 3),
        }
    return {
        "annotations": annotations.name,
        "pictures": len(pictures),
        "threads": threads,
        "models": models,
    }


def our_predictor(model: str, threads: int) -> tuple[Run, str, int]:
    """Our Predictor, its model's name and longer side.

    Its program has network and decode in one; the network alone is a run of its own.
    """
    predictor = Predictor.from_pretrained(
        model, "onnxruntime", threads=threads, confidence=0.0, keypoint=0.0
    )
    path = find_model(model, (".onnx",))
    network = make_session(cut_before_decode(path).SerializeToString(), threads)

    def run(image: np.ndarray) -> tuple[Prediction, float, float]:
        begun = time.perf_counter()
        prediction = predictor(image)
        done = time.perf_counter()
        frame = letterbox_image(image, predictor.letterbox((image.shape[0], image.shape[1])))
        scaled = time.perf_counter()
        network.run(None, {"frame": frame})
        ran = time.perf_counter()
        return prediction, 1e3 * (ran - scaled), 1e3 * (done - begun)

    return run, predictor.runtime.manifest.config.name, predictor.longer_side


def movenet_peer(weights: Path, threads: int) -> Run:
    """MoveNet MultiPose as published: 512 px, its own decoder, six people at most."""
    network = MultiPose(read_weights(weights, MOVENET_FILE)).eval()
    return _run(open_network(network, 32, 0, threads), MOVENET_SIDE, 32, 0, decode_movenet)


def bodypix_peer(weights: Path, threads: int) -> Run:
    """BodyPix MobileNetV1 0.75 at stride 16, 641 px."""
    try:
        network = bodypix.load_bodypix(read_weights(weights, BODYPIX_FILE))
    except RuntimeError as error:
        raise KdcError(f"'{weights / BODYPIX_FILE}' is not BodyPix: {error}") from error
    session = open_network(network, bodypix.STRIDE, 1, threads)
    return _run(session, BODYPIX_SIDE, bodypix.STRIDE, 1, bodypix.decode)


def read_weights(weights: Path, name: str) -> dict[str, Tensor]:
    """Read one of the peers' files from their folder.

    Raises:
        KdcError: it is not there, or not complete.
    """
    if not (weights / name).is_file():
        raise KdcError(
            f"no '{name}' in '{weights}': expected the peers' published weights "
            f"{MOVENET_FILE} and {BODYPIX_FILE}; give their folder with --weights"
        )
    return read_tensors(weights / name)[0]


def open_network(network: nn.Module, step: int, rest: int, threads: int) -> Any:
    """Export to ONNX in memory, with free sides n * step + rest as our own programs have, and
    open it."""
    example = torch.zeros(5 * step + rest, 7 * step + rest, 3, dtype=torch.uint8)
    sides = {
        axis: step * torch.export.Dim(name, min=1, max=LARGEST_SIDE // step) + rest
        for axis, name in enumerate(("rows", "columns"))
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(sides,),
            input_names=["frame"],
            verbose=False,
        )
    assert exported is not None
    return make_session(exported.model_proto.SerializeToString(), threads)


def _run(session: Any, longer_side: int, multiple: int, rest: int, decode: Decode) -> Run:
    def run(image: np.ndarray) -> tuple[Prediction, float, float]:
        begun = time.perf_counter()
        size = (image.shape[0], image.shape[1])
        letterbox = Letterbox.fit(size, longer_side, multiple, rest)
        frame = letterbox_image(image, letterbox)
        scaled = time.perf_counter()
        maps = session.run(None, {"frame": frame})
        ran = time.perf_counter()
        prediction = decode(maps, letterbox, size)
        done = time.perf_counter()
        return prediction, 1e3 * (ran - scaled), 1e3 * (done - begun)

    return run


class MultiPose(nn.Module):
    """MoveNet MultiPose with its box heads."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        self.movenet = MoveNet()
        self.boxes = nn.ModuleDict({"box_scale": Head(2), "box_offset": Head(2)})
        try:
            self.movenet.load_state_dict(from_google(weights))
            self.boxes.load_state_dict(
                {
                    k.removeprefix("heads."): v.float()
                    for k, v in weights.items()
                    if k.startswith("heads.box_")
                }
            )
        except (RuntimeError, KeyError) as error:
            raise KdcError(f"'{MOVENET_FILE}' is not MoveNet MultiPose: {error}") from error

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Map a frame (32 n, 32 m, 3) uint8 RGB to maps of stride 4.

        Returns:
            center (1, h, w) and heat (17, h, w) logits; offset and regress (34, h, w), x and y
            of each keypoint in turn, pixels; box_scale (height, width) and box_offset (y, x)
            (2, h, w), cells.
        """
        picture = frame.float().permute(2, 0, 1)[None] * MOVENET_INPUT - 1
        _, features, heads = self.movenet.published(picture)
        names = ("center", "kpt_heatmap", "kpt_offset", "kpt_regress")
        maps = [heads[name] for name in names] + [head(features) for head in self.boxes.values()]
        return tuple(value[0] for value in maps)


def decode_movenet(
    maps: list[np.ndarray], letterbox: Letterbox, size: tuple[int, int]
) -> Prediction:
    """People of the published decoder, in numpy; the original is a part of its graph.

    A keypoint is looked for in its person's box only, at the highest heat times a Gaussian
    around where the center leads; the Gaussian is a product of one along y and one along x.

    Args:
        maps: as MultiPose returns them.
        letterbox: how the image was put into the frame.
        size: (height, width) of the image.
    """
    center, heat, offset, regress, box_scale, box_offset = maps
    _, rows, columns = heat.shape
    center = 1 / (1 + np.exp(-center[0]))
    peak = center >= cv2.dilate(center, np.ones((5, 5))) - 1.01e-6
    order = np.argsort(-np.where(peak, center, 0), axis=None, kind="stable")[:MOVENET_PEOPLE]
    scores, keypoints = [], np.zeros((len(order), 17, 3), np.float32)
    each = np.arange(17)
    for index, cell in enumerate(order):
        row, column = divmod(int(cell), columns)
        height, width = box_scale[:, row, column]
        y, x = box_offset[:, row, column] + (row, column)
        y0, y1 = np.clip((y - height / 2, y + height / 2), 0, rows - 1)
        x0, x1 = np.clip((x - width / 2, x + width / 2), 0, columns - 1)
        top, left = int(np.ceil(y0)), int(np.ceil(x0))
        window = np.s_[:, top : max(int(y1), top) + 1, left : max(int(x1), left) + 1]
        inside = 1 / (1 + np.exp(-heat[window]))
        # Cell to which the center's own regression leads.
        at = regress[:, row, column].reshape(17, 2) / MOVENET_STRIDE + (column, row)
        # d2 in cells over the box's shorter side in pixels: of the readings tried, the one
        # nearest to the published decoder's average precision.
        spread = MOVENET_SPREAD * MOVENET_STRIDE * max(min(y1 - y0, x1 - x0), 1.0)
        along_y = np.arange(top, top + inside.shape[1]) - at[:, 1, None]
        along_x = np.arange(left, left + inside.shape[2]) - at[:, 0, None]
        near_y, near_x = np.exp(-(along_y**2) / spread), np.exp(-(along_x**2) / spread)
        weighed = (inside * near_y[:, :, None] * near_x[:, None]).reshape(17, -1)
        best_y, best_x = np.divmod(weighed.argmax(1), inside.shape[2])
        ky, kx = best_y + top, best_x + left
        moved = offset.reshape(17, 2, rows, columns)[each, :, ky, kx]
        keypoints[index, :, :2] = MOVENET_STRIDE * np.stack((kx, ky), 1) + moved
        found = inside[each, best_y, best_x]
        keypoints[index, :, 2] = found
        seen = found[found > MOVENET_VISIBLE]
        scores.append(center[row, column] * (seen.mean() if len(seen) else 0))
    keypoints[..., :2] = letterbox.to_image(keypoints[..., :2])
    return bodypix.make_prediction(np.array(scores), keypoints, np.zeros(size, np.uint16))
