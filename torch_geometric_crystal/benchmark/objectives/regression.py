"""Targets that are numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_geometric_crystal.benchmark.metrics import mean_absolute_errors, regression_metrics, total_error
from torch_geometric_crystal.benchmark.objectives.base import Objective
from torch_geometric_crystal.benchmark.plots import plot_parity
from torch_geometric_crystal.benchmark.recording import column_names
from torch_geometric_crystal.nn.readout import TargetNormalization


class Regression(Objective):
    """One or more numbers, learned as multiples of their standard deviation; K = T."""

    error = "mae"
    baseline_name = "mean of training set"
    pictures = ("parity.png",)

    def fit_normalization(self, normalization: TargetNormalization, target: Tensor, standardize: bool) -> None:
        """Take the training targets' mean and standard deviation, or neither."""
        normalization.fit(target)
        if not standardize:
            normalization.reset()

    def total_loss(self, output: Tensor, target: Tensor, std: Tensor, kind: str) -> Tensor:
        """Sum of ``total_error``."""
        return total_error(output, target, std, kind)

    def validate(self, output: Tensor, target: Tensor, std: Tensor) -> tuple[dict[str, float], float]:
        """Mean absolute errors; epochs are compared by their mean in units of the standard deviations."""
        errors = mean_absolute_errors(output, target)
        columns = {f"val_mae_{name}": x for name, x in zip(self.card.target_names, errors.tolist(), strict=True)}
        return columns, float((errors / std).nanmean())

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, dict[str, Any]]:
        """``mae``, ``rmse``, ``r2``, ``count`` and ``unit``."""
        metrics = regression_metrics(prediction, target, list(self.card.target_names))
        units = zip(self.card.target_names, self.card.units, strict=True)
        return {name: metrics[name] | {"unit": unit} for name, unit in units}

    def baseline(self, train: Tensor, test: Tensor) -> dict[str, dict[str, Any]]:
        """Errors of the training targets' mean."""
        mean = train.double().nanmean(dim=0)
        return dict(regression_metrics(mean.expand(len(test), -1), test.double(), list(self.card.target_names)))

    def target_cells(self, target: Sequence[float]) -> Mapping[str, Any]:
        """``target``, or ``target_<name>`` for several."""
        return dict(zip(column_names(self.card.target_names)[0], target, strict=True))

    def prediction_cells(self, prediction: Sequence[float]) -> Mapping[str, Any]:
        """``prediction``, or ``prediction_<name>`` for several."""
        names = column_names(self.card.target_names)[1]
        return dict(zip(names, prediction or (None,) * len(names), strict=True))

    def draw(self, prediction: Tensor, target: Tensor, folder: Path, title: str) -> None:
        """Predictions against true values: ``parity.png``."""
        names, units = list(self.card.target_names), list(self.card.units)
        plot_parity(prediction, torch.as_tensor(target), folder / "parity.png", names, units, title)
