"""``tgcrystal convert``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.display import console, show_files, warn
from torch_geometric_crystal.cli.options import help_text, parse_settings

HELP = """Write crystals of any supported kind as a compact .npz store, which loads 100,000 structures in seconds; or,
with --graphs, as a folder of crystals with a model's graphs, from which train reads crystal by crystal: for data
larger than memory.

With --graphs the same command continues after an interruption.

Examples:

  tgcrystal convert my_cifs/ my.npz

  tgcrystal convert matbench_mp_gap.json.gz mp_gap.npz --skip-errors

  tgcrystal convert mp_gap.npz mp_gap_graphs/ --graphs crystalformer

  tgcrystal train --data mp_gap_graphs/ --model crystalformer --output runs/mp_gap
"""


def convert(
    source: Annotated[
        str,
        typer.Argument(help="Folder of CIF/POSCAR, Matbench or JARVIS JSON, CSV, ASE database, extended XYZ, .npz."),
    ],
    output: Annotated[Path, typer.Argument(help="The .npz file, or with --graphs the folder.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="Target to keep; repeat for several. Default: all of an id_prop.csv, else target.",
        ),
    ] = None,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Leave out structures that cannot be used, instead of stopping.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that parse. Default: as many as help.")] = None,
    graphs: Annotated[
        str | None, typer.Option(help="Make the graphs of this model: crystalformer, cgcnn or alignn.")
    ] = None,
    model_option: Annotated[
        list[str] | None,
        typer.Option(help="With --graphs: constructor argument of the model, as for train. Repeatable."),
    ] = None,
    graph_option: Annotated[
        list[str] | None, typer.Option(help="With --graphs: argument of the graph, e.g. tol=1e-2. Repeatable.")
    ] = None,
) -> None:
    """Write crystals of any supported kind as a compact .npz store or a graph store."""
    from torch_geometric_crystal.datasets import convert as convert_store
    from torch_geometric_crystal.datasets import open_source, write_graph_store

    settings: dict[str, Any] = {"target": target or None, "num_workers": workers}
    settings["on_error"] = "skip" if skip_errors else "raise"
    if graphs is None:
        if model_option or graph_option:
            raise ValueError("--model-option and --graph-option are for --graphs: name the model with --graphs")
        if output.suffix != ".npz":
            raise ValueError(
                f"output: expected a name that ends in .npz, or --graphs MODEL for a folder, received {output}"
            )
        done = convert_store(source, output, **settings)
    else:
        from torch_geometric_crystal.benchmark.checkpoint import build_model

        model: Any = build_model(graphs, parse_settings(model_option or [], "--model-option"))
        transform = model.neighborhood(**parse_settings(graph_option or [], "--graph-option"))
        done = write_graph_store(source, output, transform, **settings)
    if not done.target_names and (others := open_source(source).available_targets):
        warn(f"no target was kept; there are {', '.join(others)}: choose with --target")
    targets = ", ".join(done.target_names) or "none"
    console().print(f"{done.num_structures} structures, targets: {targets}", markup=False)
    if done.errors:
        warn(f"{len(done.errors)} left out; the first, {done.errors[0][0]}: {done.errors[0][1]}")
    show_files(output.parent, [output.name])


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("convert", help=help_text(HELP))(convert)
