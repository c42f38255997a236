"""The paper's tables (paper.yaml), and which of our figures stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kdc_core.evaluation.figures import KEYPOINT_AP, ROWS

COLUMNS = ("AP", "AP50", "AP75", "APM", "APL", "AR")
SUFFIXES = ("", "50", "75", "_medium", "_large", "_recall")  # of our figures, in that order


class TableRow(NamedTuple):
    """One row of a table.

    Attributes:
        model: name and backbone.
        values: of COLUMNS, or of the first of them; None where there is none.
    """

    model: str
    values: tuple[float | None, ...]


def read_table(name: str) -> list[TableRow]:
    """The rows of `table1`, `table2`, `table3_val`, `table3_test` or `table4`."""
    import yaml

    text = Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8")
    return [TableRow(row["model"], tuple(row["values"])) for row in yaml.safe_load(text)[name]]


def values_of(figures: Mapping[str, float | str], row: str) -> tuple[float | None, ...]:
    """Ours of COLUMNS: those figures of one evaluation that begin with a row's name.

    Args:
        figures: of `kdc_core.evaluation.coco.score`, others beside them.
        row: of ROWS.
    """
    values = (figures.get(row + suffix) for suffix in SUFFIXES)
    return tuple(v if isinstance(v, float) else None for v in values)


def rows_of(figures: Mapping[str, float | str]) -> list[TableRow]:
    """Every row that there are figures for."""
    from kdc_core.evaluation.coco import COMMON

    rows = [TableRow(row, values_of(figures, row)) for row in ROWS if row in figures]
    common = {n.removesuffix(COMMON): v for n, v in figures.items() if n.endswith(COMMON)}
    if common:
        rows.append(TableRow(f"{KEYPOINT_AP}{COMMON}", values_of(common, KEYPOINT_AP)))
    return rows
