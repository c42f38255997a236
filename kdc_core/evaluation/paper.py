"""The paper's tables (paper.yaml), and which of our figures stand beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("AP", "AP50", "AP75", "APM", "APL", "AR")
SUFFIXES = ("", "50", "75", "_medium", "_large", "_recall")  # of our figures, in that order


class Published(NamedTuple):
    """One row of a table.

    Attributes:
        model: name and backbone.
        values: of COLUMNS, or of the first of them; None where there is none.
    """

    model: str
    values: tuple[float | None, ...]


def read_table(name: str) -> list[Published]:
    """The rows of `table1`, `table2`, `table3_val`, `table3_test` or `table4`."""
    import yaml

    text = Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8")
    return [Published(row["model"], tuple(row["values"])) for row in yaml.safe_load(text)[name]]


def masks_of(name: str, figures: dict[str, float], protocol: str) -> Published:
    """Our row: the mask figures of one evaluation.

    Args:
        name: of the row.
        figures: of `kdc_core.evaluation.coco.score`.
        protocol: `mask_ap_keypoint_persons` (COCOPersons) or `mask_ap_full`.
    """
    return Published(name, tuple(figures.get(protocol + suffix) for suffix in SUFFIXES))


def cells(row: Published) -> Iterable[str]:
    """The row's values as text; empty where there is none."""
    return ("" if v is None or v < 0 else f"{v:.3f}" for v in row.values)
