"""``tgcrystal export``."""

from pathlib import Path
from typing import Annotated

import typer

from torch_geometric_crystal.cli.display import show_files
from torch_geometric_crystal.cli.options import Checkpoint, Weights, help_text, one_checkpoint

HELP = """Write a checkpoint's weights as safetensors, with the model's settings as JSON beside them; or, under a name
that ends in .pt2, a Crystalformer as a program of torch.export, which runs without the model's code.

Examples:

  tgcrystal export --checkpoint runs/flla model.safetensors

  tgcrystal export --checkpoint runs/flla model.pt2
"""


def export(
    output: Annotated[Path, typer.Argument(help="The .safetensors or .pt2 file.")],
    checkpoint: Checkpoint,
    weights: Weights = "auto",
) -> None:
    """Write a checkpoint's weights as safetensors, or the model as a program."""
    from torch_geometric_crystal.benchmark.checkpoint import export_model, load_model
    from torch_geometric_crystal.benchmark.program import export_program

    model = load_model(one_checkpoint(checkpoint), weights)
    if output.suffix == ".pt2":
        export_program(model, output)
    else:
        export_model(model, output)
    beside = output.with_suffix(".json")
    show_files(output.parent, [path.name for path in (output, beside) if path.exists()])


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export", help=help_text(HELP))(export)
