"""The picture of the truncation experiment."""

from pathlib import Path
from typing import Any

from figures import COLORS, panels, save

SHADES = ("#bee3f8", "#90cdf4", "#63b3ed", "#4299e1", "#2b6cb0", "#1a365d", "#dd6b20")


def draw(path: Path, figures: dict[str, Any]) -> None:
    """Errors by cutoff, change of the output by tolerance, and by the height of the cell for a fixed range."""
    heading = "Crystalformer on flla_2015, sums cut in different ways"
    figure, (cutoffs, tolerances, cells) = panels(3, heading, width=5.0)
    draw_cutoffs(cutoffs, figures)
    draw_tolerances(tolerances, figures)
    draw_cells(cells, figures)
    save(figure, path)


def draw_cutoffs(panel: Any, figures: dict[str, Any]) -> None:
    """A line for each cutoff in training, over the cutoffs in evaluation; the last place is the converged sum."""
    names = [f"{cutoff:g}" for cutoff in figures["settings"]["cutoffs"]] + ["exact"]
    ways = dict.fromkeys(row["trained_at"] for row in figures["rows"])
    for number, way in enumerate(ways):
        rows = [row for row in figures["rows"] if row["trained_at"] == way]
        means = [sum(row[f"mae_at_{name}"] for row in rows) / len(rows) for name in names]
        label = f"{way:g} A" if isinstance(way, float) else way
        color = COLORS[1] if isinstance(way, str) else SHADES[number]
        panel.plot(names, means, "-", color=color, label=label)
        for row in rows:
            panel.plot(names, [row[f"mae_at_{name}"] for name in names], "o", color=color, markersize=2.5, alpha=0.6)
    panel.set(xlabel="cutoff in evaluation (A)", ylabel="test MAE (eV/atom)", yscale="log")
    panel.legend(fontsize=7, title="trained at", title_fontsize=7)


def draw_tolerances(panel: Any, figures: dict[str, Any]) -> None:
    """Mean and largest change of the output over the tolerance, beside the model's error."""
    found = figures["findings"]["tolerances"]
    rows = sorted((row for row in found if "mean_change" in row), key=lambda row: row["tol"])
    places = [row["tol"] for row in rows]
    panel.plot(places, [row["largest_change"] for row in rows], "s--", color=COLORS[0], markersize=4, label="largest")
    panel.plot(places, [row["mean_change"] for row in rows], "o-", color=COLORS[0], markersize=4, label="mean")
    for row in rows:
        panel.annotate(
            f"{row['edges']:.0f}", (row["tol"], row["mean_change"]), (0, -12), textcoords="offset points", fontsize=6.5,
            ha="center",
        )  # fmt: skip
    panel.axhline(found[0]["mae"], color=COLORS[4], linewidth=1, label="the model's test MAE")
    panel.axvline(1e-3, color=COLORS[1], linewidth=1, linestyle=":", label="default")
    panel.set(
        xlabel="tolerance (numbers: edges per atom)",
        ylabel="change against the converged sum (eV/atom)",
        xscale="log",
        yscale="log",
    )
    panel.legend(fontsize=7)


def draw_cells(panel: Any, figures: dict[str, Any]) -> None:
    """Each crystal's change by the fixed range over the smallest height of its cell, by skew, for the first seed."""
    row = next(row for row in figures["rows"] if "unit_cells" in row)
    for number, entry in enumerate(row["unit_cells"]):
        label = "cells as given" if entry["skew"] == 0 else f"skewed by {entry['skew']}"
        seen = [max(value, 1e-8) for value in entry["changes"]]
        panel.plot(entry["height"], seen, ".", markersize=3, color=COLORS[number], alpha=0.7, label=label)
    panel.axhline(
        figures["findings"]["tolerances"][0]["mae"], color=COLORS[4], linewidth=1, label="the model's test MAE"
    )
    number = figures["settings"]["unit_cells"]
    panel.set(
        xlabel="smallest height of the cell (A)",
        ylabel=f"change by a sum of {number} cells each way (eV/atom)",
        yscale="log",
    )
    panel.legend(fontsize=7, markerscale=2)
