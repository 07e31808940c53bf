"""``tgcrystal benchmark``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.display import TrainingBar, console, show_files
from torch_geometric_crystal.cli.options import help_text, with_recipe_flags

HELP = """Run one official Matbench fold and compare with the published leaderboard.

The official data, folds and scores of the matbench package are used; a tenth of the training part, drawn by --seed,
validates. Only matbench_phonons comes with this package; for other tasks name the folder with their official files.

Examples:

  tgcrystal benchmark matbench --task matbench_phonons --model crystalformer --fold 0

  tgcrystal benchmark matbench --model cgcnn --fold 1 --max-time 10

  tgcrystal benchmark matbench --task matbench_jdft2d --data-folder ~/matbench
"""

benchmarks = typer.Typer(
    name="benchmark",
    help="Run published benchmarks.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@with_recipe_flags
def matbench(
    task: Annotated[str, typer.Option(help="A structure regression task of Matbench v0.1.")] = "matbench_phonons",
    model: Annotated[str, typer.Option("--model", "-m", help="crystalformer, cgcnn or alignn.")] = "crystalformer",
    fold: Annotated[int, typer.Option(min=0, help="Number of the official fold, from 0.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder. Default: runs/<task>-<model>-fold<fold>.")
    ] = None,
    data_folder: Annotated[Path | None, typer.Option(help="Folder with the task's official .json.gz file.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, batches and validation part.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="32, 64 or bf16-mixed.")] = "32",
    max_time: Annotated[float | None, typer.Option(help="Stop after so many minutes of training.")] = None,
    tol: Annotated[
        float | None, typer.Option(help="Crystalformer: share of a softmax row that the graph's cutoff may drop.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Recipe to start from: crystalformer, cgcnn, alignn or common. Default: the model's own."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output.")] = False,
    recipe: dict | None = None,
) -> None:
    """Run one official Matbench fold and compare with the published leaderboard."""
    from torch_geometric_crystal.benchmark.config import RunConfig
    from torch_geometric_crystal.benchmark.tasks import load_task, run_fold

    settings: dict[str, Any] = {
        "model": model, "seed": seed, "device": device, "precision": precision, "max_time": max_time,
        "neighborhood": {} if tol is None else {"tol": tol},
        "recipe": ({} if preset is None else {"preset": preset}) | (recipe or {}),
    }  # fmt: skip
    config = RunConfig.from_dict(settings)
    folder = output or Path("runs") / f"{task}-{model}-fold{fold}"
    if (folder / "last.ckpt").exists() and not resume:
        raise ValueError(f"--output: {folder} holds a run already; add --resume, or choose another folder")
    bar: Any = TrainingBar(model)
    result = run_fold(load_task(task, data_folder), fold, config, folder, [bar], resume)
    if result is None:
        console().print(f"stopped; the same command with --resume --output {folder} continues", style="yellow")
        raise typer.Exit(130)
    console().print(comparison_table([(model, result)]))
    console().print(effort_line([(model, result)]), soft_wrap=True)
    show_files(folder, ["metrics.json", "matbench_fold.json", "predictions.csv", "parity.png", "last.ckpt"])


def comparison_table(results: list[tuple[str, Any]], shown: int | None = None) -> Any:
    """A table of test errors of one fold, the mean predictor and the published entries, best first.

    Args:
        results: name and :class:`~torch_geometric_crystal.benchmark.tasks.FoldResult` of each model, all of one fold.
        shown: at most so many published entries; all if None.
    """
    from rich.table import Table

    from torch_geometric_crystal.benchmark.tasks import leaderboard

    first = results[0][1]
    rows = [
        (r.scores["mae"], f"[bold green]{name}, here", f"[bold green]fold {r.fold}, {_effort(r)}")
        for name, r in results
    ]
    rows.append((first.mean_predictor_mae, "[cyan]mean of the training part", f"[cyan]fold {first.fold}"))
    entries = leaderboard(first.task)
    published = entries if shown is None else entries[:shown] + [e for e in entries[shown:] if "CGCNN" in e.algorithm]
    rows += [(e.mean, e.algorithm, f"published, five folds, ± {e.std:.2f}") for e in published]
    table = Table(title=f"{first.task}, test MAE ({first.unit})", title_justify="left")
    for column, side in (("model", "left"), ("MAE", "right"), ("how", "left")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for error, name, how in sorted(rows):
        table.add_row(name, f"{error:.2f}", how)
    return table


def effort_line(results: list[tuple[str, Any]]) -> str:
    """One line that says how long the training was and what it can be compared with."""
    efforts = "; ".join(f"{name}: {_effort(result)}" for name, result in results)
    return (
        f"Trained here: {efforts}. Published entries are means over five folds after full training (hundreds of "
        "epochs, mostly on GPUs): one fold after a short training says that things work, not how good a model is."
    )


def _effort(result: Any) -> str:
    progress = result.run.fit.progress
    epochs = "1 epoch" if progress.epoch == 1 else f"{progress.epoch} epochs"
    return f"{epochs}, {progress.seconds / 60.0:.1f} min"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    benchmarks.command("matbench", help=help_text(HELP))(matbench)
    app.add_typer(benchmarks)
