"""Regression from structures, as scikit-learn's tools expect it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from torch_geometric_crystal.benchmark.structures import check_structures
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.estimators.crystal_estimator import CrystalEstimator, check_length


class CrystalRegressor(RegressorMixin, CrystalEstimator):
    r"""A crystal model as a scikit-learn regressor: for ``cross_val_score``, ``GridSearchCV``, ``Pipeline``.

    .. code-block:: python

        scores = cross_val_score(CrystalRegressor(epochs=20), structures, y, cv=5, scoring="neg_mean_absolute_error")

    Training is that of ``tgcrystal train`` in a temporary folder that is removed: a share `val_fraction` of the
    structures chooses the best epoch, unless the recipe averages the weights of its last epochs. ``score`` is
    scikit-learn's :math:`R^2`.

    Args:
        model: name of the model in ``torch_geometric_crystal.nn.models.MODELS``.
        model_options: arguments of its class.
        neighborhood: arguments of ``model.neighborhood``, such as ``{"tol": 1e-3}``.
        epochs: passes over the training set. (default: as the recipe)
        batch_size: size of a batch in training and prediction. (default: as the recipe; 64 in prediction)
        lr: learning rate. (default: as the recipe)
        recipe: name of a preset, or settings of :class:`~torch_geometric_crystal.benchmark.Recipe`, which `epochs`,
            `batch_size` and `lr` change. (default: the recipe of the model's paper)
        val_fraction: share of the structures given to :meth:`fit` on which the epochs are compared; 0 for none.
        seed: seed of the weights, the order of the batches and the validation share. The global random states are
            left as they were.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        verbose: whether to show a bar while training (on a terminal only).

    Attributes:
        model_: the fitted model, with its ``card``.
        history_: one row per epoch: epoch, train_loss, val_mae_target, lr, seconds.
        n_iter_: number of epochs.
        one_dimensional_: whether `y` was of shape (n,), as predictions then are.

    Shapes:
        - **X:** n pymatgen ``Structure`` or ASE ``Atoms``, mixed if need be
        - **y:** (n,) or (n, T), NaN where a target is unknown
    """

    task: ClassVar[str] = "regression"
    _fitted_names: ClassVar[tuple[str, ...]] = ("one_dimensional_",)

    def fit(self, X: Sequence[Any], y: Any) -> "CrystalRegressor":
        """Train a model anew.

        Raises:
            InvalidStructureError: for a structure that cannot be used, named by its position.
            ValueError: for targets that do not fit, or a setting out of range.
            MissingDependencyError: without lightning.
        """
        values = _as_targets(y)
        structures = check_structures(X, "X")
        check_length(structures, values)
        table = values.reshape(len(values), -1)
        width = table.shape[1]
        names = ("target",) if width == 1 else tuple(f"target_{index}" for index in range(1, width + 1))
        self.model_ = self._train(self._graphs(structures), torch.tensor(table, dtype=torch.float32), names)
        self.one_dimensional_ = values.ndim == 1
        return self

    def predict(self, X: Sequence[Any]) -> np.ndarray:
        """Return the predictions, (n,) or (n, T) as the targets were.

        Raises:
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
            InvalidStructureError: for a structure that cannot be used, named by its position.
        """
        check_is_fitted(self, "model_")
        values = self._predict(X)
        return values[:, 0] if self.one_dimensional_ else values

    def _take(self, model: nn.Module, fitted: Mapping[str, Any]) -> None:
        self.one_dimensional_ = len(model.card.target_names) == 1  # type: ignore[union-attr,arg-type]
        super()._take(model, fitted)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _as_targets(y: Any) -> np.ndarray:
    if y is None:
        raise ValueError("CrystalRegressor requires y to be passed, but the target y is None")
    try:
        values = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y: expected numbers ({error}); for classes use CrystalClassifier") from error
    check_argument(values.ndim in (1, 2) and values.size > 0, "y", "shape (n,) or (n, T)", values.shape)
    check_argument(not np.isinf(values).any(), "y", "finite numbers, or NaN where unknown", "infinity")
    return values
