"""From a fold's predictions to its record, with the scores of Matbench where the task is one of its own."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torch_geometric_crystal.benchmark.plots import plot_parity
from torch_geometric_crystal.benchmark.recording import write_predictions
from torch_geometric_crystal.benchmark.tasks.matbench_package import record_officially, score_predictions
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord, write_record
from torch_geometric_crystal.benchmark.tasks.task import Task


def score_fold(
    task: Task, fold: int, model: str, values: np.ndarray, parameters: Mapping[str, Any], effort: Mapping[str, Any]
) -> FoldRecord:
    """Score the predictions of a fold's test part, those of an official task by ``MatbenchTask.record``.

    Args:
        task: what was predicted.
        fold: number of the fold.
        model: name of what predicted.
        values: predictions of the test part, in order; probabilities in a classification.
        parameters: the settings that gave them, in plain values.
        effort: what the training took.

    Shapes:
        - values: (m,).

    Raises:
        ArithmeticError: if a prediction is not a finite number.
    """
    positions = list(task.fold(fold).test)
    ids = [task.ids[k] for k in positions]
    wrong = [name for name, value in zip(ids, values.tolist(), strict=True) if not math.isfinite(value)]
    if wrong:
        raise ArithmeticError(f"{model} predicts no number for {len(wrong)} crystals, the first {wrong[0]}")
    scores = score_predictions(task.kind, task.values[positions], values)
    if task.official:
        scores |= record_officially(task.name, fold, task.ids, task.values, values, dict(parameters))
    return FoldRecord(
        task=task.name,
        statement=task.statement,
        official=task.official,
        published_as=task.published_as,
        kind=task.kind,
        metric=task.metric,
        target=task.target,
        unit=task.unit,
        model=model,
        fold=fold,
        num_folds=len(task.splits),
        predictions=dict(zip(ids, values.tolist(), strict=True)),
        parameters=parameters,
        scores=scores,
        effort=effort,
    )


def write_fold(task: Task, record: FoldRecord, folder: str | Path) -> None:
    """Write predictions.csv and parity.png of what trained no network, then ``fold.json``."""
    folder = Path(folder)
    truth = torch.from_numpy(task.values[list(task.fold(record.fold).test)]).unsqueeze(1)
    predicted = torch.tensor(list(record.predictions.values()), dtype=torch.float64).unsqueeze(1)
    write_predictions(folder / "predictions.csv", list(record.predictions), truth, predicted, [task.target])
    title = f"{record.model} on {task.name}, fold {record.fold}, test part"
    plot_parity(predicted, truth, folder / "parity.png", [task.target], [task.unit], title)
    write_record(record, folder)
