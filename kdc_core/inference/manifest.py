"""Manifest: what a program file says about itself, read by every runtime."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdc_core.config import Config
from kdc_core.errors import KdcError

SCHEMA = 1
KEY = "kdc.manifest"  # its entry in the metadata of an ONNX file
# Outputs of a program file, in the order of the attributes of `assembly.Raw`. Files and whoever
# else reads them know `mask_probability` as `confidence`.
OUTPUTS = ("score", "keypoints", "centroids", "owner", "confidence")


class Manifest(BaseModel):
    """Contents of a program: input `frame` (H, W, 3) uint8 RGB, outputs as `assembly.Raw`.

    Attributes:
        schema_number: version of this layout.
        config: the whole configuration of the model.
        provenance: how the weights were made.
        weights_sha256: of the model file the program was exported from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_number: int = Field(SCHEMA, ge=SCHEMA, le=SCHEMA)
    config: Config
    provenance: dict[str, object] = {}
    weights_sha256: str = ""


def field_names(config: Config) -> list[str]:
    """Names, inside an exported program, of the network's maps at each level of the pyramid."""
    maps = ("heat", "short", "mid", "mask", "embedding")
    return [f"{name}_{factor}" for factor in config.decode.pyramid for name in maps]


class ManifestError(KdcError):
    """A program file that is not ours, or of another version."""


def read_manifest(metadata: dict[str, str], origin: str) -> Manifest:
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
        raise ManifestError(
            f"'{origin}' was written by another version of KDC (expected manifest schema "
            f"{SCHEMA}): export it again with `kdc export`. {error.errors()[0]['msg']}"
        ) from error
