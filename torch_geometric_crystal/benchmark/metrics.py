"""Errors of regressions and classifications, with missing values left out."""

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


def total_error(prediction: Tensor, target: Tensor, std: Tensor, loss: str) -> Tensor:
    r"""Return a batch's L1 or squared error in units of each target's standard deviation, summed over known values.

    .. math:: \sum_{(b,t) \in K} \Big|\frac{x_{bt} - y_{bt}}{s_t}\Big|^p, \quad p = 1, 2,

    over the known values K. Standardising both sides would subtract the same mean from both. Without known values it
    is 0 (and so is its gradient).

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
    return difference.abs().sum() if loss == "l1" else difference.square().sum()


def known_classes(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows whose class is known, and the numbers of these classes.

    Shapes:
        - prediction: (n, K), target: (n, 1), NaN where unknown; result: (m, K), (m,) int64.
    """
    known = ~target[:, 0].isnan()
    return prediction[known], target[known, 0].long()


def classification_metrics(probabilities: Tensor, target: Tensor) -> dict[str, float]:
    """Compute the metrics of a classification over the rows whose class is known, by torchmetrics.

    Args:
        probabilities: of the K classes.
        target: number of the true class, NaN where unknown.

    Shapes:
        - probabilities: (n, K), target: (n, 1).

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean recall of the classes that occur; ``f1``, of the second of two
        classes, else the mean over the classes that occur or are predicted; ``rocauc``, the area under the ROC curve,
        for more than two classes the mean over those that are neither absent nor alone, each against the others;
        ``cross_entropy`` in nats; ``count``. NaN where there are too few rows.

    Raises:
        ValueError: if the shapes differ.
    """
    try:
        from torchmetrics.functional import classification as metrics
    except ImportError as error:
        raise MissingDependencyError("torchmetrics", "train") from error

    number = probabilities.size(-1)
    shapes = (tuple(probabilities.shape), tuple(target.shape))
    check_argument(shapes == ((len(target), number), (len(target), 1)), "prediction, target", "(n, K), (n, 1)", shapes)
    scores, classes = known_classes(probabilities.double(), target)
    names = ("accuracy", "balanced_accuracy", "f1", "rocauc", "cross_entropy")
    if not len(classes):
        return dict.fromkeys(names, math.nan) | {"count": 0}
    chosen = scores.argmax(dim=1)
    occurring = torch.bincount(classes, minlength=number) > 0
    recall = metrics.multiclass_recall(chosen, classes, num_classes=number, average="none")
    if number == 2:
        f1 = metrics.binary_f1_score(chosen, classes)
    else:
        f1 = metrics.multiclass_f1_score(chosen, classes, num_classes=number, average="macro")
    tested = [1] if number == 2 else range(number)
    areas = [
        float(metrics.binary_auroc(scores[:, k], (classes == k).long()))
        for k in tested
        if bool(occurring[k]) and bool((classes != k).any())
    ]
    true_class = scores.gather(1, classes.unsqueeze(1)).clamp(min=torch.finfo(torch.float64).tiny)
    return {
        "accuracy": float((chosen == classes).double().mean()),
        "balanced_accuracy": float(recall[occurring].double().mean()),
        "f1": float(f1),
        "rocauc": math.fsum(areas) / len(areas) if areas else math.nan,
        "cross_entropy": abs(float(true_class.log().mean())),
        "count": len(classes),
    }
