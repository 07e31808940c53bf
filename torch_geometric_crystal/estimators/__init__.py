"""scikit-learn estimators that take lists of structures."""

from typing import TYPE_CHECKING, Any

from torch_geometric_crystal.checks import MissingDependencyError

if TYPE_CHECKING:
    from torch_geometric_crystal.estimators.crystal_classifier import CrystalClassifier
    from torch_geometric_crystal.estimators.crystal_regressor import CrystalRegressor

__all__ = ["CrystalClassifier", "CrystalRegressor"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "sklearn") from error
    from torch_geometric_crystal.estimators import crystal_classifier, crystal_regressor

    return getattr(crystal_classifier if name == "CrystalClassifier" else crystal_regressor, name)


def __dir__() -> list[str]:
    return sorted(__all__)
