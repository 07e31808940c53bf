"""ASE: a model trained on energies as a calculator of energies, forces and stress."""

from typing import TYPE_CHECKING, Any

from torch_geometric_crystal.checks import MissingDependencyError

if TYPE_CHECKING:
    from torch_geometric_crystal.ase.calculator import CrystalCalculator

__all__ = ["CrystalCalculator"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import ase  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("ase", "ase") from error
    from torch_geometric_crystal.ase.calculator import CrystalCalculator

    return CrystalCalculator


def __dir__() -> list[str]:
    return sorted(__all__)
