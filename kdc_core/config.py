"""Configuration: every setting of a model and of its training, typed, in one place."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from kdc_core.errors import KdcError

# Keeps products and squares within float32.
Positive = Annotated[float, Field(ge=1e-9, le=1e9)]
Side = Annotated[int, Field(ge=32, le=8192)]
Fraction = Annotated[float, Field(ge=0, le=1)]
CentroidRule = Literal["static", "dynamic", "dynamic_multi", "personlab"]


class ConfigError(KdcError):
    """A configuration that cannot be used; the text says which key and why."""


class Section(BaseModel):
    """A group of settings; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FieldsConfig(Section):
    """What the maps mean (paper III-A, III-B)."""

    skeleton: Literal["coco17", "crowdpose14"] = Field(
        "coco17", description="keypoints of a person: their number, names, edges and OKS sigmas"
    )
    stride: int = Field(
        4, ge=1, le=32, description="pixels of the frame between two cells of a map; by backbone"
    )
    grid_offset: float = Field(
        0.0,
        description="pixel of the frame at which the first cell sits; (stride - 1) / 2 would be "
        "the middle of the cell's own pixels; by backbone",
    )
    disk_radius_px: Positive = Field(
        32.0,
        description="R of a keypoint's disk, pixels; inside, heat is 1 and offsets are learnt",
    )
    edges: list[Literal["tree", "star", "star_out"]] = Field(
        ["tree", "star"],
        description="sets of directed edges with mid-range offsets; tree: bones both ways, star: "
        "body center to keypoint and back, star_out: body center to keypoint",
    )

    @field_validator("skeleton", mode="before")
    @classmethod
    def _is_known(cls, given: object) -> object:
        known = get_args(cls.model_fields["skeleton"].annotation)
        if given not in known:
            raise ValueError(
                f"got {given!r}, known are {', '.join(known)}; another is added as a `Skeleton` "
                "in kdc_core/codec/skeleton.py, as CONTRIBUTING.md says"
            )
        return given


class NetworkConfig(Section):
    """PoseNet's structure and the widths of SegNet."""

    backbone: Literal["movenet_multipose", "movenet_thunder", "resnet101", "resnet152"] = Field(
        "movenet_multipose", description="trunk and heads of PoseNet (`network/backbones.py`)"
    )
    segnet_width: int = Field(
        80, ge=8, le=1024, description="channels of SegNet's feature pyramid"
    )
    segnet_tower: int = Field(96, ge=8, le=1024, description="channels of SegNet's tower")
    segnet_depth: int = Field(
        2, ge=1, le=64, description="blocks of SegNet's tower; more see farther and take longer"
    )
    detail: bool = Field(
        False,
        description="SegNet sees the trunk's map of half the stride; its person map is as fine",
    )
    refine: bool = Field(
        False, description="SegNet's tower adds to PoseNet's heatmaps and offsets"
    )

    @property
    def mask_fineness(self) -> int:
        """How many cells of the person map lie side by side in one of the grid."""
        return 2 if self.detail else 1


class DecodeConfig(Section):
    """Fields to people. Sizes are constants of the exported program."""

    pyramid: list[Literal[1, 2, 3, 4]] = Field(
        [1], min_length=1, description="the network sees the frame reduced by each of these"
    )
    peaks: int = Field(32, ge=1, le=1024, description="N, peaks kept per type")
    seeds: int = Field(96, ge=1, le=1024, description="M, seeds grown into poses, per level")
    people: int = Field(32, ge=1, le=255, description="P, people at most")
    score_tau_px: Positive = Field(
        4.0,
        description="pixels of short offset at which a cell's score has fallen to exp(-1/2)",
    )
    peak_window: Literal[3, 5, 7, 9, 11] = Field(
        7, description="cells along the side of the square in which a peak is the highest"
    )
    min_peak: Fraction = Field(0.05, description="score of a peak; weaker ones seed nobody")
    keypoint_seed_weight: float = Field(
        1.0, ge=0, description="factor on a keypoint's peak where seeds are ranked; 0 = no seeds"
    )
    center_seed_weight: float = Field(
        1.0,
        ge=0,
        description="factor on a body center's peak where seeds are ranked; 0 = no seeds",
    )
    snap_px: Positive = Field(
        6.0, description="reach in pixels of the snap to a peak: of local edges, else the least"
    )
    snap_scale: float = Field(
        0.2, ge=0, description="reach of the snap after long hops, as a fraction of person size"
    )
    skip_radius_px: Positive = Field(
        10.0,
        description="pixels within which two poses with the same keypoint are one "
        "(non-maximum suppression)",
    )
    same_pose_oks: Fraction = Field(
        0.7, description="OKS of two poses above which they are one (non-maximum suppression)"
    )
    suppression_rounds: int = Field(
        12,
        ge=1,
        le=1024,
        description="rounds of non-maximum suppression; chains of conflicts are decided up to "
        "this length",
    )
    min_pose_score: Fraction = Field(0.01, description="score of a pose; weaker take no pixels")
    score_power: Positive = Field(
        1.0, description="pose scores are raised to it, so that 0.5 is a good threshold"
    )
    centroid: CentroidRule = Field(
        "dynamic_multi",
        description="centroids of a person; static: body center, dynamic: most confident "
        "keypoint, dynamic_multi: the `centroids` of most weight, personlab: all visible alike",
    )
    centroids: int = Field(
        5, ge=1, description="K', centroids of a person that `dynamic_multi` uses"
    )
    center_weight: float = Field(
        0.0,
        ge=0,
        description="factor on the body center's score where it is one of the centroids of "
        "`dynamic_multi`; 0 = it is one only where no keypoint is confident",
    )
    visible: Fraction = Field(0.3, description="score from which `personlab` counts a keypoint")
    sigma_scale: Positive = Field(
        0.25, description="sigma of phi as a fraction of person size; larger takes more pixels"
    )
    sigma_min_px: Positive = Field(3.0, description="least sigma of phi, pixels")
    level_px: Positive = Field(
        110.0, description="person size in pixels at which a level of the pyramid sees masks best"
    )
    igo_sigma_cells: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Gaussian smoothing of phi (the paper's IGO), cells; 0 = none",
    )
    mean_embedding: bool = Field(
        False,
        description="assign pixels once more, with the mean embedding of each person's pixels as "
        "centroid (paper equation 4)",
    )
    phi_threshold: float = Field(0.5, gt=0, lt=1, description="phi from which a pixel is taken")
    upsample: Literal[1, 2, 3, 4] = Field(
        2, description="how much finer than the grid the mask probability is interpolated"
    )

    @model_validator(mode="after")
    def _somebody_seeds(self) -> DecodeConfig:
        if not self.keypoint_seed_weight and not self.center_seed_weight:
            raise ValueError("keypoint_seed_weight and center_seed_weight: one must be above 0")
        return self


class PredictConfig(Section):
    """Defaults of the Predictor."""

    longer_side: int = Field(
        448,
        ge=64,
        le=4096,
        description="of the image in the frame, pixels; larger finds smaller people",
    )
    confidence: Fraction = Field(0.5, description="score from which a person is reported")
    keypoint_threshold: Fraction = Field(0.3, description="score from which a keypoint is visible")
    mask_threshold: Fraction = Field(
        0.5,
        description="mask probability from which a pixel is a person's; lower gives larger masks",
    )


class TrainConfig(Section):
    """One training run."""

    start: str | None = Field(None, description="shipped weights to start from; none = random")
    train: list[Literal["posenet", "segnet"]] = Field(
        ["segnet"], min_length=1, description="parts that learn; the other stays as it starts"
    )
    subset: Literal["all", "coco_persons"] = Field(
        "all", description="coco_persons: images and people with keypoints; others are crowd"
    )
    mixture: list[Positive] = Field(
        [], description="weight of each --data in the samples; none = by number of images"
    )
    crop: int = Field(
        384, ge=64, le=8192, description="side of the square crop, pixels; sides by backbone"
    )
    longer_side: tuple[Side, Side] = Field(
        (300, 760),
        description="least and largest side an image's longer one is scaled to, pixels; drawn "
        "log-uniformly",
    )
    flip: Fraction = Field(0.5, description="fraction of the samples that are mirrored")
    rotate_degrees: float = Field(
        0.0, ge=0, le=180, description="samples are turned by up to so much either way, degrees"
    )
    color: Fraction = Field(0.3, description="strength of brightness, contrast, saturation")
    paste: Fraction = Field(
        0.0, description="fraction of the samples with a person of another image pasted in"
    )
    batch: int = Field(
        8, ge=1, le=1 << 16, description="samples of one forward pass, all processes together"
    )
    accumulate: int = Field(1, ge=1, le=1 << 16, description="forward passes of one step")
    steps: int = Field(2400, ge=1, le=10**9, description="steps of the optimizer in the whole run")
    epochs: Positive | None = Field(
        None, description="length of the run in passes over the images, instead of `steps`"
    )
    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(str)] = Field(
        "32", description="bits of the numbers in the network; bf16 and 16 are mixed, for GPUs"
    )
    rate: Positive = Field(2.5e-3, description="highest learning rate of SegNet (AdamW)")
    rate_posenet: Positive = Field(
        1e-4, description="highest learning rate of PoseNet, where it learns"
    )
    relative_steps: bool = Field(
        True, description="PoseNet's steps are relative to the scale of each output channel"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine",
        description="learning rates after warm-up; cosine: falling to a hundredth at the end",
    )
    weight_decay: float = Field(
        1e-4, ge=0, description="AdamW's decay of SegNet's weights; norms and biases have none"
    )
    warmup_steps: int = Field(
        100, ge=0, description="first steps, over which learning rates rise from zero"
    )
    ema: Fraction = Field(
        0.998,
        description="decay per step of the average of the weights, which is the model written; "
        "at step n it is (1 + n) / (10 + n) at most",
    )
    clip: Positive = Field(5.0, description="norm to which larger gradients are cut")
    seed: int = Field(
        0, ge=0, lt=1 << 32, description="of all random numbers; with it a run can be repeated"
    )
    workers: int = Field(
        1, ge=0, description="processes that make samples, for each training process; 0 = itself"
    )
    evaluate_every: int = Field(500, ge=1, description="steps between evaluations on --val")
    heat: Literal["disk", "gaussian"] = Field(
        "disk",
        description="heatmaps learnt; disk: 1 within R of a keypoint, as in the paper; gaussian: "
        "a peak, sigma .09 of the person's size, 4 to 10 px",
    )
    smooth_px: float = Field(
        2.0, ge=0, description="pixels of error below which offset losses turn quadratic; 0 = L1"
    )
    weight_heat: float = Field(4.0, ge=0, description="of the loss of heatmaps")
    weight_short: float = Field(1.0, ge=0, description="of the loss of short-range offsets")
    weight_mid: float = Field(0.25, ge=0, description="of the loss of mid-range offsets")
    weight_score: float = Field(
        0.0, ge=0, description="of the loss of the score map in which decode seeks peaks"
    )
    weight_mask: float = Field(1.0, ge=0, description="of the cross-entropy of the person map")
    weight_edge: float = Field(
        1.0, ge=1, description="in that cross-entropy, of cells within two of people's edges"
    )
    weight_dice: float = Field(0.5, ge=0, description="of the dice loss of the person map")
    weight_embedding: float = Field(1.5, ge=0, description="of the loss of the embedding")
    weight_instance: float = Field(
        0.0, ge=0, description="of the loss of each person's own pixels (phi)"
    )


class Config(Section):
    """A model and how it was made; travels inside every model file and checkpoint."""

    name: str = Field(
        pattern=r"^[a-z0-9_]+$", description="of the model, in reports, messages and file names"
    )
    fields: FieldsConfig = Field(FieldsConfig(), description="what the maps mean")
    network: NetworkConfig = Field(NetworkConfig(), description="the network's structure")
    decode: DecodeConfig = Field(DecodeConfig(), description="from maps to people")
    predict: PredictConfig = Field(PredictConfig(), description="defaults of the Predictor")
    train: TrainConfig = Field(TrainConfig(), description="how the model is trained")
