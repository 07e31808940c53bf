"""The files that a run leaves: history, predictions, metrics. All are written atomically."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from torch_geometric_crystal.checks import check_shape
from torch_geometric_crystal.datasets.atomic_write import atomic_write


def write_text(path: str | Path, text: str) -> None:
    """Write `text` in UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def write_table(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, columns as in the first row; NaN and None become empty. No rows make an empty file."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    if rows:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    write_text(path, buffer.getvalue())


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value


def write_history(path: str | Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write ``history.csv``: epoch, train_loss, val_<metric>_<target> for each target, lr, seconds."""
    write_table(path, history)


def read_history(path: str | Path) -> list[dict[str, float]]:
    """Read what :func:`write_history` wrote; an empty field is NaN."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [
            {name: float(value) if value else math.nan for name, value in row.items()} for row in csv.DictReader(file)
        ]


def column_names(target_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the target columns and of the prediction columns in ``predictions.csv``.

    One target: ``target`` and ``prediction``; several: ``target_<name>`` and ``prediction_<name>``.
    """
    if len(target_names) == 1:
        return ["target"], ["prediction"]
    return [f"target_{name}" for name in target_names], [f"prediction_{name}" for name in target_names]


def write_predictions(
    path: str | Path, ids: Sequence[str], target: Tensor, prediction: Tensor, target_names: Sequence[str]
) -> None:
    """Write ``predictions.csv``: id, target and prediction of each crystal, in order; a missing target is empty.

    Args:
        path: the file.
        ids: the crystals' names, n.
        target: true values in physical units, NaN where unknown.
        prediction: predicted values.
        target_names: the targets' names, T.

    Shapes:
        - target, prediction: (n, T).
    """
    shape = (len(ids), len(target_names))
    for name, tensor in (("target", target), ("prediction", prediction)):
        check_shape(name, tensor, shape)
    true_names, predicted_names = column_names(target_names)
    rows = []
    for name, y, x in zip(ids, target.tolist(), prediction.tolist(), strict=True):
        rows.append({"id": name} | dict(zip(true_names, y, strict=True)) | dict(zip(predicted_names, x, strict=True)))
    write_table(path, rows)


def write_json(path: str | Path, values: Any) -> None:
    """Write values as JSON that any reader accepts: NaN and infinity become null."""
    write_text(path, json.dumps(_finite(values), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
