"""Learning curves and parity plots, drawn without a display and without global state."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_geometric_crystal.benchmark.metrics import regression_metrics
from torch_geometric_crystal.checks import MissingDependencyError, check_argument
from torch_geometric_crystal.datasets.atomic_write import atomic_write

BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#718096"
DPI = 150
METRICS = {"mae": "MAE", "cross_entropy": "cross-entropy"}


def new_figure(width: float, height: float) -> Any:
    """A figure of a size in inches.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "train") from error

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DPI)


def tidy(axes: Any) -> None:
    """Give axes a light grid and no frame at the top and at the right."""
    axes.grid(True, color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _log_scale(axes: Any, values: Sequence[float]) -> None:
    """Logarithmic values where any can be shown so, with ticks at 1, 2 and 5 written out."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if not any(0.0 < value < math.inf for value in values):
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def plot_learning_curve(
    history: Sequence[dict[str, float]],
    path: str | Path,
    target_names: Sequence[str],
    units: Sequence[str],
    title: str = "",
    averaged: dict[str, float] | None = None,
    error: str = "mae",
) -> None:
    """Draw training loss and validation errors against the epoch, as a PNG.

    Args:
        history: rows of ``history.csv``, at least one.
        path: the picture.
        target_names: the targets' names, one panel each beside that of the loss.
        units: their units.
        title: heading.
        averaged: validation error of the averaged weights by target, drawn as a dashed line.
        error: the metric whose columns to draw: ``"mae"`` or ``"cross_entropy"``.
    """
    check_argument(len(history) > 0, "history", "at least one epoch", "none")
    shown = [name for name in target_names if f"val_{error}_{name}" in history[0]]
    figure = new_figure(4.6 * (1 + len(shown)), 3.6)
    panels = figure.subplots(1, 1 + len(shown), squeeze=False)[0]
    epochs = [row["epoch"] for row in history]
    losses = [row["train_loss"] for row in history]
    panels[0].plot(epochs, losses, color=BLUE, linewidth=1.5)
    panels[0].set(xlabel="epoch", ylabel="training loss (standardised)" if error == "mae" else "training loss")
    _log_scale(panels[0], losses)
    for axes, name in zip(panels[1:], shown, strict=True):
        errors = [row[f"val_{error}_{name}"] for row in history]
        known = [(value, epoch) for value, epoch in zip(errors, epochs, strict=True) if not math.isnan(value)]
        best, at = min(known, default=(math.nan, math.nan))
        axes.plot(epochs, errors, color=BLUE, linewidth=1.5)
        found = f"best {best:.4g} (epoch {at:g})" if known else "no known value"
        axes.plot(at, best, "o", color=ORANGE, label=found)
        if averaged and name in averaged:
            axes.axhline(averaged[name], color=GREY, linestyle="--", label=f"averaged weights {averaged[name]:.4g}")
        axes.set(
            xlabel="epoch",
            ylabel=f"validation {METRICS[error]}\n{label(name, dict(zip(target_names, units, strict=True)))}",
        )
        _log_scale(axes, errors)
        axes.legend(frameon=False)
    for axes in panels:
        tidy(axes)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def label(name: str, units: dict[str, str]) -> str:
    """Return ``name (unit)``, or the name alone where there is no unit."""
    return f"{name} ({units[name]})" if units.get(name) else name


def plot_parity(
    prediction: Tensor,
    target: Tensor,
    path: str | Path,
    target_names: Sequence[str],
    units: Sequence[str],
    title: str = "",
) -> None:
    """Draw predictions against true values, a panel per target, with the errors written into it, as a PNG.

    Args:
        prediction: predicted values.
        target: true values; NaN are left out.
        path: the picture.
        target_names: the targets' names, T.
        units: their units.
        title: heading.

    Shapes:
        - prediction, target: (n, T).
    """
    metrics = regression_metrics(prediction, target, list(target_names))
    figure = new_figure(4.4 * len(target_names), 4.4)
    panels = figure.subplots(1, len(target_names), squeeze=False)[0]
    for column, (axes, name, unit) in enumerate(zip(panels, target_names, units, strict=True)):
        known = ~target[:, column].isnan()
        x, y = target[known, column], prediction[known, column]
        if len(x) > 0:
            both = torch.cat([x, y])
            margin = 0.04 * float(both.max() - both.min()) or 1.0
            limits = (float(both.min()) - margin, float(both.max()) + margin)
            axes.plot(limits, limits, color=GREY, linewidth=1, zorder=1)
            axes.scatter(x, y, s=14, color=BLUE, alpha=max(0.15, min(0.7, 200 / len(x))), linewidths=0, zorder=2)
            axes.set(xlim=limits, ylim=limits, aspect="equal")
        suffix = f" {unit}" if unit else ""
        errors = metrics[name]
        text = (
            f"MAE {errors['mae']:.4g}{suffix}\nRMSE {errors['rmse']:.4g}{suffix}\nR² {errors['r2']:.3f}, n = {len(x)}"
        )
        axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=9)
        name_with_unit = label(name, {name: unit})
        axes.set(xlabel=f"true {name_with_unit}", ylabel=f"predicted {name_with_unit}")
        tidy(axes)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)
