"""Does another distance decay than the Gaussian serve Crystalformer better?

Gaussian, exponential, Yukawa-like, inverse power with an exact rest, compactly supported, and a mixture of Gaussians
that each head learns: all scaled to the Gaussian's mean square distance, with the same weights otherwise, and the same
certified tolerance. Small models learn formation energies with each, for the same epochs and seeds; measured are the
error, the images needed at a tolerance, and the time of a training step.

    python benchmarks/experiments/decays.py
"""

from functools import partial
from typing import Any

from decays_cost import edges_needed, step_times
from decays_crystals import small_parts
from decays_figure import draw
from decays_model import DecayCrystalformer
from experiment import Experiment, digits, read_experiment
from summary import over_seeds, paired_difference
from torch import nn
from trials import Trial, run_trials

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.sources import CrystalParts


def main() -> None:
    """Run the experiment."""
    experiment = read_experiment(__file__, __doc__)
    settings = experiment.settings
    rows = run_trials(trials(settings), experiment.work, experiment.jobs)
    experiment.finish(rows, findings(experiment, rows), draw)


def trials(settings: dict[str, Any]) -> list[Trial]:
    """A training run for each seed and decay."""
    return [
        Trial({"decay": decay, "seed": seed}, configuration(settings, decay, seed), parts_of(settings), widths)
        for seed in settings["seeds"]
        for decay in settings["decays"]
    ]


def configuration(settings: dict[str, Any], decay: str, seed: int = 0) -> RunConfig:
    """Settings of a training run."""
    return RunConfig.from_dict(
        {
            "data": settings["data"],
            "targets": [settings["target"]],
            "model": "decay-crystalformer",
            "model_options": settings["model"] | {"decay": decay},
            "neighborhood": {"tol": settings["tol"]},
            "recipe": settings["recipe"],
            "seed": seed,
            "device": "cpu",
        }
    )


def parts_of(settings: dict[str, Any]) -> partial:
    """What makes the crystals."""
    return partial(small_parts, most_atoms=settings["most_atoms"], train_size=settings["train_size"])


def widths(model: nn.Module, parts: CrystalParts) -> dict[str, Any]:
    """The widths of a learned mixture over the longest permitted, by head of the last block."""
    shape = model.blocks[-1].attention.shape if isinstance(model, DecayCrystalformer) else None  # type: ignore[union-attr]
    if shape is None:
        return {}
    ordered = shape[1].sigmoid().sort(-1).values  # type: ignore[index]
    return {"mixture_widths": [[digits(float(width), 3) for width in head] for head in ordered]}


def findings(experiment: Experiment, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors, their differences from the Gaussian's, edges and times."""
    settings = experiment.settings
    others = [decay for decay in settings["decays"] if decay != "gaussian"]
    parts = parts_of(settings)(configuration(settings, "gaussian")).parts
    return {
        "errors": over_seeds(rows, ["decay"]),
        "against_gaussian": [paired_difference(rows, {"decay": decay}, {"decay": "gaussian"}) for decay in others],
        "edges": edges_needed(settings, parts["test"]),
        "steps": step_times(settings, parts["train"]),
        "crystals": {part: len(members) for part, members in parts.items()},
    }


if __name__ == "__main__":
    main()
