"""Training runs that differ by their seed: errors with their spread, and all learning curves in one picture.

The runs are folders of ``tgcrystal train``. Everything but the seed must be the same. ``results/NAME.json`` gets the
settings, each run's errors, time and history, ``results/NAME.png`` the curves and ``results/NAME_parity.png`` the first
run's predictions of the test part.

    for seed in 0 1 2; do
        tgcrystal train --data flla_2015 --target formation_energy_per_atom --epochs 290 --seed $seed \\
            --output runs/flla_2015-seed$seed
    done
    python benchmarks/training_runs.py runs/flla_2015-seed? --name flla_2015
"""

import argparse
import csv
import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import yaml
from command_line import digits, show
from figures import COLORS, panels, save
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from provenance import RESULTS, record


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--name", required=True, help="of the files in results/")
    parser.add_argument("--output", type=Path, help="JSON file (default: results/NAME.json), the figures beside it")
    options = parser.parse_args()
    try:
        settings = common_settings(options.runs)
        runs = [read_run(folder) for folder in options.runs]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    rows = [{name: value for name, value in run.items() if name != "history"} for run in runs]
    show(rows)
    spread = {name: summary([row[name] for row in rows]) for name in rows[0] if name.startswith("test_mae_")}
    show([{"errors": name, **values} for name, values in spread.items()])
    output = options.output or RESULTS / f"{options.name}.json"
    print(record(options.name, {"settings": settings, "summary": spread, "runs": runs}, output))
    _draw(runs, settings, output.with_suffix(".png"))
    shutil.copyfile(options.runs[0] / "parity.png", output.with_name(f"{output.stem}_parity.png"))


def common_settings(folders: list[Path]) -> dict[str, Any]:
    """The configuration that all runs have, without the seed.

    Raises:
        ValueError: if they differ in anything else.
    """
    found = [yaml.safe_load((folder / "config.yaml").read_text()) | {"seed": None} for folder in folders]
    for folder, settings in zip(folders, found, strict=True):
        if settings != found[0]:
            raise ValueError(f"{folder}: its config.yaml differs from that of {folders[0]} in more than the seed")
    return {name: value for name, value in found[0].items() if name != "seed"}


def read_run(folder: Path) -> dict[str, Any]:
    """Seed, epochs, minutes, errors in the test part by which weights made them, and the history.

    Raises:
        ValueError: for a run of several targets or of a classification.
    """
    metrics = json.loads((folder / "metrics.json").read_text())
    errors = {name: list(found["targets"].values()) for name, found in metrics["test"].items()}
    if any(len(targets) != 1 or "mae" not in targets[0] for targets in errors.values()):
        raise ValueError(f"{folder}: expected a run with one target that is a number")
    with (folder / "history.csv").open() as file:
        history = [
            {name: digits(float(value), 5) for name, value in row.items() if name != "epoch"}
            for row in csv.DictReader(file)
        ]
    training = metrics["training"]
    run = {"seed": metrics["seed"], "epochs": training["epochs"], "minutes": digits(training["seconds"] / 60, 3)}
    run["unit"] = errors[metrics["reported_weights"]][0].get("unit", "")
    run |= {f"test_mae_{name}": digits(targets[0]["mae"], 5) for name, targets in errors.items()}
    return run | {"history": {name: [row[name] for row in history] for name in history[0]}}


def summary(values: list[float]) -> dict[str, float | None]:
    """Mean, standard deviation (of several), smallest and largest."""
    deviation = digits(statistics.stdev(values), 3) if len(values) > 1 else None
    return {"mean": digits(statistics.fmean(values), 4), "std": deviation, "min": min(values), "max": max(values)}


def _draw(runs: list[dict[str, Any]], settings: dict[str, Any], path: Path) -> None:
    figure, (panel,) = panels(1, f"{settings['model']} on {settings['data']}, {settings['targets'][0]}", width=7)
    for run, color in zip(runs, COLORS * len(runs), strict=False):
        history = run["history"]
        validation = next(values for name, values in history.items() if name.startswith("val_"))
        epochs = range(1, len(validation) + 1)
        panel.plot(epochs, validation, color=color, linewidth=0.9, label=f"validation, seed {run['seed']}")
        panel.plot(epochs, history["train_loss"], color=color, linewidth=0.9, linestyle=":")
        for name, marker in (("test_mae_averaged", "*"), ("test_mae_best", "v")):
            panel.plot(run["epochs"] * 1.03, run.get(name, math.nan), marker, color=color, markersize=6)
    for label, style in (("training loss, in standard deviations", ":"), ("test, averaged", "*"), ("test, best", "v")):
        panel.plot([], [], style, color="#4a5568", label=label)
    unit = runs[0]["unit"]
    panel.set(xlabel="epoch", ylabel=f"mean absolute error{f', {unit}' if unit else ''}", yscale="log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
