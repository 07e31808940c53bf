"""Pictures of a benchmark: models among the published entries, and parity of each fold."""

import csv
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torch_geometric_crystal.benchmark.plots import BLUE, GREY, ORANGE, label, new_figure, save_figure, tidy
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord

if TYPE_CHECKING:
    from torch_geometric_crystal.benchmark.tasks.summary import TaskSummary

LOG_SPAN = 5.0
"""Errors that differ by more than this factor are drawn on a logarithmic axis."""


def plot_comparison(summary: "TaskSummary", path: str | Path) -> None:
    """Draw the scores of our models and of the published entries, best on top, with their spread over the folds.

    Args:
        summary: of one task.
        path: the picture, a PNG.
    """
    from torch_geometric_crystal.benchmark.tasks.summary import format_score, table_rows

    rows = table_rows(summary)
    ours = {f"{score.model}, here" for score in summary.models}
    figure = new_figure(7.6, max(3.0, 1.3 + 0.27 * len(rows)))
    axes = figure.subplots()
    for height, (name, mean, std, _) in enumerate(rows):
        color = ORANGE if name in ours else BLUE
        spread = None if math.isnan(std) else std
        axes.errorbar(mean, height, xerr=spread, fmt="o", color=color, capsize=2.5, markersize=5, linewidth=1.3)
        text = format_score(mean) if spread is None else f"{format_score(mean)} ± {format_score(std, mean)}"
        axes.annotate(text, (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=color)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8)
    for tick, (name, *_) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(ORANGE if name in ours else "black")
        tick.set_fontweight("bold" if name in ours else "normal")
    axes.invert_yaxis()
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _set_error_axis(axes, [mean for _, mean, *_ in rows])
    axes.set_xlabel(f"{summary.target}: {summary.heading}", fontsize=9)
    figure.supxlabel(_legend(summary), fontsize=7.5)
    axes.set_title(summary.name, fontsize=10)
    tidy(axes)
    save_figure(figure, path)


def _legend(summary: "TaskSummary") -> str:
    """What the colours mean, and which data these are, in lines that fit the picture."""
    ours = "; ".join(f"{score.model}: {score.how}" for score in summary.models)
    lines = [f"orange: here ({ours})", f"blue: {summary.published_source}" if summary.published else summary.statement]
    return "\n".join(textwrap.fill(line, 120) for line in lines)


def _set_error_axis(axes: object, means: Sequence[float]) -> None:
    """Use a logarithmic axis, with ticks at 1, 2 and 5, where the scores span much."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if min(means) <= 0.0 or max(means) / min(means) < LOG_SPAN:
        return
    axes.set_xscale("log")  # type: ignore[attr-defined]
    axis = axes.xaxis  # type: ignore[attr-defined]
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def plot_parity_of_folds(records: Sequence[FoldRecord], folder: str | Path) -> None:
    """Draw predictions against true values of each fold's test part, a panel a fold, as ``parity.png``.

    Args:
        records: of one model and task, which must have their predictions.csv.
        folder: the folder with the folds' folders; the picture goes there.
    """
    folder = Path(folder)
    figure = new_figure(0.6 + 2.6 * len(records), 3.6)
    panels = figure.subplots(1, len(records), squeeze=False, sharex=True, sharey=True)[0]
    values = [_read_predictions(folder / f"fold_{record.fold}" / "predictions.csv") for record in records]
    every = np.concatenate(values)
    margin = 0.04 * float(every.max() - every.min()) or 1.0
    limits = (float(every.min()) - margin, float(every.max()) + margin)
    for axes, record, points in zip(panels, records, values, strict=True):
        axes.plot(limits, limits, color=GREY, linewidth=1, zorder=1)
        opacity = max(0.05, min(0.7, 200 / len(points)))
        axes.scatter(points[:, 0], points[:, 1], s=9, color=BLUE, alpha=opacity, linewidths=0, zorder=2)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        text = f"MAE {record.scores['mae']:.4g}\nn = {len(points)}"
        axes.text(0.05, 0.95, text, transform=axes.transAxes, va="top", fontsize=8)
        axes.set_title(f"fold {record.fold}", fontsize=9)
        tidy(axes)
    name = label(records[0].target, {records[0].target: records[0].unit})
    figure.supxlabel(f"true {name}", fontsize=9)
    panels[0].set_ylabel(f"predicted {name}", fontsize=9)
    figure.suptitle(f"{records[0].model} on {records[0].task}: test parts", fontsize=10)
    save_figure(figure, folder / "parity.png")


def _read_predictions(path: Path) -> np.ndarray:
    with path.open(newline="", encoding="utf-8") as file:
        return np.array([(float(row["target"]), float(row["prediction"])) for row in csv.DictReader(file)])
