"""Does the infinite sum matter, and how much of it must be summed?

Models are trained with sums cut at 3 to 12 A and with the library's default tolerance, and each is evaluated with every
cutoff and with the converged sum. Then, for the models of the default tolerance: error and change of the output against
the tolerance, and for a sum over two unit cells each way, the default of the authors' code, in small and skewed cells.

    python benchmarks/experiments/truncation.py
    python benchmarks/experiments/truncation.py --quick
"""

import statistics
from functools import partial
from typing import Any

from crystals import bundled_parts
from experiment import digits, read_experiment
from figure_of_truncation import draw
from summary import over_seeds, paired_difference
from torch import nn
from trials import Trial, run_trials
from truncation_measures import at_cutoffs, at_tolerances, at_unit_cells

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.sources import CrystalParts

DEFAULT = "default"


def main() -> None:
    """Run the experiment."""
    experiment = read_experiment(__file__, __doc__)
    rows = run_trials(make_trials(experiment.settings), experiment.work, experiment.jobs)
    experiment.finish(rows, findings_of(rows, experiment.settings), draw)


def make_trials(settings: dict[str, Any]) -> list[Trial]:
    """A trial for each cutoff, and one with the default tolerance, for each seed."""
    ways = [*settings["cutoffs"], DEFAULT]
    return [make_trial(settings, cutoff, seed) for seed in settings["seeds"] for cutoff in ways]


def make_trial(settings: dict[str, Any], cutoff: float | str, seed: int) -> Trial:
    """One training run."""
    config = RunConfig.from_dict(
        {
            "data": settings["data"],
            "targets": [settings["target"]],
            "model_options": settings["model_options"],
            "neighborhood": {} if cutoff == DEFAULT else {"cutoff": cutoff},
            "recipe": {name: settings[name] for name in ("epochs", "batch_size", "averaging_epochs")},
            "device": "cpu",
            "seed": seed,
        }
    )
    parts = partial(bundled_parts, train_size=settings["train_size"], keep=partial(is_small, settings["max_atoms"]))
    return Trial({"trained_at": cutoff, "seed": seed}, config, parts, partial(measure, settings, cutoff))


def is_small(max_atoms: int | None, data: Any) -> bool:
    """Whether a crystal counts."""
    return max_atoms is None or data.num_nodes <= max_atoms


def measure(settings: dict[str, Any], cutoff: float | str, model: nn.Module, parts: CrystalParts) -> dict[str, Any]:
    """Errors at all cutoffs; for the default tolerance also what tolerances and unit cells change."""
    test = parts.parts["test"]
    columns = at_cutoffs(model, test, settings["cutoffs"], settings["exact"])
    if cutoff == DEFAULT:
        some = test[: settings["measured"]]
        columns["tolerances"] = at_tolerances(model, some, settings["tolerances"], settings["exact"])
        columns["unit_cells"] = at_unit_cells(model, some, settings["unit_cells"], settings["skews"], settings["exact"])
    return columns


def findings_of(rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Errors and their differences to the default tolerance; what tolerances and unit cells change, over seeds."""
    reference = {"trained_at": DEFAULT}
    differences = [
        paired_difference(rows, {"trained_at": cutoff}, reference, confidence=settings["confidence"])
        for cutoff in settings["cutoffs"]
    ]
    moved = [
        {"trained_at": cutoff, "seed": row["seed"], "added": row["mae_at_exact"] - row["test_mae"]}
        for cutoff in settings["cutoffs"]
        for row in rows
        if row["trained_at"] == cutoff
    ]
    defaults = [row for row in rows if row["trained_at"] == DEFAULT]
    return {
        "test_mae": over_seeds(rows, ["trained_at"]),
        "more_than_default": differences,
        "added_by_the_exact_sum": over_seeds(moved, ["trained_at"], "added"),
        "tolerances": [across(defaults, "tolerances", k, "tol") for k in range(len(settings["tolerances"]) + 1)],
        "unit_cells": [across(defaults, "unit_cells", k, "skew") for k in range(len(settings["skews"]))],
    }


def across(rows: list[dict[str, Any]], column: str, position: int, key: str) -> dict[str, Any]:
    """One entry of a column of lists over the trials: means, and the largest of the largest changes."""
    entries = [row[column][position] for row in rows]
    found = {key: entries[0][key], "edges": entries[0]["edges"]}
    found["mae"] = digits(statistics.fmean(entry["mae"] for entry in entries), 6)
    if "mean_change" in entries[0]:
        found["mean_change"] = digits(statistics.fmean(entry["mean_change"] for entry in entries), 3)
        found["largest_change"] = max(entry["largest_change"] for entry in entries)
    return found


if __name__ == "__main__":
    main()
