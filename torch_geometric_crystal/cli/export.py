"""``tgcrystal export``."""

from pathlib import Path
from typing import Annotated

import typer

from torch_geometric_crystal.cli.display import show_files
from torch_geometric_crystal.cli.options import Checkpoint, Weights, help_text

HELP = """Write a checkpoint's weights as safetensors, with the model's settings as JSON beside them.

Example:

  tgcrystal export --checkpoint runs/flla model.safetensors
"""


def export(
    output: Annotated[Path, typer.Argument(help="The .safetensors file.")],
    checkpoint: Checkpoint,
    weights: Weights = "auto",
) -> None:
    """Write a checkpoint's weights as safetensors."""
    from torch_geometric_crystal.benchmark.checkpoint import export_model, load_model

    export_model(load_model(checkpoint, weights), output)
    show_files(output.parent, [output.name, output.with_suffix(".json").name])


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export", help=help_text(HELP))(export)
