"""``tgcrystal evaluate``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.display import console, error_table, show_files, show_truncation
from torch_geometric_crystal.cli.options import (
    DATA_HELP,
    BatchBy,
    BatchSize,
    Checkpoint,
    Device,
    Devices,
    SplitSeed,
    TestShare,
    ValShare,
    Weights,
    help_text,
    one_checkpoint,
)

HELP = """Compute a trained model's errors on crystals with known targets.

Writes metrics.json, predictions.csv and parity.png (of a classification confusion.png and roc.png), and states the
certified bound on the share of any softmax row that the graphs' cutoff dropped. Data without a split of its own is cut
as the training cut it; if it has become another, give its new crystals alone, with --split all.

Examples:

  tgcrystal evaluate --checkpoint runs/flla --data flla_2015 --split test --output runs/flla/test

  tgcrystal evaluate -c runs/flla/best.ckpt -d my_cifs/ --split all --output evaluation
"""


def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[str, typer.Option("--data", "-d", help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="train, val, test, or all crystals.")] = "test",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("evaluation"),
    weights: Weights = "auto",
    batch_size: BatchSize = 64,
    batch_by: BatchBy = "crystals",
    device: Device = "auto",
    devices: Devices = 1,
    seed: SplitSeed = None,
    val_fraction: ValShare = None,
    test_fraction: TestShare = None,
) -> None:
    """Compute a trained model's errors on crystals with known targets."""
    from torch_geometric_crystal.benchmark.checkpoint import load_model
    from torch_geometric_crystal.benchmark.evaluation import evaluate as compute
    from torch_geometric_crystal.benchmark.evaluation import write_evaluation
    from torch_geometric_crystal.benchmark.prediction import refuse_unknown_elements
    from torch_geometric_crystal.benchmark.recording import write_json
    from torch_geometric_crystal.benchmark.sources import (
        choose_part,
        load_parts,
        refuse_other_crystals,
        split_of_training,
    )

    path = one_checkpoint(checkpoint)
    model = load_model(path, weights)
    card: Any = model.card
    transform = model.neighborhood(**card.neighborhood)  # type: ignore[operator]
    classes = card.classes if card.task == "classification" else None
    given = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}
    cut = split_of_training(card, split, **given)
    parts = load_parts(data, card.target_names, transform, **cut, progress=True, level=card.level, classes=classes)
    refuse_other_crystals(card, parts, split, **given)
    crystals = choose_part(parts, split)
    refuse_unknown_elements(model, crystals)
    metrics, predictions = compute(model, crystals, batch_size, batch_by, device, devices)
    write_json(output / "metrics.json", {"checkpoint": str(path), "data": data, "split": split} | metrics)
    files = write_evaluation(predictions, card, output, f"{card.model} on {data}, {split} part")
    console().print(error_table(f"{data}, {split} part", {str(card.model): metrics["targets"]}, card.level))
    if "truncation" in metrics:
        show_truncation(metrics["truncation"], len(predictions.ids))
    show_files(output, ["metrics.json", *files])


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate", help=help_text(HELP))(evaluate)
