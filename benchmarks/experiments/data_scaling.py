"""Does Crystalformer scale with data, beside CGCNN, ALIGNN, and models that know no structure? And with its width?

Learning curves: the same number of optimiser steps on training sets of growing size, which hold each other, drawn anew
for each seed; fitted to error = factor * size^-exponent. Then, at one size, models of other widths.

    python benchmarks/experiments/data_scaling.py
    python benchmarks/experiments/data_scaling.py --quick
    python benchmarks/experiments/data_scaling.py --settings my.yaml     with the path of a compact store under `data`
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from crystals import bundled_parts
from experiment import Experiment, digits, read_experiment
from figure_of_data_scaling import draw
from summary import over_seeds, paired_difference, power_law
from torch_geometric.data import Data
from trials import Trial, run_trials

from torch_geometric_crystal.benchmark.baselines.composition import predict_from_composition
from torch_geometric_crystal.benchmark.baselines.features import composition_features
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.sources import CrystalParts, load_parts
from torch_geometric_crystal.datasets.source import Entry

REFERENCE = "crystalformer"  # also a name in the settings
DEFAULT_CHANNELS = 64  # of CGCNN


def main() -> None:
    """Run the experiment."""
    experiment = read_experiment(__file__, __doc__)
    rows = run_trials(make_trials(experiment.settings), experiment.work, experiment.jobs)
    rows += list(baseline_rows(experiment))
    experiment.finish(rows, findings_of(rows, experiment.settings), draw)


def make_trials(settings: dict[str, Any]) -> list[Trial]:
    """A trial for each set, size, model and seed, then those of other widths."""
    trials = []
    for seed in settings["seeds"]:
        for data, about in settings["data"].items():
            for model, chosen in settings["models"].items():
                if data in chosen.get("only_data", [data]):
                    sizes = [size for size in about["sizes"] if size in chosen.get("only_sizes", [size])]
                    trials += [make_trial(settings, data, model, size, chosen["model_options"], seed) for size in sizes]
        widths = settings["widths"]
        for model, channels in widths["channels"].items():
            for width in channels:
                options = settings["models"][model]["model_options"] | {"channels": width}
                trials.append(make_trial(settings, widths["data"], model, widths["size"], options, seed))
    return trials


def make_trial(settings: dict[str, Any], data: str, name: str, size: int, options: dict[str, Any], seed: int) -> Trial:
    """One training run of so many steps, of a model by its name in the settings."""
    epochs = max(1, round(settings["steps"] / math.ceil(size / settings["batch_size"])))
    recipe = {"preset": "common", "epochs": epochs, "batch_size": settings["batch_size"]}
    config = RunConfig.from_dict(
        {
            "data": data,
            "targets": [settings["data"][data]["target"]],
            "model": settings["models"][name].get("model", name),
            "model_options": options,
            "recipe": recipe | {"averaging_epochs": max(1, round(settings["averaging_share"] * epochs))},
            "device": "cpu",
            "seed": seed,
        }
    )
    labels = {
        "data": data,
        "model": name,
        "size": size,
        "channels": options.get("channels", DEFAULT_CHANNELS),
        "seed": seed,
    }
    return Trial(labels, config, partial(parts_of, settings, size, seed))


def parts_of(settings: dict[str, Any], size: int, seed: int, config: RunConfig) -> CrystalParts:
    """So many crystals to train on, drawn by the seed."""
    keep = partial(is_small, settings["max_atoms"])
    return bundled_parts(config, size, keep, order_seed=seed, first=settings["first"])


def is_small(max_atoms: int | None, data: Any) -> bool:
    """Whether a crystal counts."""
    return max_atoms is None or data.num_nodes <= max_atoms


def baseline_rows(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Errors of gradient boosting on the composition, and of the training part's mean, on the same crystals."""
    settings = experiment.settings
    for data, about in settings["data"].items():
        features = features_by_name(data, about["target"])
        for seed in settings["seeds"]:
            for size in about["sizes"]:
                config = make_trial(settings, data, REFERENCE, size, {}, seed).config
                parts = parts_of(settings, size, seed, config).parts
                train, test = (np.stack([features[d.structure_id] for d in parts[part]]) for part in ("train", "test"))
                known, wanted = (torch.cat([d.y for d in parts[part]])[:, 0].numpy() for part in ("train", "test"))
                predicted = predict_from_composition(train, known, test, seed=seed)
                for model, guess in (("composition", predicted), ("mean", known.mean())):
                    error = digits(float(np.abs(guess - wanted).mean()), 5)
                    yield {"data": data, "model": model, "size": size, "seed": seed, "test_mae": error}


def features_by_name(data: str, target: str) -> dict[str, np.ndarray]:
    """Features of the composition of each crystal of a set."""
    crystals = [crystal for members in load_parts(data, [target], None).parts.values() for crystal in members]
    entries = [Entry(crystal.structure_id, None, atoms_alone, crystal.z) for crystal in crystals]
    return {entry.structure_id: row for entry, row in zip(entries, composition_features(entries), strict=True)}


def atoms_alone(numbers: torch.Tensor, structure_id: str, dtype: torch.dtype) -> Data:
    """A crystal of which only the atomic numbers count."""
    return Data(z=numbers)


def findings_of(rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Errors over seeds, exponents with intervals, the best model at each size, and widths."""
    curves = [row for row in rows if is_of_curve(row, settings)]
    by = ["data", "model", "size"]
    means = over_seeds(curves, by)
    best = {}
    for entry in means:
        place = f"{entry['data']}, {entry['size']}"
        best[place] = min(best.get(place, entry), entry, key=lambda e: e["mean"])
    differences = [
        paired_difference(
            curves,
            {"data": entry["data"], "size": entry["size"], "model": REFERENCE},
            {"data": entry["data"], "size": entry["size"], "model": entry["model"]},
            confidence=settings["confidence"],
        )
        for entry in means
        if entry["model"] not in (REFERENCE, "mean")
    ]
    about = settings["widths"]
    wide = [row for row in rows if (row["data"], row["size"]) == (about["data"], about["size"]) and "channels" in row]
    wide = [row for row in wide if row["model"] in about["channels"]]
    return {
        "test_mae": means,
        "exponents": exponents_of(curves),
        "exponents_without_largest": exponents_of(curves, leave_out=1),
        "best": {place: entry["model"] for place, entry in best.items()},
        "crystalformer_less_others": differences,
        "widths": over_seeds(wide, ["model", "channels", "parameters"]),
    }


def exponents_of(curves: list[dict[str, Any]], leave_out: int = 0) -> list[dict[str, Any]]:
    """The power law of each set and model with at least three sizes; `leave_out`: so many of a set's largest sizes."""
    exponents = []
    for data, model in dict.fromkeys((row["data"], row["model"]) for row in curves):
        of_set = sorted({row["size"] for row in curves if row["data"] == data})
        sizes = of_set[: len(of_set) - leave_out]
        chosen = [row for row in curves if (row["data"], row["model"]) == (data, model) and row["size"] in sizes]
        if len({row["size"] for row in chosen}) > 2:
            fit = power_law([row["size"] for row in chosen], [row["test_mae"] for row in chosen])
            exponents.append({"data": data, "model": model} | fit)
    return exponents


def is_of_curve(row: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a row belongs to a learning curve: its model has the width of the settings."""
    if "channels" not in row:
        return True
    return row["channels"] == settings["models"][row["model"]]["model_options"].get("channels", DEFAULT_CHANNELS)


if __name__ == "__main__":
    main()
