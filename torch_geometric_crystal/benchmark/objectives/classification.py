"""Targets that are classes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.benchmark.class_plots import plot_confusion, plot_roc
from torch_geometric_crystal.benchmark.metrics import classification_metrics, known_classes
from torch_geometric_crystal.benchmark.objectives.base import Objective
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.nn.readout import TargetNormalization


class Classification(Objective):
    r"""One of K classes; the model's output are logits :math:`z_k`, also where K = 2.

    .. math::
        p_k = \frac{e^{z_k}}{\sum_l e^{z_l}}, \qquad \mathrm{loss} = -\frac{1}{|R|} \sum_{i \in R} \log p_{i, y_i}

    over the rows R whose class is known. Epochs are compared by this cross-entropy on the validation part. Logits are
    not scaled: the targets' normalisation stays the identity.
    """

    error = "cross_entropy"
    baseline_name = "class shares of training set"
    pictures = ("confusion.png", "roc.png")

    def __init__(self, card: ModelCard):
        super().__init__(card)
        check_argument(len(card.target_names) == 1, "targets", "one column of classes", list(card.target_names))
        check_argument(len(card.classes) >= 2, "classes", "names of two classes at least", list(card.classes))

    def fit_normalization(self, normalization: TargetNormalization, target: Tensor, standardize: bool) -> None:
        """Leave the logits as they are."""
        check_argument(bool((~target.isnan()).any()), "y", "at least one known class to train on", "none")
        normalization.reset()

    def total_loss(self, output: Tensor, target: Tensor, std: Tensor, kind: str) -> Tensor:
        """Sum of the cross-entropy, whatever the recipe's loss is called."""
        known = ~target[:, 0].isnan()
        classes = torch.where(known, target[:, 0], 0).long()
        losses = functional.cross_entropy(output, classes, reduction="none")
        return torch.where(known, losses, 0.0).sum()

    def validate(self, output: Tensor, target: Tensor, std: Tensor) -> tuple[dict[str, float], float]:
        """Cross-entropy, by which epochs are compared, and accuracy."""
        logits, classes = known_classes(output, target)
        name = self.card.target_names[0]
        if not len(classes):
            return {f"val_cross_entropy_{name}": math.nan, f"val_accuracy_{name}": math.nan}, math.nan
        loss = float(functional.cross_entropy(logits.double(), classes))
        accuracy = float((logits.argmax(dim=1) == classes).double().mean())
        return {f"val_cross_entropy_{name}": loss, f"val_accuracy_{name}": accuracy}, loss

    def predict(self, output: Tensor) -> Tensor:
        """Probabilities."""
        return output.softmax(dim=1)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, dict[str, Any]]:
        """Those of :func:`~torch_geometric_crystal.benchmark.metrics.classification_metrics`."""
        return {self.card.target_names[0]: classification_metrics(prediction, target)}

    def baseline(self, train: Tensor, test: Tensor) -> dict[str, dict[str, Any]]:
        """Metrics of the classes' shares in the training targets as probabilities."""
        classes = train[~train.isnan()].long()
        shares = torch.bincount(classes, minlength=len(self.card.classes)).double() / max(len(classes), 1)
        return self.metrics(shares.expand(len(test), -1), test)

    def target_cells(self, target: Sequence[float]) -> Mapping[str, Any]:
        """``target``: the class's name; None where unknown."""
        (number,) = target
        return {"target": None if math.isnan(number) else self.card.classes[int(number)]}

    def prediction_cells(self, prediction: Sequence[float]) -> Mapping[str, Any]:
        """``prediction``: the most probable class's name; ``probability_<class>`` for each class."""
        best = self.card.classes[max(range(len(prediction)), key=prediction.__getitem__)] if prediction else None
        values: Sequence[float | None] = prediction or (None,) * len(self.card.classes)
        shares = {f"probability_{name}": x for name, x in zip(self.card.classes, values, strict=True)}
        return {"prediction": best} | shares

    def draw(self, prediction: Tensor, target: Tensor, folder: Path, title: str) -> None:
        """``confusion.png`` and ``roc.png``."""
        probabilities, classes = known_classes(prediction, target)
        plot_confusion(probabilities, classes, folder / "confusion.png", self.card.classes, title)
        plot_roc(probabilities, classes, folder / "roc.png", self.card.classes, title)
