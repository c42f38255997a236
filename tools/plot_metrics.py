#!/usr/bin/env python3
"""Draw the losses of one run's `metrics.csv`, or of several stages one after the other."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib
import numpy as np
from scipy.ndimage import median_filter

matplotlib.use("Agg")
from matplotlib import pyplot

SMOOTH_ROWS = 9


def main(tables: list[str], output: str) -> None:
    """Draw the running median of every loss; a dashed line where a stage ends."""
    figure, axes = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
    colors: dict[str, str] = {}
    first = 0
    for table in tables:
        with open(table, newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["loss"]]
        steps = first + np.array([int(row["step"]) for row in rows])
        for name in rows[0]:
            if name in ("step", "epoch") or "_ap" in name:
                continue
            label = None if name in colors else name
            color = colors.setdefault(name, f"C{len(colors)}")
            values = np.array([float(row[name]) for row in rows])
            axes.plot(steps, median_filter(values, SMOOTH_ROWS), color=color, label=label)
        first = steps[-1]
        axes.axvline(first, color="gray", linestyle="--", linewidth=1)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=5, loc="outside lower center")
    figure.savefig(output, dpi=130)


if __name__ == "__main__":
    if len(sys.argv) < 3 or not all(Path(path).is_file() for path in sys.argv[1:-1]):
        sys.exit("usage: plot_metrics.py METRICS.csv... OUTPUT.png")
    main(sys.argv[1:-1], sys.argv[-1])
