"""``tgcrystal predict`` with several checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_geometric_crystal.cli.display import console, show_files, warn_of_files
from torch_geometric_crystal.cli.table_files import table_files


def predict_ensemble(
    files: Sequence[Path],
    checkpoints: Sequence[Path],
    output: Path,
    weights: str,
    batches: tuple[int, str, str],
    calibration: Path | None,
) -> None:
    """Predict files with an ensemble and write the tables.

    Args:
        files: files and folders.
        checkpoints: of the members.
        output: the CSV file.
        weights: which weights of each checkpoint.
        batches: batch_size, batch_by and device.
        calibration: JSON file of the ensemble's calibration.
    """
    from torch_geometric_crystal.benchmark.ensemble import Ensemble
    from torch_geometric_crystal.benchmark.recording import write_json, write_table

    inputs = [*files, *([] if calibration is None else [calibration])]
    csv_path, json_path = table_files(output, inputs, checkpoints)
    ensemble = Ensemble(checkpoints, calibration, weights)
    names, predictions = ensemble.predict_files(files, *batches, progress=True)
    values = value_columns(ensemble.card, predictions)
    table = [table_row(k, name, path, values, predictions) for k, (name, path) in enumerate(names)]
    write_table(csv_path, table)
    content = {
        "checkpoints": [str(path) for path in checkpoints],
        "calibration": None if calibration is None else str(calibration),
        "units": dict(zip(ensemble.card.target_names, ensemble.card.units, strict=True)),
        "predictions": table,
    }
    write_json(json_path, content)
    failed = [row for row in table if row["error"]]
    console().print(f"{len(table) - len(failed)} of {len(table)} structures predicted by {len(checkpoints)} models")
    bounds = predictions.truncation_bound.tolist()
    warn_of_files([(row["file"], row["error"]) for row in failed], bounds, ensemble.tolerance())
    show_files(csv_path.parent, [csv_path.name, json_path.name])


def value_columns(card: Any, predictions: Any) -> dict[str, Any]:
    """Columns of the table by name: predictions, spreads and, where there are any, uncertainties."""
    from torch_geometric_crystal.benchmark.calibrate_run import uncertainty_columns
    from torch_geometric_crystal.benchmark.recording import column_names

    if classes := card.classes:
        labels = [classes[k] for k in predictions.mean.argmax(axis=1)]
        shares = zip([f"probability_{name}" for name in classes], predictions.mean.T, strict=True)
        spreads = zip([f"spread_{name}" for name in classes], predictions.spread.T, strict=True)
        return {"prediction": labels} | dict(shares) | dict(spreads)
    columns = dict(zip(column_names(card.target_names)[1], predictions.mean.T, strict=True))
    for kind in ("spread", "uncertainty"):
        if (table := getattr(predictions, kind)) is not None:
            columns |= dict(zip(uncertainty_columns(card.target_names, kind), table.T, strict=True))
    return columns


def table_row(position: int, name: str, path: str, values: dict[str, Any], predictions: Any) -> dict[str, Any]:
    """One file's row: id, predictions, spreads, truncation_bound, error, file; what there is not is None."""
    fault = predictions.faults.get(position)
    cells = {heading: None if fault else column[position] for heading, column in values.items()}
    return {
        "id": name,
        **{heading: float(value) if isinstance(value, float) else value for heading, value in cells.items()},
        "truncation_bound": float(predictions.truncation_bound[position]),
        "error": None if fault is None else f"{fault.fault}. {fault.remedy}" if fault.remedy else fault.fault,
        "file": path,
    }
