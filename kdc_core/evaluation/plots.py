"""Plots of figures, by matplotlib, as png or svg."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdc_core.files import as_utf8, whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_lines(
    path: Path,
    title: str,
    x: Sequence[float] | Sequence[str] | np.ndarray,
    lines: Mapping[str, Sequence[float] | np.ndarray],
    xlabel: str = "",
    ylabel: str = "",
    mark: tuple[str, float] | None = None,
    unit: bool = False,
) -> None:
    """Draw one line for each entry of `lines` over x.

    Args:
        path: .png or .svg.
        title: above the plot.
        x: numbers, or labels of settings: each a tick, at its number where all begin with one
            ("8 px"), else side by side.
        lines: values by the text of the legend; NaN where there is none.
        xlabel, ylabel: of the axes.
        mark: text and place on x of a dashed line.
        unit: both axes run from 0 to 1.

    Raises:
        KdcError: the file cannot be written.
    """
    labels = [value for value in x if isinstance(value, str)]
    places: Sequence[float] | np.ndarray = _places(labels) if labels else np.asarray(x, float)
    with _plot(path, title, xlabel, ylabel) as axes:
        for text, values in lines.items():
            axes.plot(places, values, marker="o" if labels else "", label=_plain(text))
        if labels:
            axes.set_xticks(places, [_plain(label) for label in labels])
            axes.tick_params(axis="x", rotation=30 if len(labels) > 7 else 0, labelsize=8)
        if mark is not None:
            axes.axvline(mark[1], color="gray", linestyle="--", linewidth=1)
            axes.annotate(mark[0], (mark[1], 0.02), fontsize=8, rotation=90, ha="right")
        if unit:
            axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=8)


def draw_points(
    path: Path, title: str, points: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str
) -> None:
    """Draw named points (x, y) on axes from zero, so that small differences look small.

    Raises:
        KdcError: the file cannot be written.
    """
    with _plot(path, title, xlabel, ylabel) as axes:
        for name, point in points.items():
            axes.scatter(*point)
            axes.annotate(
                _plain(name),
                point,
                ha="center",
                textcoords="offset points",
                xytext=(0, 6),
                fontsize=8,
            )
        right, top = np.max([*points.values()], axis=0)
        axes.set(xlim=(0, 1.25 * max(0.1, right)), ylim=(0, 1.25 * top))


def draw_bars(
    path: Path, title: str, labels: Sequence[str], bars: Mapping[str, Sequence[float]], xlabel: str
) -> None:
    """Draw a group of horizontal bars for each label, the first at the top.

    Args:
        path: .png or .svg.
        title: above the plot.
        labels: of the groups.
        bars: values of all groups by the text of the legend; NaN where there is none.
        xlabel: of the values.

    Raises:
        KdcError: the file cannot be written.
    """
    with _plot(path, title, xlabel, "", max(3.6, 0.4 * len(labels))) as axes:
        places, height = np.arange(len(labels)), 0.8 / len(bars)
        for index, (text, values) in enumerate(bars.items()):
            middle = places + (index - (len(bars) - 1) / 2) * height
            axes.barh(middle, values, height, label=_plain(text))
        axes.set_yticks(places, [_plain(label) for label in labels], fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.invert_yaxis()
        axes.figure.legend(fontsize=8, loc="outside lower center", ncols=len(bars))


@contextmanager
def _plot(path: Path, title: str, xlabel: str, ylabel: str, height: float = 3.6) -> Iterator[Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height), layout="constrained")
    axes = figure.subplots()
    yield axes
    axes.set_xlabel(xlabel, fontsize=8)
    axes.set_ylabel(ylabel, fontsize=8)
    axes.set_title(_plain(title), fontsize=9)
    axes.grid(alpha=0.3)
    with whole_file(path) as part:
        figure.savefig(part, dpi=130)


def _plain(text: str) -> str:
    """Text, perhaps with a file's name in it, of which matplotlib takes nothing for a formula."""
    return as_utf8(text).replace("$", r"\$")


def _places(labels: list[str]) -> list[float]:
    try:
        return [float(label.split()[0]) for label in labels]
    except (ValueError, IndexError):
        return [float(place) for place in range(len(labels))]
