"""``tgcrystal embed``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.display import console, show_files, warn
from torch_geometric_crystal.cli.options import (
    DATA_HELP,
    BatchBy,
    BatchSize,
    Checkpoint,
    Device,
    Weights,
    help_text,
    one_checkpoint,
)

HELP = """Write a trained model's pooled features of crystals as .npz or .parquet.

An .npz file has the arrays ids (n), embedding (n, C) and prediction (n, T). A .parquet file, which needs pandas and
pyarrow, has a row for each crystal with the columns id, prediction (prediction_<name> for several targets) and
embedding_0 to embedding_<C - 1>. Targets are not read. Crystals that cannot be used are left out, with a warning.

Examples:

  tgcrystal embed --checkpoint runs/flla --data flla_2015 --output features.npz

  tgcrystal embed -c runs/flla -d folder_of_cifs/ -o features.parquet
"""


def embed(
    checkpoint: Checkpoint,
    data: Annotated[str, typer.Option("--data", "-d", help=DATA_HELP + " No target is needed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz or .parquet file.")] = Path("embedding.npz"),
    weights: Weights = "auto",
    batch_size: BatchSize = 64,
    batch_by: BatchBy = "crystals",
    device: Device = "auto",
) -> None:
    """Write a trained model's pooled features of crystals as .npz or .parquet."""
    from torch_geometric_crystal.benchmark.checkpoint import load_model
    from torch_geometric_crystal.benchmark.embedding_file import check_embedding_path, write_embedding
    from torch_geometric_crystal.benchmark.prediction import predict
    from torch_geometric_crystal.benchmark.sources import open_unlabelled
    from torch_geometric_crystal.checks import check_argument

    check_embedding_path(output)
    model = load_model(one_checkpoint(checkpoint), weights)
    card: Any = model.card
    check_argument(card.level == "crystal", "--checkpoint", "a model of crystals, with pooled features", card.level)
    dataset = open_unlabelled(data, model)
    for name, error in dataset.errors[:3]:
        warn(f"left out {name}: {error}")
    if len(dataset.errors) > 3:
        warn(f"and {len(dataset.errors) - 3} more")
    crystals = [dataset[index] for index in range(len(dataset))]
    result = predict(model, crystals, batch_size, batch_by, device, embedding=True)
    write_embedding(output, result, card)
    console().print(f"{len(result.ids)} crystals, {result.embedding.size(1)} features each")  # type: ignore[union-attr]
    show_files(output.parent, [output.name])


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("embed", help=help_text(HELP))(embed)
