"""What does the attention of trained Crystalformers look at?

The weights of each block and head on test crystals of flla_2015: against distance, on the neighbours that pymatgen's
CrystalNN finds, between elements, and the learned widths; beside two controls, the weights that the same widths give if
all q.k are equal, and the same model before training. Everything measured comes from torch_geometric_crystal.explain.

    python benchmarks/experiments/attention_maps.py --checkpoints runs/seed0 runs/seed1 runs/seed2

looks at trained models: run folders of

    tgcrystal train --data flla_2015 --target formation_energy_per_atom --seed SEED --output runs/seedSEED

(the default model and recipe, one for each seed 0, 1, 2). Without --checkpoints the script trains smaller models
itself, as attention_maps.yaml says.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from crystals import bundled_parts
from experiment import Experiment, read_experiment
from figure_of_attention import draw
from findings_of_attention import Measured, findings_of, head_table, measure
from torch import nn
from trials import Trial, run_trials

from torch_geometric_crystal.benchmark import RunConfig, load_model, read_config
from torch_geometric_crystal.benchmark.checkpoint import build_model
from torch_geometric_crystal.explain import Bonds


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--checkpoints", nargs="+", type=Path, metavar="DIR")
    options, others = parser.parse_known_args()
    experiment = read_experiment(__file__, __doc__, others)
    folders = options.checkpoints or train(experiment)
    crystals = test_crystals(experiment.settings)
    measured: list[Measured] = []
    bonds: dict[str, list[Bonds]] = {}
    for folder in folders:
        labels, trained, initial = models_of(folder)
        for weights, model in (("initial", initial), ("trained", trained)):
            measured.append(measure({"weights": weights} | labels, model, crystals, experiment.settings, bonds))
    experiment.finish(head_table(measured), findings_of(measured, experiment.settings), draw)


def train(experiment: Experiment) -> list[Path]:
    """Train a model for each seed; the folders of the runs."""
    settings = experiment.settings
    parts = partial(bundled_parts, train_size=settings["train_size"], keep=partial(is_small, settings["max_atoms"]))
    trials = [Trial({"seed": seed}, config_of(settings, seed), parts) for seed in settings["seeds"]]
    run_trials(trials, experiment.work, experiment.jobs)
    return [experiment.work / trial.name for trial in trials]


def config_of(settings: dict[str, Any], seed: int) -> RunConfig:
    """The configuration of a model that the script trains itself."""
    return RunConfig.from_dict(
        {
            "data": settings["data"],
            "targets": [settings["target"]],
            "model_options": settings["model_options"],
            "neighborhood": settings["neighborhood"],
            "recipe": {"epochs": settings["epochs"], "averaging_epochs": settings["averaging_epochs"]},
            "device": "cpu",
            "seed": seed,
        }
    )


def is_small(max_atoms: int | None, data: Any) -> bool:
    """Whether a crystal is looked at."""
    return max_atoms is None or data.num_nodes <= max_atoms


def test_crystals(settings: dict[str, Any]) -> list[Any]:
    """The first crystals of the test part."""
    parts = bundled_parts(config_of(settings, 0), keep=partial(is_small, settings["max_atoms"])).parts
    return parts["test"][: settings["crystals"]]


def models_of(folder: Path) -> tuple[dict[str, Any], nn.Module, nn.Module]:
    """Seed and errors of a run, its model, and the same model before training."""
    config = read_config(folder / "config.yaml")
    metrics = json.loads((folder / "metrics.json").read_text())
    (target,) = metrics["test"][metrics["reported_weights"]]["targets"].values()
    labels = {"seed": config["seed"], "epochs": metrics["training"]["epochs"], "test_mae": round(target["mae"], 5)}
    torch.manual_seed(config["seed"])
    trained = load_model(folder)
    initial = build_model(trained.card.model, trained.card.model_options).eval()
    initial.card = trained.card
    return labels, trained, initial


if __name__ == "__main__":
    main()
