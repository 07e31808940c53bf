"""``tgcrystal explain``."""

from pathlib import Path
from typing import Annotated

import typer

from torch_geometric_crystal.cli.display import console, show_files, warn, warn_of_files
from torch_geometric_crystal.cli.options import Weights, help_text

HELP = """Show what a trained Crystalformer looks at in crystals: its attention weights as pictures and tables.

Writes weights.csv (a row for each image that an atom looks at, a column for each block and head), heads.csv (for each
block and head the learned widths, the mean distance of the weight, and its share on the neighbours that pymatgen's
CrystalNN finds), distance.png, species.png, species_relative.png, sigma.png, and atoms_<id>.png for each crystal.

Heads in reciprocal space have a weight for each pair of atoms, not for each image: they are in pairs.csv and sigma.png
alone. Other models have no such weights and are refused. Crystals that cannot be used are left out, with a warning.

Examples:

  tgcrystal explain runs/flla my.cif -o what_it_looks_at

  tgcrystal explain model.safetensors cifs/ --no-bonds --min-weight 0.01 -o attention
"""


def explain(
    checkpoint: Annotated[
        Path, typer.Argument(help="A .ckpt or .safetensors file, or a run's folder.", show_default=False)
    ],
    structures: Annotated[list[Path], typer.Argument(help="Files and folders.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the pictures and tables.")] = Path(
        "attention"
    ),
    weights: Weights = "auto",
    bonds: Annotated[bool, typer.Option(help="Compare with CrystalNN, about 20 ms an atom.")] = True,
    min_weight: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out of the tables what has less weight in all heads.")
    ] = 1e-3,
) -> None:
    """Show what a trained Crystalformer looks at in crystals."""
    from torch_geometric_crystal.benchmark.checkpoint import load_model
    from torch_geometric_crystal.benchmark.prediction import tolerance_of
    from torch_geometric_crystal.datasets.read_structures import read_structures
    from torch_geometric_crystal.explain import attention_map, crystal_nn_bonds, image_graph, write_report

    model = load_model(checkpoint, weights)
    add_graph = image_graph(model)
    compare = bonds and model.has_real_heads
    maps, found, failed = [], [], []
    for result in read_structures(structures, dtype=next(model.parameters()).dtype):
        try:
            if result.data is None:
                raise ValueError(result.error)
            each = attention_map(model, add_graph(result.data))
            found += [crystal_nn_bonds(each)] if compare else []
            maps.append(each)
        except ValueError as error:
            failed.append((result.path, str(error)))
    if not maps:
        path, fault = failed[0]
        raise ValueError(f"structures: expected at least one crystal that can be used; {path}: {fault}")
    for path, fault in failed[:3]:
        warn(f"left out {path}: {fault}")
    warn_of_files([], [each.truncation_bound for each in maps], tolerance_of(model))
    names = write_report(maps, output, found if compare else None, min_weight)
    console().print(f"{len(maps)} of {len(maps) + len(failed)} crystals, {sum(each.num_atoms for each in maps)} atoms")
    show_files(output, names)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("explain", help=help_text(HELP))(explain)
