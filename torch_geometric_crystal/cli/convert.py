"""``tgcrystal convert``."""

from pathlib import Path
from typing import Annotated

import typer

from torch_geometric_crystal.cli.display import console, show_files, warn
from torch_geometric_crystal.cli.options import help_text

HELP = """Write crystals of any supported kind as a compact .npz store, which loads 100,000 structures in seconds.

Examples:

  tgcrystal convert my_cifs/ my.npz

  tgcrystal convert matbench_mp_gap.json.gz mp_gap.npz --skip-errors
"""


def convert(
    source: Annotated[
        str, typer.Argument(help="Folder of CIF/POSCAR, Matbench or JARVIS JSON, CSV, ASE database, extended XYZ.")
    ],
    output: Annotated[Path, typer.Argument(help="The .npz file.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Target to keep; repeat for several. Default: all.")
    ] = None,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Leave out structures that cannot be used, instead of stopping.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that parse. Default: as many as help.")] = None,
) -> None:
    """Write crystals of any supported kind as a compact .npz store."""
    from torch_geometric_crystal.datasets import convert as convert_store

    on_error = "skip" if skip_errors else "raise"
    done = convert_store(source, output, target or None, on_error=on_error, num_workers=workers)
    targets = ", ".join(done.target_names) or "none"
    console().print(f"{done.num_structures} structures, targets: {targets}", markup=False)
    if done.errors:
        warn(f"{len(done.errors)} left out; the first, {done.errors[0][0]}: {done.errors[0][1]}")
    show_files(output.parent, [output.name])


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("convert", help=help_text(HELP))(convert)
