"""Manifest: what a program file says about itself, read by every runtime."""

from __future__ import annotations

import json
import os
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdc_core.config import Config
from kdc_core.config_file import keypoints_of, what_is_wrong
from kdc_core.errors import KdcError
from kdc_core.inference.onnx_file import read_metadata
from kdc_core.network.backbones import side_rule

SCHEMA = 2
LARGEST_SIDE = 4096  # pixels of a frame
Side = Annotated[int, Field(gt=0, le=LARGEST_SIDE)]
KEY = "kdc.manifest"  # its entry in the metadata of an ONNX file
# Outputs of a program file, in the order of the attributes of `assembly.Raw`. Files and whoever
# else reads them know `mask_probability` as `confidence`.
OUTPUTS = ("score", "keypoints", "centroids", "owner", "confidence")
# Of the network; preprocessing and decode are fp32 in every file. int8 comes in two dialects:
# TensorRT's, and that of the CPU runtimes.
Precision = Literal["fp32", "fp16", "int8-trt", "int8-cpu"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Manifest(BaseModel):
    """Contents of a program: input `frame` (H, W, 3) uint8 RGB, outputs as `assembly.Raw`.

    Attributes:
        schema_number: version of this layout; files of version 1 are fp32 and take any size.
        config: the whole configuration of the model.
        provenance: how the weights were made.
        weights_sha256: of the model file the program was exported from.
        precision: of the network.
        size: (H, W) of the only frame it takes; None = any that fits the backbone's rule.
        ap_loss: AP on validation images that fp32 has and this precision has not, of keypoints or
            masks, whichever lose more; None = not measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_number: int = Field(SCHEMA, ge=1, le=SCHEMA)
    config: Config
    provenance: dict[str, object] = {}
    weights_sha256: str = ""
    precision: Precision = "fp32"
    size: tuple[Side, Side] | None = None
    ap_loss: float | None = None

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a frame that the program was not made for; runtimes take some of them silently.

        Args:
            size: (H, W) of the frame.

        Raises:
            FrameError: says which sides would do.
        """
        if self.size is not None and size != self.size:
            raise FrameError(
                f"the program takes frames of {self.size[0]} x {self.size[1]} alone, got "
                f"{size[0]} x {size[1]}: export it with this --size, or without one"
            )
        sides = side_rule(self.config)
        if not all(map(sides.fits, size)):
            plus = f" plus {sides.rest}" if sides.rest else ""
            raise FrameError(
                f"a frame of {size[0]} x {size[1]} does not fit {self.config.name}: expected "
                f"height and width to be multiples of {sides.multiple}{plus}"
            )

    def check_frame(self, frame: np.ndarray) -> None:
        """As `check_size`, of a frame (H, W, 3) uint8, contiguous.

        Raises:
            FrameError: it is no such array, or of another size.
        """
        good = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
        if not good or not frame.flags.c_contiguous:
            raise FrameError(
                "expected a contiguous (H, W, 3) uint8 frame, got "
                f"{'a' if frame.flags.c_contiguous else 'a strided'} {frame.dtype} array of "
                f"shape {frame.shape}"
            )
        self.check_size((frame.shape[0], frame.shape[1]))


class FrameError(KdcError):
    """A frame that a program cannot take."""


class ManifestError(KdcError):
    """A program file that is not ours, or of another version."""


def field_names(config: Config) -> list[str]:
    """Names, inside an exported program, of the network's maps at each level of the pyramid."""
    maps = ("heat", "short", "mid", "mask", "embedding")
    return [f"{name}_{factor}" for factor in config.decode.pyramid for name in maps]


def parse_manifest(metadata: dict[str, str], origin: str) -> Manifest:
    """Read the manifest from a file's metadata.

    Raises:
        ManifestError: there is none, or it cannot be understood.
    """
    if KEY not in metadata:
        raise ManifestError(
            f"'{origin}' is not a KDC program: its metadata has no '{KEY}'. Expected a file "
            "written by `kdc export`"
        )
    try:
        return Manifest.model_validate_json(metadata[KEY])
    except ValidationError as error:
        for one in error.errors():
            if one["loc"] == ("config", "fields", "skeleton"):
                names = keypoints_of(json.loads(metadata[KEY]).get("provenance"))
                raise ManifestError(
                    f"'{origin}' has another skeleton: {one['msg']}{names}"
                ) from error
        raise ManifestError(
            f"'{origin}' was written by another version of KDC (expected manifest schema "
            f"{SCHEMA} or less): export it again with `kdc export`. "
            f"{what_is_wrong(error.errors()[0])}"
        ) from error


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of an ONNX file without loading the program, and without any library.

    Raises:
        ManifestError: not a whole ONNX file, or not one of ours.
    """
    try:
        metadata = read_metadata(path)
    except OSError as error:
        raise ManifestError(f"cannot read '{path}': {error.strerror}") from error
    except (EOFError, ValueError) as error:
        raise ManifestError(
            f"'{path}' is not an ONNX file that can be run: {error}. Expected a whole file "
            "written by `kdc export`"
        ) from error
    return parse_manifest(metadata, str(path))
