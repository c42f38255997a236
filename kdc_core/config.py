"""Configuration: every setting of a model and of its training, typed, in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kdc_core.errors import KdcError

PRESETS = Path(__file__).parent / "presets"
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=32, le=8192)]
Share = Annotated[float, Field(ge=0, le=1)]


class ConfigError(KdcError):
    """A configuration that cannot be used; the text says which key and why."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldsConfig(Section):
    """What the maps mean (paper III-A, III-B)."""

    skeleton: Literal["coco17", "crowdpose14"] = "coco17"
    stride: int = Field(4, ge=1, le=32)
    grid_offset: float = 0.0
    disk_radius_px: Positive = 32.0
    edges: list[Literal["tree", "star", "star_out"]] = ["tree", "star"]


class NetworkConfig(Section):
    """PoseNet's structure and the widths of SegNet."""

    backbone: Literal["movenet_multipose", "movenet_thunder", "resnet101", "resnet152"] = (
        "movenet_multipose"
    )
    segnet_width: int = Field(80, ge=8)
    segnet_tower: int = Field(96, ge=8)
    segnet_depth: int = Field(2, ge=1, description="blocks of SegNet's tower")


class DecodeConfig(Section):
    """Fields to people. Sizes are constants of the exported program."""

    pyramid: list[Literal[1, 2, 3, 4]] = Field(
        [1], min_length=1, description="the network sees the frame reduced by each of these"
    )
    peaks: int = Field(32, ge=1, description="N, peaks kept per type")
    seeds: int = Field(96, ge=1, description="M, seeds grown into poses, per level")
    people: int = Field(32, ge=1, le=256, description="P, people at most")
    score_tau_px: Positive = Field(4.0, description="width of the short-offset term of a score")
    peak_window: Literal[3, 5, 7, 9, 11] = Field(7, description="cells")
    min_peak: Share = Field(0.05, description="weaker peaks seed nobody")
    keypoint_seed_weight: float = Field(1.0, ge=0, description="rank of keypoint seeds")
    center_seed_weight: float = Field(1.0, ge=0, description="rank of body-center seeds")
    snap_px: Positive = Field(6.0, description="reach of the snap rule for local edges")
    snap_scale: float = Field(0.2, ge=0, description="reach for long hops, in person sizes")
    skip_radius_px: Positive = Field(10.0, description="r of the skip test")
    same_pose_oks: Share = Field(0.7, description="poses more alike than this are one")
    suppression_rounds: int = Field(12, ge=1)
    min_pose_score: Share = Field(0.01, description="weaker poses take no pixels")
    score_power: Positive = Field(
        1.0, description="pose scores are raised to it, so that 0.5 is a good threshold"
    )
    centroid: Literal["static", "dynamic", "dynamic_multi", "personlab"] = "dynamic_multi"
    centroids: int = Field(5, ge=1, le=17, description="K', most confident keypoints used")
    visible: Share = Field(0.3, description="score from which `personlab` counts a keypoint")
    sigma_scale: Positive = Field(0.25, description="alpha: sigma in person sizes")
    sigma_min_px: Positive = 3.0
    level_px: Positive = Field(
        110.0, description="person size at which a level of the pyramid sees masks best"
    )
    igo_sigma_cells: float = Field(0.0, ge=0, description="Gaussian smoothing of phi; 0 = none")
    mean_embedding: bool = Field(
        False, description="then once more with the mean embedding of each person's pixels"
    )
    phi_threshold: float = Field(0.5, gt=0, lt=1, description="phi from which a pixel is taken")
    upsample: Literal[1, 2, 3, 4] = Field(
        2, description="how much finer than the grid confidence is interpolated"
    )


class PredictConfig(Section):
    """Defaults of the Predictor."""

    longer_side: int = Field(448, ge=64, le=4096)
    confidence: Share = 0.5
    keypoint_threshold: Share = 0.3
    mask_threshold: Share = 0.5


class TrainConfig(Section):
    """One training run."""

    start: str | None = Field(None, description="shipped weights to start from; none = random")
    train: list[Literal["posenet", "segnet"]] = Field(["segnet"], min_length=1)
    subset: Literal["all", "coco_persons"] = Field(
        "all", description="coco_persons: pictures and people with keypoints and masks"
    )
    mixture: list[Positive] = Field(
        [], description="share of each --data in the samples; none = by number of pictures"
    )
    crop: int = Field(384, ge=64, description="side of the square crop, px")
    longer_side: tuple[Side, Side] = Field((300, 760), description="log-uniform range, px")
    flip: Share = 0.5
    rotate_degrees: float = Field(0.0, ge=0, le=180)
    color: Share = Field(0.3, description="strength of brightness, contrast, saturation")
    paste: Share = Field(0.0, description="samples with a person of another picture pasted in")
    batch: int = Field(8, ge=1, description="samples of one forward pass, all processes together")
    accumulate: int = Field(1, ge=1, description="forward passes of one step")
    steps: int = Field(2400, ge=1)
    epochs: Positive | None = Field(None, description="instead of `steps`")
    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(str)] = "32"
    rate: Positive = 2.5e-3
    rate_posenet: Positive = Field(1e-4, description="of PoseNet, where it learns")
    relative_steps: bool = Field(
        True, description="PoseNet's steps are relative to the scale of each output channel"
    )
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(100, ge=0)
    ema: Share = 0.998
    clip: Positive = 5.0
    seed: int = Field(0, ge=0)
    workers: int = Field(1, ge=0)
    evaluate_every: int = Field(500, ge=1, description="steps between evaluations on --val")
    smooth_px: float = Field(
        2.0, ge=0, description="offset losses below it turn quadratic; 0 = L1"
    )
    weight_heat: float = Field(4.0, ge=0)
    weight_short: float = Field(1.0, ge=0)
    weight_mid: float = Field(0.25, ge=0)
    weight_mask: float = Field(1.0, ge=0)
    weight_dice: float = Field(0.5, ge=0)
    weight_embedding: float = Field(1.5, ge=0)
    weight_instance: float = Field(0.0, ge=0)


class Config(Section):
    """A model and how it was made; travels inside every model file and checkpoint."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    fields: FieldsConfig = FieldsConfig()
    network: NetworkConfig = NetworkConfig()
    decode: DecodeConfig = DecodeConfig()
    predict: PredictConfig = PredictConfig()
    train: TrainConfig = TrainConfig()


def parse_config(text: str, origin: str | Path, changes: list[str] | None = None) -> Config:
    """Read a configuration from YAML or JSON text.

    Args:
        text: the configuration.
        origin: where it comes from, for messages.
        changes: `section.key=value` each, the value as YAML; put in before checking.

    Raises:
        ConfigError: unknown keys, wrong types or values out of range, each named.
    """
    try:
        content = yaml.safe_load(text)
        for change in changes or []:
            _set(content, change)
        return Config.model_validate(content)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}, got {e['input']!r:.60}"
            for e in error.errors()
        )
        raise ConfigError(f"{origin}: {faults}") from error


def _set(content: Any, change: str) -> None:
    path, equals, value = change.partition("=")
    *sections, key = path.strip().split(".")
    if not equals or not key:
        raise ConfigError(f"expected KEY=VALUE, for example train.batch=4, got '{change}'")
    for section in sections:
        if isinstance(content, dict):
            content = content.setdefault(section, {})
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' is not a setting: '{path.rpartition('.')[0]}' has no keys")
    content[key] = yaml.safe_load(value)


def load_preset(name: str, changes: list[str] | None = None) -> Config:
    """Read a preset by name, or any YAML file by path; `changes` as for `parse_config`."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ConfigError(f"no preset '{name}'; expected one of {known}, or a .yaml file")
    return parse_config(path.read_text(encoding="utf-8"), path, changes)
