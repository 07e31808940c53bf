"""The picture of the distance decays: shapes, images needed, errors, and error against time."""

from pathlib import Path
from typing import Any

import numpy as np
from decays_profiles import DECAYS
from figures import COLORS, panels, save
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

ORDER = list(DECAYS)


def draw(path: Path, figures: dict[str, Any]) -> None:
    """Write the picture from the figures of a run."""
    findings, rows = figures["findings"], figures["rows"]
    counts = findings["crystals"]
    seeds = len(figures["settings"]["seeds"])
    heading = (
        f"Distance decays of infinitely connected attention: formation energies of flla_2015,"
        f" {counts['train']} crystals to train on, {counts['test']} to test, {seeds} seeds"
    )
    figure, axes = panels(4, heading, width=3.9, height=3.9)
    names = [name for name in ORDER if name in figures["settings"]["decays"]]
    _shapes(axes[0], names)
    _edges(axes[1], names, findings["edges"])
    _differences(axes[2], names, rows, findings["against_gaussian"])
    _cost(axes[3], names, findings)
    save(figure, path)


def color(name: str) -> str:
    """Of a decay, the same in all panels."""
    return COLORS[ORDER.index(name)]


def _shapes(panel: Any, names: list[str]) -> None:
    s = np.linspace(0.0, 6.0, 400)
    for name in names:
        value = DECAYS[name].value(s)
        panel.plot(s[value > 0], value[value > 0], color=color(name), label=name)
    panel.set(xlabel="distance over length, r / l", ylabel="decay", yscale="log", ylim=(1e-5, 1.5))
    panel.set_title("same mean square distance", fontsize=9)
    panel.legend(fontsize=7)


def _edges(panel: Any, names: list[str], edges: list[dict[str, Any]]) -> None:
    for name in names:
        points = [(row["tol"], row["edges_per_atom"]) for row in edges if row["decay"] == name]
        panel.plot(*zip(*points, strict=True), "o-", markersize=4, color=color(name), label=name)
    for row in edges:
        if row["tol"] is None:
            panel.axhline(row["edges_per_atom"], color=color("inverse-power"), linestyle=":", label=row["decay"])
    panel.set(xlabel="tolerated share of the dropped images", ylabel="edges per atom", xscale="log", yscale="log")
    panel.invert_xaxis()
    panel.set_title("images needed, certified", fontsize=9)
    panel.legend(fontsize=7)


def _differences(panel: Any, names: list[str], rows: list[dict[str, Any]], against: list[dict[str, Any]]) -> None:
    base = {row["seed"]: row["test_mae"] for row in rows if row["decay"] == "gaussian"}
    others = [name for name in names if name != "gaussian"]
    for place, name in enumerate(others):
        values = [1000 * (row["test_mae"] - base[row["seed"]]) for row in rows if row["decay"] == name]
        found = next(row for row in against if row["first"]["decay"] == name)
        low, mean, high = (1000 * found[key] for key in ("low", "mean", "high"))
        spread = [[mean - low], [high - mean]]
        panel.errorbar([mean], [place], xerr=spread, fmt="D", capsize=4, markersize=5, color=color(name))
        panel.plot(values, [place + 0.2] * len(values), "o", markersize=3, color=color(name), alpha=0.6)
    panel.axvline(0.0, color="black", linewidth=0.8)
    panel.set_yticks(range(len(others)), others, fontsize=8)
    panel.set(xlabel="error less the Gaussian's of the same seed, meV/atom", ylim=(-0.6, len(others) - 0.3))
    panel.set_title("mean with 95 % interval, seeds above", fontsize=9)


def _cost(panel: Any, names: list[str], findings: dict[str, Any]) -> None:
    times = {row["decay"]: row["milliseconds"] for row in findings["steps"]}
    errors = {row["decay"]: row for row in findings["errors"]}
    for name in names:
        error, spread = errors[name]["mean"], errors[name]["std"] or 0.0
        panel.errorbar(
            [times[name]], [1000 * error], yerr=[1000 * spread], fmt="o", capsize=3, color=color(name), label=name
        )
    panel.axvline(
        times["gaussian, library"], color=color("gaussian"), linestyle=":", label="gaussian, library's kernel"
    )
    panel.set(xlabel="training step, ms of one core", ylabel="test error, meV/atom", xscale="log")
    panel.margins(x=0.15)
    panel.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200, 500]))
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_title("mean and standard deviation of seeds", fontsize=9)
    panel.legend(fontsize=7)
