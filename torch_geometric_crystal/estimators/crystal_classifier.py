"""Classification from structures, as scikit-learn's tools expect it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import nn

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.check_structures import check_structures
from torch_geometric_crystal.estimators.crystal_estimator import CrystalEstimator, check_length


class CrystalClassifier(ClassifierMixin, CrystalEstimator):
    r"""A crystal model as a scikit-learn classifier of K classes, with the cross entropy as its loss.

    .. code-block:: python

        classifier = CrystalClassifier(epochs=20).fit(structures, ["metal", "insulator", ...])
        probabilities = classifier.predict_proba(structures)  # columns as classifier.classes_

    ``score`` is the accuracy. Arguments and training as for :class:`CrystalRegressor`.

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
        seed: seed of the weights, the order of the batches and the validation share.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        verbose: whether to show a bar while training (on a terminal only).

    Attributes:
        classes_: the labels, sorted, (K,).
        model_: the fitted model, with its ``card``.
        history_: one row per epoch.
        n_iter_: number of epochs.

    Shapes:
        - **X:** n pymatgen ``Structure`` or ASE ``Atoms``, mixed if need be
        - **y:** (n,) labels: integers, booleans or texts
    """

    task: ClassVar[str] = "classification"
    _fitted_names: ClassVar[tuple[str, ...]] = ("classes_",)

    def fit(self, X: Sequence[Any], y: Any) -> "CrystalClassifier":
        """Train a model anew.

        Raises:
            InvalidStructureError: for a structure that cannot be used, named by its position.
            ValueError: for labels that do not fit or are all the same, or a setting out of range.
            MissingDependencyError: without lightning.
        """
        if y is None:
            raise ValueError("CrystalClassifier requires y to be passed, but the target y is None")
        labels = np.asarray(y)
        check_argument(labels.ndim == 1, "y", "one label for each structure, shape (n,)", labels.shape)
        check_classification_targets(labels)
        structures = check_structures(X, "X")
        check_length(structures, labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        check_argument(len(classes) > 1, "y", "at least two classes", classes.tolist())
        targets = torch.tensor(numbers, dtype=torch.float32).view(-1, 1)
        self.model_ = self._train(self._graphs(structures), targets, ("target",), classes=tuple(map(str, classes)))
        self.classes_ = classes
        return self

    def predict_proba(self, X: Sequence[Any]) -> np.ndarray:
        """Return the probability of each class, (n, K), columns as in ``classes_``.

        Raises:
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
            InvalidStructureError: for a structure that cannot be used, named by its position.
        """
        return self._predict(X)

    def predict(self, X: Sequence[Any]) -> np.ndarray:
        """Return the most probable label of each structure, (n,); raises as :meth:`predict_proba`."""
        check_is_fitted(self, "model_")
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _take(self, model: nn.Module, fitted: Mapping[str, Any]) -> None:
        names: tuple[str, ...] = model.card.classes  # type: ignore[union-attr, assignment]
        numbers = [int(name) for name in names if name.lstrip("-").isdecimal()]  # of tgcrystal train, which has texts
        super()._take(model, {"classes_": numbers if len(numbers) == len(names) else names} | dict(fitted))
        self.classes_ = np.asarray(self.classes_)
