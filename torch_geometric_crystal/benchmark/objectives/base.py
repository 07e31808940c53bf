"""What training, evaluation and files need to know of a task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.nn.readout import TargetNormalization


class Objective(ABC):
    """A kind of task. Rows are crystals, or atoms where targets are values of each atom.

    Args:
        card: of the model; names of targets, units and classes matter here.

    Shapes:
        - output of the model: (n, K), prediction: (n, K), target: (n, T), NaN where unknown
    """

    error: ClassVar[str]
    """The metric by which epochs and runs are compared; the lower the better."""
    baseline_name: ClassVar[str]
    """What :meth:`baseline` predicts, in words."""
    pictures: ClassVar[tuple[str, ...]]
    """Names of the files of :meth:`draw`."""

    def __init__(self, card: ModelCard):
        self.card = card

    @abstractmethod
    def fit_normalization(self, normalization: TargetNormalization, target: Tensor, standardize: bool) -> None:
        """Set how the model's output is scaled, from the training targets."""

    @abstractmethod
    def total_loss(self, output: Tensor, target: Tensor, std: Tensor, kind: str) -> Tensor:
        """The sum of the loss over the known targets, differentiable.

        Args:
            output: of the model.
            target: true values.
            std: the targets' standard deviations, (T,).
            kind: the recipe's loss.
        """

    @abstractmethod
    def validate(self, output: Tensor, target: Tensor, std: Tensor) -> tuple[dict[str, float], float]:
        """Columns for the history, by name, and the error by which epochs are compared."""

    def predict(self, output: Tensor) -> Tensor:
        """What is reported for a model's output."""
        return output

    @abstractmethod
    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, dict[str, Any]]:
        """Metrics of each target, by name; NaN where there are too few values."""

    @abstractmethod
    def baseline(self, train: Tensor, test: Tensor) -> dict[str, dict[str, Any]]:
        """Metrics of predicting the same for every row, taken from the training targets: what a model must beat."""

    @abstractmethod
    def target_cells(self, target: Sequence[float]) -> Mapping[str, Any]:
        """Names and values of a row's true values in a table."""

    @abstractmethod
    def prediction_cells(self, prediction: Sequence[float]) -> Mapping[str, Any]:
        """Names and values of a row's prediction in a table; without values (an empty sequence) all are None."""

    @abstractmethod
    def draw(self, prediction: Tensor, target: Tensor, folder: Path, title: str) -> None:
        """Draw the pictures."""
