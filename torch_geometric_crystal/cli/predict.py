"""``tgcrystal predict``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.display import console, show_files, warn_of_files
from torch_geometric_crystal.cli.ensemble import predict_ensemble
from torch_geometric_crystal.cli.options import BatchBy, BatchSize, Checkpoints, Device, Devices, Weights, help_text
from torch_geometric_crystal.cli.table_files import table_files

HELP = """Predict the properties of crystals in CIF, POSCAR, xyz or JSON files, folders of them, and files of many
crystals (ASE database, table, extended XYZ, JSON records, compact store).

Writes a CSV and a JSON file with one row per structure, in the order given: id, prediction, the certified bound on the
share of any softmax row that was cut off, and, for one that could not be used, the error. Such crystals do not stop the
others: the exit code is 0, with a warning. A classification gives the most probable class and the probability of each;
a model of atoms gives a row for each atom, with its number from 0 and its element.

Several checkpoints are an ensemble: the prediction is their mean, with their standard deviation as spread, and, with
the calibration.json of tgcrystal calibrate, the standard deviation of the error as uncertainty.

Examples:

  tgcrystal predict --checkpoint runs/flla my.cif POSCAR_2 folder_of_cifs/ --output predictions.csv

  tgcrystal predict -c model.safetensors cifs/ --batch-by atoms --batch-size 4000

  tgcrystal predict -c runs/a -c runs/b --calibration runs/ensemble/calibration.json cifs/
"""


def predict(
    files: Annotated[list[Path], typer.Argument(help="Files and folders.", show_default=False)],
    checkpoints: Checkpoints,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="CSV file; a JSON file of the same name is written beside it.")
    ] = Path("predictions.csv"),
    weights: Weights = "auto",
    batch_size: BatchSize = 64,
    batch_by: BatchBy = "crystals",
    device: Device = "auto",
    devices: Devices = 1,
    calibration: Annotated[
        Path | None, typer.Option(help="calibration.json that tgcrystal calibrate made for these checkpoints.")
    ] = None,
) -> None:
    """Predict the properties of crystals in files."""
    if len(checkpoints) > 1:
        if devices > 1:
            raise ValueError(
                "--devices: an ensemble predicts on one device; leave it out, or predict with each checkpoint"
            )
        predict_ensemble(files, checkpoints, output, weights, (batch_size, batch_by, device), calibration)
        return
    if calibration is not None:
        raise ValueError("--calibration: it belongs to an ensemble; give each of its checkpoints with -c")
    (checkpoint,) = checkpoints
    from torch_geometric_crystal.benchmark.checkpoint import load_model
    from torch_geometric_crystal.benchmark.objectives import make_objective
    from torch_geometric_crystal.benchmark.prediction import predict_files, tolerance_of
    from torch_geometric_crystal.benchmark.recording import column_names, write_json, write_table

    csv_path, json_path = table_files(output, files, checkpoints)
    model = load_model(checkpoint, weights)
    card: Any = model.card
    rows = predict_files(model, files, batch_size, batch_by, device, progress=True, devices=devices)
    objective = make_objective(card)
    table = [prediction_row(row, objective) for row in rows]
    write_table(csv_path, table)
    columns = column_names(card.target_names)[1]
    units = dict(zip(columns, card.units, strict=True))
    write_json(json_path, {"checkpoint": str(checkpoint), "units": units, "predictions": table})
    failed = [row for row in rows if row.error]
    total = sum(not row.atom for row in rows)
    console().print(f"{total - len(failed)} of {total} structures predicted")
    bounds = [row.truncation_bound for row in rows if not row.atom]
    warn_of_files([(row.path, row.error) for row in failed], bounds, tolerance_of(model))
    show_files(csv_path.parent, [csv_path.name, json_path.name])


def prediction_row(row: Any, objective: Any) -> dict[str, Any]:
    """One file's row, or one atom's: id, predictions, truncation_bound, error, file; what there is not is None."""
    atom = {"atom": row.atom, "element": row.element or None} if objective.card.level == "atom" else {}
    return {
        "id": row.structure_id,
        **atom,
        **objective.prediction_cells(row.values),
        "truncation_bound": row.truncation_bound,
        "error": row.error or None,
        "file": row.path,
    }


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("predict", help=help_text(HELP))(predict)
