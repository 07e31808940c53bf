"""Test errors of a trained model, and the files that state them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.benchmark.metrics import regression_metrics
from torch_geometric_crystal.benchmark.plots import plot_parity
from torch_geometric_crystal.benchmark.prediction import Predictions, predict, tolerance_of
from torch_geometric_crystal.benchmark.recording import write_predictions


def evaluate(
    model: nn.Module,
    crystals: Sequence[Data],
    batch_size: int = 64,
    batch_by: str = "crystals",
    device: str = "auto",
) -> tuple[dict[str, Any], Predictions]:
    """Predict crystals with known targets and compute the errors.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.checkpoint.load_model` returns it, with its ``card``.
        crystals: with graphs and targets y (1, T).
        batch_size: largest number of crystals, atoms or edges in a batch.
        batch_by: what `batch_size` counts.
        device: as in :func:`~torch_geometric_crystal.benchmark.prediction.predict`.

    Returns:
        The errors of :func:`errors_of`, and the predictions.
    """
    predictions = predict(model, crystals, batch_size, batch_by, device)
    return errors_of(predictions, model), predictions


def errors_of(predictions: Predictions, model: nn.Module) -> dict[str, Any]:
    """Compute the errors of predictions.

    Returns:
        ``{"targets": {name: {mae, rmse, r2, count, unit}}, "truncation": {max, median, tolerance, above}}``: errors in
        the targets' units, and, where the model states it, the certified share of any softmax row that the graphs'
        cutoff dropped, with the tolerance of the graphs and the number of crystals above it. In those the model's
        logits spread further than the graphs allow for.
    """
    card: ModelCard = model.card  # type: ignore[assignment]
    metrics = regression_metrics(predictions.prediction, predictions.target, list(card.target_names))
    result: dict[str, Any] = {
        "targets": {
            name: metrics[name] | {"unit": unit} for name, unit in zip(card.target_names, card.units, strict=True)
        }
    }
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


def write_evaluation(predictions: Predictions, card: ModelCard, folder: str | Path, title: str = "") -> None:
    """Write ``predictions.csv`` and ``parity.png`` into a folder."""
    folder = Path(folder)
    names = list(card.target_names)
    write_predictions(folder / "predictions.csv", predictions.ids, predictions.target, predictions.prediction, names)
    plot_parity(predictions.prediction, predictions.target, folder / "parity.png", names, list(card.units), title)


def targets_of(crystals: Sequence[Data]) -> torch.Tensor:
    """Stack the targets of crystals, shape (n, T)."""
    return torch.cat([crystal.y for crystal in crystals])
