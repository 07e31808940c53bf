"""``tgcrystal demo``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.benchmark_table import show_comparison
from torch_geometric_crystal.cli.display import TrainingBar, console
from torch_geometric_crystal.cli.options import help_text

HELP = """Show what the library does in a few minutes on a CPU, without the network.

Trains Crystalformer and CGCNN on fold 0 of the official Matbench phonons task (bundled), compares their test errors
with the mean predictor and the published leaderboard, and predicts CIF files that were not trained on.

Example:

  tgcrystal demo --output demo_output --minutes 5
"""
CRYSTALFORMER_SHARE = 0.8
NUM_EXAMPLES = 3
RECIPES: dict[str, dict[str, Any]] = {
    "crystalformer": {"epochs": 120, "batch_size": 32, "averaging_epochs": 40},
    "cgcnn": {"preset": "common", "epochs": 120, "batch_size": 32, "lr": 1e-3, "averaging_epochs": 40},
}
"""Short trainings: small batches, so that few epochs are many steps, and the last third averaged."""
NEIGHBORHOODS: dict[str, dict[str, Any]] = {"crystalformer": {"tol": 1e-2, "merge_tolerance": 1e-4}, "cgcnn": {}}
"""Graphs: a tolerance of 1 % is faster; what it costs is certified, and shown with the predictions. Merging atoms that
look alike costs nothing."""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything.")] = Path("demo_output"),
    minutes: Annotated[float, typer.Option(min=0.01, help="Training time of both models together.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 0,
) -> None:
    """Show what the library does in a few minutes on a CPU, without the network."""
    from torch_geometric_crystal.benchmark.tasks import load_task
    from torch_geometric_crystal.benchmark.tasks.summary import summarize

    out = console()
    out.rule("Fold 0 of the official Matbench phonons task")
    out.print("Predicting the last peak of the phonon density of states (1/cm) from the crystal: 1,265 structures.")
    task = load_task("matbench_phonons")
    results = []
    for model, share in (("crystalformer", CRYSTALFORMER_SHARE), ("cgcnn", 1.0 - CRYSTALFORMER_SHARE)):
        result = _train(task, model, share * minutes, output / model, seed)
        if result is None:
            out.print("interrupted", style="yellow")
            raise typer.Exit(130)
        results.append(result)
    mean = _baseline(task, "mean", output / "mean", seed)
    show_comparison(summarize([result.record for result in (*results, mean)])[0], shown=9)
    _predict_examples(task, results[0], output)
    for model in RECIPES:
        out.print(f"{model}: {output / model / 'parity.png'}, {output / model / 'predictions.csv'}", style="dim")
    out.print(
        "Try next: [bold]tgcrystal train --data flla_2015 --output runs/flla[/bold], or your own crystals: "
        f"[bold]tgcrystal predict --checkpoint {output / 'crystalformer'} my_cifs/[/bold]",
        soft_wrap=True,
    )


def _train(task: Any, model: str, minutes: float, folder: Path, seed: int) -> Any:
    from torch_geometric_crystal.benchmark.config import RunConfig
    from torch_geometric_crystal.benchmark.tasks import run_fold

    config = RunConfig.from_dict(
        {
            "model": model,
            "seed": seed,
            "device": "cpu",
            "max_time": minutes,
            "neighborhood": NEIGHBORHOODS[model],
            "recipe": RECIPES[model],
        }
    )
    bar: Any = TrainingBar(model, {task.target: task.unit})
    return run_fold(task, 0, config, folder, [bar])


def _baseline(task: Any, name: str, folder: Path, seed: int) -> Any:
    from torch_geometric_crystal.benchmark.config import RunConfig
    from torch_geometric_crystal.benchmark.tasks import run_fold

    return run_fold(task, 0, RunConfig(model=name, seed=seed), folder)


def _predict_examples(task: Any, result: Any, output: Path) -> None:
    """Write test structures as CIF files, and predict them through the same door as a user's files."""
    from torch_geometric_crystal.benchmark.objectives import make_objective
    from torch_geometric_crystal.benchmark.prediction import predict_files
    from torch_geometric_crystal.benchmark.recording import write_table
    from torch_geometric_crystal.cli.predict import prediction_row
    from torch_geometric_crystal.data import to_structure

    folder = output / "not_trained_on"
    folder.mkdir(parents=True, exist_ok=True)
    names = list(result.record.predictions)[:NUM_EXAMPLES]
    entries = {entry.structure_id: entry for entry in task.entries() if entry.structure_id in names}
    structures = {name: to_structure(entries[name].load()) for name in names}
    for name in names:
        structures[name].to(filename=str(folder / f"{name}.cif"))
    rows = predict_files(result.run.model, [folder / f"{name}.cif" for name in names], device="cpu")
    objective = make_objective(result.run.model.card)
    write_table(output / "predictions.csv", [prediction_row(row, objective) for row in rows])
    out = console()
    out.rule("CIF files that it was not trained on")
    for row in rows:
        formula = structures[row.structure_id].composition.reduced_formula
        truth = entries[row.structure_id].targets[0]
        out.print(
            f"{row.path} ({formula}): predicted {row.values[0]:.0f} 1/cm, DFT {truth:.0f} 1/cm; "
            f"certified truncation bound {row.truncation_bound:.1e}",
            soft_wrap=True,
        )


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo", help=help_text(HELP))(demo)
