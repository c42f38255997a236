"""Ablations: the network (or the annotations) once per picture, decoded under each setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdc_core.codec.decode import Decoder
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import SKELETONS
from kdc_core.config import Config, ConfigError
from kdc_core.data.annotations import AnnotatedImage, read_json
from kdc_core.data.images import ImageError, Images
from kdc_core.evaluation.coco import coco_results, score
from kdc_core.evaluation.oracle import Oracle, raw_people
from kdc_core.evaluation.run import read_truth
from kdc_core.inference.assembly import Thresholds, assemble
from kdc_core.inference.predictor import letterbox_image
from kdc_core.inference.program import reduce
from kdc_core.network.backbones import side_rule
from kdc_core.network.weights import load_model

Progress = Callable[[Iterable[AnnotatedImage], int], Iterable[AnnotatedImage]]


@dataclass(frozen=True)
class Setting:
    """One row of an ablation: changes to a configuration, by section.

    Attributes:
        label: short name of the row.
        decode, fields: changed settings.
        mask_threshold: where masks are cut; None = the model's.
        noise_px: standard deviation of noise on ground-truth offsets.
    """

    label: str
    decode: dict[str, Any]
    fields: dict[str, Any]
    mask_threshold: float | None = None
    noise_px: float = 0.0


def _decode(key: str, values: Iterable[Any]) -> list[Setting]:
    return [Setting(f"{value}", {key: value}, {}) for value in values]


KINDS = ("static", "dynamic", "dynamic_multi", "personlab")
# On a network's maps; what varies is decode alone.
ON_MAPS: dict[str, list[Setting]] = {
    "centroids": [Setting(kind, {"centroid": kind}, {}) for kind in KINDS],
    "sigma": _decode("sigma_scale", (0.15, 0.2, 0.25, 0.32, 0.4, 0.5)),
    "igo": _decode("igo_sigma_cells", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)),
    "kprime": [
        Setting(f"{k}", {"centroid": "dynamic_multi", "centroids": k}, {})
        for k in (1, 2, 3, 5, 8, 12)
    ],
    "phi_threshold": _decode("phi_threshold", (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)),
    "mask_threshold": [Setting(f"{t}", {}, {}, t) for t in (0.3, 0.4, 0.5, 0.6, 0.7)],
    "mean_embedding": [
        Setting("without", {"mean_embedding": False}, {}),
        Setting("equation 4", {"mean_embedding": True}, {}),
    ],
    "edges": [
        Setting("tree", {}, {"edges": ["tree"]}),
        Setting("star", {}, {"edges": ["star"]}),
        Setting("both", {}, {"edges": ["tree", "star"]}),
    ],
}
# On ground-truth maps: what the representation itself loses.
ON_TRUTH: dict[str, list[Setting]] = {
    "radius": [Setting(f"{r} px", {}, {"disk_radius_px": r}) for r in (8, 16, 24, 32)],
    "stride": [
        Setting(f"{s} px", {}, {"stride": s, "grid_offset": (s - 1) / 2}) for s in (2, 4, 8, 16)
    ],
    "edges": ON_MAPS["edges"],
    "centroids": ON_MAPS["centroids"],
    "noise": [
        Setting(f"{kind}, {px} px", {"centroid": kind}, {}, None, px)
        for px in (0.0, 2.0, 4.0, 8.0)
        for kind in KINDS
    ],
}


@dataclass(frozen=True)
class Row:
    """A setting and its figures (`kdc_core.evaluation.coco.score`)."""

    label: str
    figures: dict[str, float]


def ablate(
    name: str,
    annotations: str | Path,
    images: str | Path,
    source: Path | Config,
    progress: Progress,
) -> tuple[list[Row], list[str]]:
    """Decode every picture under each setting of an ablation.

    Args:
        name: of ON_MAPS for a model, of ON_TRUTH for a configuration.
        annotations: COCO .json or .json.gz.
        images: folder or tar of the pictures; not read with ground-truth maps.
        source: a model file (.safetensors), or the configuration of ground-truth maps.
        progress: wraps the pictures and their number.

    Returns:
        One row per setting, and what could not be read.

    Raises:
        ConfigError: no such ablation, or one that the model has no maps for.
    """
    known = ON_TRUTH if isinstance(source, Config) else ON_MAPS
    if name not in known:
        raise ConfigError(f"no ablation '{name}' here: expected one of {', '.join(known)}")
    settings = known[name]
    predict: Callable[[AnnotatedImage], list[Prediction]]
    if isinstance(source, Config):
        oracles = [_oracle(source, setting) for setting in settings]
        predict, config = (lambda picture: [oracle(picture) for oracle in oracles]), source
    else:
        predict, config = _on_maps(source, settings, Images(images), name)
    skeleton = SKELETONS[config.fields.skeleton]
    pictures, content = read_truth(annotations, skeleton), read_json(annotations)
    results: list[list[dict[str, Any]]] = [[] for _ in settings]
    failed = []
    for picture in progress(pictures, len(pictures)):
        try:
            for found, prediction in zip(results, predict(picture), strict=True):
                found += coco_results(prediction, picture.id)
        except (ImageError, ValueError) as error:
            failed.append(f"{picture.file_name}: {error}")
    rows = [
        Row(setting.label, score(content, found, skeleton.sigmas))
        for setting, found in zip(settings, results, strict=True)
    ]
    return rows, failed


def _oracle(config: Config, setting: Setting) -> Oracle:
    changed = config.model_copy(
        update={
            "decode": config.decode.model_copy(update=setting.decode),
            "fields": config.fields.model_copy(update=setting.fields),
        }
    )
    return Oracle(changed, setting.noise_px)


def _on_maps(
    model: Path, settings: list[Setting], source: Images, name: str
) -> tuple[Callable[[AnnotatedImage], list[Prediction]], Config]:
    """A function that runs a model's network once and decodes under each setting; its config."""
    network, _ = load_model(model)
    config, skeleton = network.config, SKELETONS[network.config.fields.skeleton]
    kinds = tuple(config.fields.edges)
    if name == "edges" and set(kinds) != {"tree", "star"}:
        raise ConfigError(
            f"'{model}' has edges {list(kinds)}: this ablation needs a model with tree and star; "
            "without --model it runs on ground-truth maps"
        )
    decoders = [
        Decoder(
            skeleton,
            network.grid,
            tuple(setting.fields.get("edges", kinds)),
            config.decode.model_copy(update=setting.decode),
        )
        for setting in settings
    ]
    channels = [_channels(skeleton.edges, kinds, decoder.edge_kinds) for decoder in decoders]
    rule = side_rule(config)

    def predict(picture: AnnotatedImage) -> list[Prediction]:
        image = source.read(picture.file_name)
        size = (image.shape[0], image.shape[1])
        letterbox = Letterbox.fit(size, config.predict.longer_side, *rule)
        frame = torch.from_numpy(letterbox_image(image, letterbox)).float().permute(2, 0, 1)[None]
        found = []
        with torch.inference_mode():
            levels = [network(reduce(frame, level, rule[0])) for level in decoders[0].levels]
            for setting, decoder, used in zip(settings, decoders, channels, strict=True):
                people = decoder([_with_edges(fields, used) for fields in levels])
                cut = setting.mask_threshold or config.predict.mask_threshold
                found.append(
                    assemble(
                        raw_people(people),
                        letterbox,
                        size,
                        network.grid,
                        config.decode.upsample,
                        Thresholds(0.0, 0.0, cut, config.decode.people),
                    )
                )
        return found

    return predict, config


def _channels(edges: Any, have: tuple[str, ...], use: tuple[str, ...]) -> list[int]:
    """Channels of the mid-range offsets of some kinds of edges among those a model has."""
    first, places = 0, {}
    for kind in have:
        count = len(edges((kind,)))
        places[kind] = list(range(first, first + count))
        first += count
    return [channel for kind in use for channel in places[kind]]


def _with_edges(fields: Fields, channels: list[int]) -> Fields:
    if len(channels) == fields.mid.shape[1]:
        return fields
    return Fields(
        fields.heat, fields.short, fields.mid[:, channels], fields.mask, fields.embedding
    )
