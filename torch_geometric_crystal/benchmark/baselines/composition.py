"""Gradient boosting on features of the composition, with scikit-learn."""

from typing import Any

import numpy as np

from torch_geometric_crystal.checks import MissingDependencyError, check_choice

SETTINGS: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_iter": 500,
    "max_leaf_nodes": 31,
    "min_samples_leaf": 5,
    "l2_regularization": 1.0,
    "max_features": 0.3,
    "early_stopping": False,
}
"""Settings of ``HistGradientBoostingRegressor`` and ``HistGradientBoostingClassifier``, the same for every task; the
regressor minimises the absolute error, which is what is compared."""


def predict_from_composition(
    features: np.ndarray, values: np.ndarray, wanted: np.ndarray, kind: str = "regression", seed: int = 0
) -> np.ndarray:
    """Learn from the features of some crystals and predict others.

    Args:
        features: of the training part, see :func:`~torch_geometric_crystal.benchmark.baselines.composition_features`.
        values: targets of the training part; 1 and 0 in a classification.
        wanted: features of the crystals to predict.
        kind: ``"regression"`` or ``"classification"``.
        seed: seed of the choice of features at each split.

    Shapes:
        - features: (n, F), values: (n,), wanted: (m, F), result: (m,), probabilities of 1 in a classification.

    Raises:
        MissingDependencyError: without scikit-learn.
        ValueError: for another kind.
    """
    check_choice("kind", kind, ("regression", "classification"))
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "matbench") from error

    if kind == "regression":
        model = HistGradientBoostingRegressor(loss="absolute_error", random_state=seed, **SETTINGS)
        return model.fit(features, values).predict(wanted)
    classifier = HistGradientBoostingClassifier(random_state=seed, **SETTINGS)
    return classifier.fit(features, values > 0.5).predict_proba(wanted)[:, 1]
