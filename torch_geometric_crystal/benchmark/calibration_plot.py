"""Calibration pictures: expected against observed coverage, and errors against their uncertainties."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_geometric_crystal.benchmark.calibration import coverage_curve, uncertainty_metrics
from torch_geometric_crystal.benchmark.plots import BLUE, GREY, ORANGE, label, new_figure, save_figure, tidy

BINS = 8


def plot_calibration(
    error: NDArray[np.float64],
    spread: NDArray[np.float64],
    uncertainty: NDArray[np.float64],
    path: str | Path,
    target_names: Sequence[str],
    units: Sequence[str],
    title: str = "",
) -> None:
    """Draw two panels for each target, as a PNG.

    Left, the share of errors within an interval against the interval's probability, for the bare spread and the
    calibrated uncertainty; on the diagonal both agree. Right, errors against uncertainties: points, and the root mean
    square of bins with equally many points, which should lie on the diagonal.

    Args:
        error: prediction minus true value; NaN where unknown.
        spread: of the ensemble.
        uncertainty: calibrated.
        path: the picture.
        target_names: the targets' names, T.
        units: their units.
        title: heading.

    Shapes:
        - error, spread, uncertainty: (n, T).
    """
    figure = new_figure(8.8, 4.2 * len(target_names))
    rows = figure.subplots(len(target_names), 2, squeeze=False)
    for column, (panels, name, unit) in enumerate(zip(rows, target_names, units, strict=True)):
        known = np.isfinite(error[:, column])
        e, s, u = (values[known, column] for values in (error, spread, uncertainty))
        if len(e):
            _draw_coverage(panels[0], e, s, u)
            _draw_errors(panels[1], e, u)
        panels[0].set(xlabel="expected coverage", ylabel=f"observed coverage\n{name}")
        units_of = {name: unit, "|error|": unit}
        panels[1].set(xlabel=f"uncertainty of {label(name, units_of)}", ylabel=label("|error|", units_of))
        for axes in panels:
            tidy(axes)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _draw_coverage(axes: Any, error: NDArray, spread: NDArray, uncertainty: NDArray) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for values, name, color in ((spread, "spread", ORANGE), (uncertainty, "calibrated", BLUE)):
        area = uncertainty_metrics(error, values)["miscalibration_area"]
        axes.plot(*coverage_curve(error, values), color=color, linewidth=1.8, label=f"{name}, area {area:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(frameon=False, loc="upper left", fontsize=9)


def _draw_errors(axes: Any, error: NDArray, uncertainty: NDArray) -> None:
    size = np.abs(error)
    axes.scatter(uncertainty, size, s=12, color=BLUE, alpha=max(0.15, min(0.6, 200 / len(size))), linewidths=0)
    bins = np.array_split(np.argsort(uncertainty, kind="stable"), min(BINS, max(len(size) // 5, 1)))
    centers, heights = ([float(np.sqrt(np.mean(values[rows] ** 2))) for rows in bins] for values in (uncertainty, size))
    axes.plot(centers, heights, "o-", color=ORANGE, label="rms of bins")
    limit = 1.05 * float(np.quantile(uncertainty, 0.995))
    axes.plot([0, limit], [0, limit], color=GREY, linewidth=1)
    axes.set(xlim=(0, limit), ylim=(0, 1.05 * max(float(np.quantile(size, 0.995)), limit)))
    axes.legend(frameon=False, loc="upper left", fontsize=9)
