"""People of many images in parts: files of one folder, each of some images, JSON lines or Parquet.

An entry is one image or page, as `show.people_json.frame_json` gives it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from kdc_core.errors import KdcError
from kdc_core.files import whole_file


def part_name(sources: list[str], format: str) -> str:
    """Name of the part of these images: a task that is run again replaces its own."""
    digest = hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]
    return f"part-{digest}.{format}"


def sources_in(folder: Path, format: str) -> set[str]:
    """Names of the images in the parts of a folder.

    Raises:
        KdcError: a part that this module did not write.
    """
    found: set[str] = set()
    for path in sorted(folder.glob(f"part-*.{format}")):
        try:
            if format == "parquet":
                import pyarrow.parquet as parquet

                found.update(parquet.read_table(path, columns=["source"])["source"].to_pylist())
            else:
                found |= _sources(path)
        except (OSError, ValueError, KeyError) as error:
            raise KdcError(
                f"'{path}' is not a part written by this command: move it away. {error}"
            ) from error
    return found


def _sources(path: Path) -> set[str]:
    # The name comes first in a line; the people after it, megabytes per part, are not parsed.
    start, decoder = '{"source": ', json.JSONDecoder()
    with open(path, encoding="utf-8") as file:
        return {decoder.raw_decode(line.removeprefix(start))[0] for line in file}


def read_failed(path: Path) -> dict[str, str]:
    """Why images failed, by name; none where the file is absent.

    Raises:
        KdcError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {entry["source"]: entry["error"] for entry in map(json.loads, lines)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KdcError(f"'{path}' cannot be read: delete it to try again. {error}") from error


def write_failed(path: Path, failed: dict[str, str]) -> None:
    """Write why images failed, by name."""
    with whole_file(path) as file:
        _write_jsonl(file, [{"source": s, "error": failed[s]} for s in sorted(failed)])


def _write_jsonl(path: Path, entries: list[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry, allow_nan=False) + "\n" for entry in entries)


def _write_parquet(path: Path, entries: list[dict[str, Any]]) -> None:
    """One row per image or page; masks as the compressed strings of COCO."""
    import pyarrow
    import pyarrow.parquet as parquet
    from pycocotools import mask

    real, whole = pyarrow.float64(), pyarrow.int32()
    columns: dict[str, Any] = {
        "source": pyarrow.string(),
        "frame": whole,
        "time": real,
        "size": pyarrow.list_(whole),
        "scores": pyarrow.list_(real),
        "mask_scores": pyarrow.list_(real),
        "boxes": pyarrow.list_(pyarrow.list_(real)),
        "keypoints": pyarrow.list_(pyarrow.list_(pyarrow.list_(real))),
        "masks": pyarrow.list_(pyarrow.string()),
    }
    rows = [
        {
            "source": entry["source"],
            "frame": entry["frame"],
            "time": entry.get("time"),
            "size": entry["size"],
            "scores": [p["score"] for p in entry["persons"]],
            "mask_scores": [p.get("mask_score") for p in entry["persons"]],
            "boxes": [p["box"] for p in entry["persons"]],
            "keypoints": [p["keypoints"] for p in entry["persons"]],
            "masks": [
                mask.frPyObjects(p["segmentation"], *entry["size"])["counts"].decode()
                for p in entry["persons"]
            ],
        }
        for entry in entries
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(columns)), path)


WRITERS = {"jsonl": _write_jsonl, "parquet": _write_parquet}
