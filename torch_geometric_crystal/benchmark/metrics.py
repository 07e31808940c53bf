"""Regression errors per target, with missing values left out."""

import math

import torch
from torch import Tensor

from torch_geometric_crystal.checks import MissingDependencyError, check_argument


def regression_metrics(prediction: Tensor, target: Tensor, names: list[str]) -> dict[str, dict[str, float]]:
    r"""Compute mean absolute error, root mean square error and :math:`R^2` of each target.

    Args:
        prediction: predicted values, in the targets' units.
        target: true values, NaN where unknown.
        names: the targets' names.

    Shapes:
        - prediction, target: (n, T), names: T.

    Returns:
        Per target name a dictionary of ``mae``, ``rmse`` (both in the target's unit), ``r2`` and ``count``, the number
        of known values. Errors of a target without known values are NaN, as is ``r2`` with fewer than two.

    Raises:
        ValueError: if the shapes differ.
    """
    try:
        from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error, r2_score
    except ImportError as error:
        raise MissingDependencyError("torchmetrics", "train") from error

    check_argument(
        prediction.shape == target.shape and prediction.dim() == 2 and prediction.size(1) == len(names),
        "prediction",
        f"the target's shape {tuple(target.shape)} with {len(names)} columns",
        tuple(prediction.shape),
    )
    metrics = {}
    for column, name in enumerate(names):
        known = ~target[:, column].isnan()
        x, y = prediction[known, column].double(), target[known, column].double()
        mae = rmse = r2 = math.nan
        if len(y) > 0:
            mae = float(mean_absolute_error(x, y))
            rmse = float(mean_squared_error(x, y, squared=False))
        if len(y) > 1 and bool((y != y[0]).any()):
            r2 = float(r2_score(x, y))
        metrics[name] = {"mae": mae, "rmse": rmse, "r2": r2, "count": int(known.sum())}
    return metrics


def mean_absolute_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error of each target over its known values.

    Shapes:
        - prediction, target: (n, T); result: (T,) float64, NaN for a target without known values.
    """
    return (prediction.double() - target.double()).abs().nanmean(dim=0)


def masked_loss(prediction: Tensor, target: Tensor, std: Tensor, loss: str) -> Tensor:
    r"""Return the training loss of a batch: L1 or squared error in units of each target's standard deviation.

    .. math:: \frac{1}{|K|} \sum_{(b,t) \in K} \Big|\frac{x_{bt} - y_{bt}}{s_t}\Big|^p, \quad p = 1, 2,

    over the known values K. Standardising both sides would subtract the same mean from both. Without known values the
    loss is 0 (and so is its gradient).

    Args:
        prediction: predicted values, in the targets' units.
        target: true values, NaN where unknown.
        std: the targets' standard deviations.
        loss: ``"l1"`` or ``"mse"``.

    Shapes:
        - prediction, target: (B, T), std: (T,), result: ().
    """
    known = ~target.isnan()
    difference = torch.where(known, prediction - torch.where(known, target, 0.0), 0.0) / std
    total = difference.abs().sum() if loss == "l1" else difference.square().sum()
    return total / known.sum().clamp(min=1)
