"""The picture of the data scaling experiment."""

from pathlib import Path
from typing import Any

from figures import COLORS, panels, save
from summary import grouped

NAMES = {
    "crystalformer": "Crystalformer",
    "crystalformer-elements": "Crystalformer, elements' properties",
    "cgcnn": "CGCNN",
    "alignn": "ALIGNN, small",
}


def draw(path: Path, figures: dict[str, Any]) -> None:
    """A learning curve for each set and model, and error against parameters; dots are seeds, lines means."""
    sets = list(figures["settings"]["data"])
    steps = figures["settings"]["steps"]
    figure, axes = panels(len(sets) + 1, f"Learning curves, {steps} steps of the optimiser each; errors by width")
    models = list(dict.fromkeys(row["model"] for row in figures["rows"]))
    colors = dict(zip(models, COLORS, strict=False))
    exponents = {(e["data"], e["model"]): e for e in figures["findings"]["exponents"]}
    main = {entry["model"]: entry for entry in figures["findings"]["test_mae"]}
    for panel, data in zip(axes, sets, strict=False):
        for model in main:
            rows = [row for row in figures["rows"] if (row["data"], row["model"]) == (data, model)]
            rows = [row for row in rows if row.get("channels") in (None, _width(figures, model))]
            if not rows:
                continue
            fit = exponents.get((data, model))
            label = NAMES.get(model, model)
            label += f": {fit['exponent']:.2f} ({fit['low']:.2f} to {fit['high']:.2f})" if fit else ""
            _curve(panel, grouped(rows, ["size"], "test_mae"), colors[model], label)
        unit = "eV/atom"
        panel.set(xlabel="crystals to train on", ylabel=f"test MAE ({unit})", xscale="log", yscale="log")
        panel.set_title(Path(data).stem, fontsize=9)
        panel.legend(fontsize=6, title="model: exponent (95 %)", title_fontsize=6, loc="lower left")
        panel.set_ylim(bottom=min(panel.get_ylim()[0], 0.03))
    widths, about = axes[-1], figures["settings"]["widths"]
    for model in about["channels"]:
        rows = [row for row in figures["rows"] if (row["data"], row["model"]) == (about["data"], model)]
        rows = [row for row in rows if row["size"] == about["size"]]
        _curve(widths, grouped(rows, ["parameters"], "test_mae"), colors[model], NAMES.get(model, model))
    widths.set(xlabel="parameters", ylabel="test MAE (eV/atom)", xscale="log", yscale="log")
    widths.set_title(f"{Path(about['data']).stem}, {about['size']} crystals", fontsize=9)
    widths.legend(fontsize=6.5)
    save(figure, path)


def _width(figures: dict[str, Any], model: str) -> int | None:
    """Channels of the model of the learning curves."""
    chosen = figures["settings"]["models"].get(model)
    return None if chosen is None else chosen["model_options"].get("channels", 64)


def _curve(panel: Any, values: dict[tuple, list[float]], color: str, label: str) -> None:
    """A line through the means, with a dot for each value."""
    places = sorted(place for (place,) in values)
    panel.plot(places, [sum(values[(p,)]) / len(values[(p,)]) for p in places], "-", color=color, label=label)
    for place in places:
        panel.plot([place] * len(values[(place,)]), values[(place,)], "o", color=color, markersize=3, alpha=0.6)
