"""Can attention without value position encoding tell crystals of one element apart?

In theory it cannot: atoms of one element start from the same state, a mean of equal values is that value whatever the
weights, and so every block leaves all atoms alike, in every lattice (tests/experiments/test_monatomic.py shows it to
rounding). Here the consequence is measured: Crystalformer with and without psi, in real space and with half of the
heads in reciprocal space, beside CGCNN, on carbon_24 and on the crystals of one element in flla_2015.

    python benchmarks/experiments/monatomic.py
    python benchmarks/experiments/monatomic.py --quick
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from crystals import bundled_parts, own_parts
from experiment import digits, read_experiment
from figures import COLORS, panels, save
from summary import grouped, over_seeds, paired_difference
from torch import nn
from torch_geometric.data import Data
from trials import Trial, run_trials

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.prediction import predict
from torch_geometric_crystal.benchmark.sources import CrystalParts
from torch_geometric_crystal.datasets import FLLA2015

REFERENCE = "psi"


def main() -> None:
    """Run the experiment."""
    experiment = read_experiment(__file__, __doc__)
    rows = run_trials(make_trials(experiment.settings), experiment.work, experiment.jobs)
    experiment.finish(rows, findings_of(rows, experiment.settings), draw)


def make_trials(settings: dict[str, Any]) -> list[Trial]:
    """A trial for each set, model and seed."""
    return [
        make_trial(settings, data, model, seed)
        for seed in settings["seeds"]
        for data in settings["sets"]
        for model in settings["models"]
    ]


def make_trial(settings: dict[str, Any], data: str, model: str, seed: int) -> Trial:
    """One training run."""
    about = settings["sets"][data]
    recipe = {"preset": "common", "epochs": about["epochs"]}
    val_fraction, test_fraction = settings["fractions"]
    config = RunConfig.from_dict(
        settings["models"][model]
        | {
            "data": data.split()[-1],
            "targets": [about["target"]],
            "recipe": recipe | {name: settings[name] for name in ("batch_size", "averaging_epochs")},
            "device": "cpu",
            "seed": seed,
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
        }
    )
    parts = partial(carbon_parts, about["train_size"], settings["max_atoms"])
    if data.startswith("one-element"):
        parts = partial(one_element_parts, settings["max_atoms"], seed)
    return Trial({"data": data, "model": model, "seed": seed}, config, parts, spread)


def carbon_parts(train_size: int | None, max_atoms: int | None, config: RunConfig) -> CrystalParts:
    """The bundled set's own parts."""
    return bundled_parts(config, train_size, partial(is_small, max_atoms))


def one_element_parts(max_atoms: int | None, seed: int, config: RunConfig) -> CrystalParts:
    """The crystals of one element in flla_2015, cut at random, by the trial's seed since they are few."""
    source = FLLA2015(target=config.targets, log=False)
    chosen = [data for data in source if len(data.z.unique()) == 1 and is_small(max_atoms, data)]
    return own_parts(config, chosen, config.targets[0], "eV/atom", seed)


def is_small(max_atoms: int | None, data: Data) -> bool:
    """Whether a crystal counts."""
    return max_atoms is None or data.num_nodes <= max_atoms


def spread(model: nn.Module, parts: CrystalParts) -> dict[str, Any]:
    """Standard deviations of predictions and targets over crystals of the same element in the test part."""
    test = parts.parts["test"]
    predictions = predict(model, test, device="cpu")
    elements = np.array([int(data.z[0]) for data in test])
    return {
        "test_crystals": len(test),
        "spread": digits(within(predictions.prediction.numpy(), elements), 3),
        "spread_of_targets": digits(within(predictions.target.numpy(), elements), 3),
    }


def within(values: np.ndarray, groups: np.ndarray) -> float:
    """Root mean square distance of the values from the mean of their group."""
    centred = [values[groups == group] - values[groups == group].mean(axis=0) for group in np.unique(groups)]
    return float(np.sqrt(np.square(np.concatenate(centred)).mean()))


def findings_of(rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Errors and spreads over seeds, and each model's difference to the one with psi."""
    by = ["data", "model"]
    differences = [
        paired_difference(
            rows,
            {"data": data, "model": model},
            {"data": data, "model": REFERENCE},
            confidence=settings["confidence"],
        )
        for data in settings["sets"]
        for model in settings["models"]
        if model != REFERENCE
    ]
    return {
        "test_mae": over_seeds(rows, by),
        "mean_predictor": over_seeds(rows, ["data"], "mean_mae"),
        "spread": over_seeds(rows, by, "spread"),
        "spread_of_targets": over_seeds(rows, ["data"], "spread_of_targets"),
        "more_than_psi": differences,
    }


def draw(path: Path, figures: dict[str, Any]) -> None:
    """For each set errors and spreads of the predictions, a dot for each seed, beside the mean predictor."""
    rows, sets, models = figures["rows"], list(figures["settings"]["sets"]), list(figures["settings"]["models"])
    figure, axes = panels(2 * len(sets), "Crystals of one element", width=3.4)
    for number, data in enumerate(sets):
        chosen = [row for row in rows if row["data"] == data]
        columns = (("test_mae", "test MAE (eV/atom)"), ("spread", "spread of predictions (eV/atom)"))
        for panel, (column, label) in zip(axes[2 * number : 2 * number + 2], columns, strict=True):
            values = grouped(chosen, ["model"], column)
            for place, model in enumerate(models):
                seen = values[(model,)]
                panel.plot([place] * len(seen), seen, "o", color=COLORS[place], markersize=4, alpha=0.7)
                panel.plot([place - 0.25, place + 0.25], [sum(seen) / len(seen)] * 2, color=COLORS[place])
            base = "mean_mae" if column == "test_mae" else "spread_of_targets"
            name = "mean predictor" if column == "test_mae" else "spread of targets"
            level = sum(row[base] for row in chosen) / len(chosen)
            panel.axhline(level, color=COLORS[4], linestyle=":", linewidth=1.2, label=name)
            panel.set_xticks(range(len(models)), models, rotation=30, ha="right", fontsize=7.5)
            panel.set(ylabel=label)
            panel.set_ylim(bottom=0)
            panel.set_title(data, fontsize=9)
            panel.legend(fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    main()
