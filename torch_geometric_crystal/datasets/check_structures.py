"""What may stand for a list of structures."""

import sys
from collections.abc import Sequence
from typing import Any

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.readers.table import structure_column_of

_ONE_STRUCTURE = ("Structure", "IStructure", "Molecule", "IMolecule", "Atoms", "MSONAtoms", "Data")


def check_structures(structures: Sequence[Any], name: str = "structures") -> list[Any]:
    """Return the structures as a list, of a pandas DataFrame its column of structures.

    Raises:
        TypeError: for a single structure, or what is no list of structures.
        ValueError: for an empty list, or a DataFrame without such a column.
    """
    kind = type(structures).__name__
    if isinstance(structures, (str, bytes)) or kind in _ONE_STRUCTURE or not hasattr(structures, "__iter__"):
        remedy = f"; give [{name}] for one" if kind in _ONE_STRUCTURE else ""
        raise TypeError(f"{name}: expected a list of pymatgen structures or ASE atoms, received {kind}{remedy}")
    if is_data_frame(structures):
        frame: Any = structures
        columns = [str(column) for column in frame.columns]
        structures = frame.iloc[:, columns.index(structure_column_of(columns, None, f"{name}, a DataFrame"))]
    structures = list(structures)
    check_argument(len(structures) > 0, name, "at least one structure", "none")
    return structures


def is_data_frame(value: Any) -> bool:
    """Whether this is a pandas DataFrame, without importing pandas."""
    return "pandas" in sys.modules and isinstance(value, sys.modules["pandas"].DataFrame)
