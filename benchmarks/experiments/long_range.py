"""Does attention in reciprocal space help where interactions are long-ranged?

The targets are energies per atom whose range is known exactly: point charges with screened Coulomb interaction, from a
screening length of 1 A to the plain interaction (Ewald), on ionic crystals of the bundled sets, as they are, distorted,
and as distorted supercells. Crystalformer in real space, in reciprocal space, and in both, with the same number of
parameters; besides, with value position encoding, which costs parameters.

    python benchmarks/experiments/long_range.py
    python benchmarks/experiments/long_range.py --quick
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

from crystals import own_parts
from experiment import digits, read_experiment
from figures import COLORS, panels, save
from ionic_crystals import ionic_crystals
from summary import grouped, over_seeds, paired_difference
from torch import nn
from trials import Trial, run_trials

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.prediction import predict
from torch_geometric_crystal.benchmark.sources import CrystalParts

REFERENCE = "real"


def main() -> None:
    """Run the experiment."""
    experiment = read_experiment(__file__, __doc__)
    rows = run_trials(make_trials(experiment.settings), experiment.work, experiment.jobs)
    experiment.finish(rows, findings_of(rows, experiment.settings), draw)


def models_of(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Constructor arguments of each model by its name."""
    plain = {name: {"domain": name, "num_basis": 0} for name in settings["domains"]}
    psi = {f"{name}, psi": {"domain": name, "num_basis": settings["num_basis"]} for name in settings["with_psi"]}
    return {name: settings["model_options"] | own for name, own in (plain | psi).items()}


def make_trials(settings: dict[str, Any]) -> list[Trial]:
    """A trial for each range, model and seed."""
    models = models_of(settings)
    return [
        make_trial(settings, float(length), name, models[name], seed)
        for seed in settings["seeds"]
        for length in settings["screening_lengths"]
        for name in models
    ]


def make_trial(settings: dict[str, Any], length: float, model: str, options: dict[str, Any], seed: int) -> Trial:
    """One training run."""
    val_fraction, test_fraction = settings["fractions"]
    config = RunConfig.from_dict(
        {
            "data": f"screening {length:g}",
            "targets": ["energy_per_atom"],
            "model_options": options,
            "recipe": {name: settings[name] for name in ("epochs", "batch_size", "averaging_epochs")},
            "device": "cpu",
            "seed": seed,
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
        }
    )
    labels = {"range": "infinite" if length == float("inf") else length, "model": model, "seed": seed}
    return Trial(labels, config, partial(ionic_parts, settings, length), partial(measure, settings["sizes"]))


def ionic_parts(settings: dict[str, Any], length: float, config: RunConfig) -> CrystalParts:
    """The ionic crystals, cut the same way in all trials; the copies of one crystal in one part."""
    crystals, origins = ionic_crystals(
        settings["number"], settings["max_atoms"], settings["displacement"], settings["strain"], length
    )
    copies = [data.clone() for data in crystals]
    return own_parts(config, copies, config.targets[0], "eV/atom", group=origins)


def measure(sizes: list[int], model: nn.Module, parts: CrystalParts) -> dict[str, Any]:
    """Errors in the test part by class of cells."""
    test = parts.parts["test"]
    predictions = predict(model, test, device="cpu")
    errors = (predictions.prediction - predictions.target).abs()[:, 0].tolist()
    classes = [sum(data.num_nodes > bound for bound in sizes) for data in test]
    columns = {}
    for number in range(len(sizes) + 1):
        chosen = [error for error, found in zip(errors, classes, strict=True) if found == number]
        columns[f"mae_{number}"] = digits(sum(chosen) / len(chosen)) if chosen else None
        columns[f"crystals_{number}"] = len(chosen)
    return columns


def findings_of(rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Errors over seeds, by class of cells too, and each model's difference to the one in real space."""
    by = ["range", "model"]
    ranges = list(dict.fromkeys(row["range"] for row in rows))
    names = list(models_of(settings))
    differences = [
        paired_difference(
            rows,
            {"range": length, "model": name},
            {"range": length, "model": REFERENCE},
            confidence=settings["confidence"],
        )
        for length in ranges
        for name in names
        if name != REFERENCE
    ]
    return {
        "test_mae": over_seeds(rows, by),
        "mean_predictor": over_seeds(rows, ["range"], "mean_mae"),
        "minutes": over_seeds(rows, ["model"], "minutes"),
        "parameters": over_seeds(rows, ["model"], "parameters"),
        "more_than_real": differences,
        "by_size": {number: over_seeds(rows, by, f"mae_{number}") for number in range(len(settings["sizes"]) + 1)},
    }


def draw(path: Path, figures: dict[str, Any]) -> None:
    """Errors over the range, and over the size of the cell at the longest range; dots are seeds."""
    rows, settings = figures["rows"], figures["settings"]
    shares = [row | {"share": row["test_mae"] / row["mean_mae"]} for row in rows]
    ranges = list(dict.fromkeys(row["range"] for row in rows))
    bounds = settings["sizes"]
    classes = [f"up to {bounds[0]}"] + [f"{a + 1} to {b}" for a, b in itertools.pairwise(bounds)]
    classes += [f"over {bounds[-1]}"]
    figure, (by_range, by_size) = panels(
        2, "Energies of point charges per atom, Crystalformer in both spaces", width=5.4
    )
    for number, model in enumerate(dict.fromkeys(row["model"] for row in rows)):
        chosen = [row for row in shares if row["model"] == model]
        spread = grouped(chosen, ["range"], "share")
        series(by_range, [spread[(length,)] for length in ranges], COLORS[number], model)
        longest = [row for row in chosen if row["range"] == ranges[-1]]
        seen = [[row[f"mae_{k}"] for row in longest if row[f"mae_{k}"] is not None] for k in range(len(classes))]
        series(by_size, seen, COLORS[number], model)
    by_range.set_xticks(range(len(ranges)), [str(length) for length in ranges])
    by_range.set(xlabel="screening length (A)", ylabel="test MAE / that of the mean predictor", yscale="log")
    by_size.set_xticks(range(len(classes)), classes)
    by_size.set(xlabel=f"atoms in the cell, screening length {ranges[-1]}", ylabel="test MAE (eV/atom)", yscale="log")
    by_range.legend(fontsize=7)
    save(figure, path)


def series(panel: Any, values: list[list[float]], color: str, label: str) -> None:
    """A line through the means, with a dot for each value."""
    places = [place for place, seen in enumerate(values) if seen]
    panel.plot(places, [sum(values[p]) / len(values[p]) for p in places], "-", color=color, label=label)
    for place in places:
        panel.plot([place] * len(values[place]), values[place], "o", color=color, markersize=3.5, alpha=0.6)


if __name__ == "__main__":
    main()
