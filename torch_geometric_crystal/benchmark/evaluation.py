"""Test errors of a trained model, and the files that state them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.benchmark.metrics import regression_metrics
from torch_geometric_crystal.benchmark.objectives import Objective, make_objective
from torch_geometric_crystal.benchmark.pool import PredictionPool
from torch_geometric_crystal.benchmark.prediction import Predictions, predict, tolerance_of
from torch_geometric_crystal.benchmark.recording import write_table
from torch_geometric_crystal.data.elements import SYMBOLS


def evaluate(
    model: nn.Module,
    crystals: Sequence[Data],
    batch_size: int = 64,
    batch_by: str = "crystals",
    device: str = "auto",
    devices: int = 1,
) -> tuple[dict[str, Any], Predictions]:
    """Predict crystals with known targets and compute the errors.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.checkpoint.load_model` returns it, with its ``card``.
        crystals: with graphs and targets y (1, T).
        batch_size: largest number of crystals, atoms or edges in a batch.
        batch_by: what `batch_size` counts.
        device: as in :func:`~torch_geometric_crystal.benchmark.prediction.predict`.
        devices: number of GPUs, or of processes on the CPU, that predict.

    Returns:
        The errors of :func:`errors_of`, and the predictions.
    """
    if devices == 1:
        predictions = predict(model, crystals, batch_size, batch_by, device)
    else:
        with PredictionPool(model, devices, device) as pool:
            predictions = pool.predict(crystals, batch_size, batch_by)
    return errors_of(predictions, model), predictions


def errors_of(predictions: Predictions, model: nn.Module) -> dict[str, Any]:
    """Compute the errors of predictions.

    Returns:
        ``{"targets": {name: {mae, rmse, r2, count, unit}}, "truncation": {max, median, tolerance, above}}``: errors in
        the targets' units (of a classification accuracy, balanced_accuracy, f1, rocauc, cross_entropy, count), and,
        where the model states it, the certified share of any softmax row that the graphs' cutoff dropped, with the
        tolerance of the graphs and the number of crystals above it. In those the model's logits spread further than the
        graphs allow for.
    """
    card: ModelCard = model.card  # type: ignore[assignment]
    result: dict[str, Any] = {"targets": make_objective(card).metrics(predictions.prediction, predictions.target)}
    bound = predictions.truncation_bound
    if not bool(bound.isnan().all()):
        tolerance = tolerance_of(model)
        result["truncation"] = {
            "max": float(bound.max()),
            "median": float(bound.quantile(0.5)),
            "tolerance": tolerance,
            "above": None if tolerance is None else int((bound > tolerance).sum()),
        }
    return result


def mean_predictor(train: torch.Tensor, test: torch.Tensor, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Errors of predicting the training set's mean for every crystal: what a model must beat.

    Args:
        train: targets of the training crystals, NaN where unknown.
        test: targets of the test crystals, likewise.
        names: the targets' names, T.

    Shapes:
        - train: (n, T), test: (m, T).
    """
    mean = train.double().nanmean(dim=0)
    return regression_metrics(mean.expand(len(test), -1), test.double(), list(names))


def write_evaluation(predictions: Predictions, card: ModelCard, folder: str | Path, title: str = "") -> list[str]:
    """Write ``predictions.csv`` and the pictures into a folder: ``parity.png``, or ``confusion.png`` and ``roc.png``.

    The table has id, target and prediction of each crystal, in order; a missing target is empty. Of a model that
    predicts each atom it has a row an atom: id, number of the atom from 0, element, target, prediction.

    Returns:
        The files' names.
    """
    folder, objective = Path(folder), make_objective(card)
    write_table(folder / "predictions.csv", prediction_rows(predictions, objective))
    objective.draw(predictions.prediction, predictions.target, folder, title)
    return ["predictions.csv", *objective.pictures]


def prediction_rows(predictions: Predictions, objective: Objective) -> list[dict[str, Any]]:
    """The rows of ``predictions.csv``."""
    if predictions.atoms is None:
        names: list[dict[str, Any]] = [{"id": name} for name in predictions.ids]
    else:
        names = [
            {"id": name, "atom": atom, "element": SYMBOLS[number - 1]}
            for name, numbers in zip(predictions.ids, predictions.atoms, strict=True)
            for atom, number in enumerate(numbers.tolist())
        ]
    targets, values = predictions.target.tolist(), predictions.prediction.tolist()
    return [
        {**name, **objective.target_cells(y), **objective.prediction_cells(x)}
        for name, y, x in zip(names, targets, values, strict=True)
    ]


def targets_of(crystals: Sequence[Data]) -> torch.Tensor:
    """Stack the targets of crystals, shape (n, T), or of their atoms."""
    return torch.cat([crystal.y for crystal in crystals])
