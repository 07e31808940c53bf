"""The benchmarks' figures: dots by group, and lines on logarithmic axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#718096", "#b83280")
DPI = 150


def panels(number: int, heading: str, width: float = 4.8, height: float = 3.8) -> tuple[Figure, list[Any]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(width * number, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=9)
    axes = list(figure.subplots(1, number, squeeze=False)[0])
    for panel in axes:
        panel.grid(True, which="major", color="#e2e8f0", linewidth=0.8)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure, axes


def dots(panel: Any, groups: Sequence[str], values: Mapping[str, Sequence[float | None]], label: str) -> None:
    """A labelled dot for each group and series; the axis is logarithmic, so bars would have no foot. None is a gap."""
    width = 0.8 / max(1, len(values))
    for number, (name, heights) in enumerate(values.items()):
        places = [position + (number + 0.5) * width - 0.4 for position in range(len(groups))]
        shown = [(place, height) for place, height in zip(places, heights, strict=True) if height]
        if shown:
            panel.plot(*zip(*shown, strict=True), "o", label=name, color=COLORS[number % len(COLORS)])
        for place, height in shown:
            panel.annotate(
                f"{height:.3g}", (place, height), (0, 5), textcoords="offset points", ha="center", fontsize=7
            )
    panel.set_xticks(range(len(groups)), groups, rotation=30, ha="right", fontsize=8)
    panel.set_xlim(-0.6, len(groups) - 0.4)
    panel.set(ylabel=label, yscale="log")
    panel.margins(y=0.15)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=7)


def lines(
    panel: Any, series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str, title: str = ""
) -> None:
    """One line for each series of points (x, y), on logarithmic axes."""
    for number, (name, points) in enumerate(series.items()):
        if points:
            x, y = zip(*points, strict=True)
            panel.plot(x, y, marker="o", markersize=4, linewidth=1.5, label=name, color=COLORS[number % len(COLORS)])
    panel.set(xlabel=x_label, ylabel=y_label, xscale="log", yscale="log")
    panel.set_title(title, fontsize=9)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=7)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, format="png", dpi=DPI)
