"""What may stand for a list of structures."""

import sys
from collections.abc import Sequence
from typing import Any

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.readers.table import structure_column_of

_ONE_STRUCTURE = ("Structure", "IStructure", "Molecule", "IMolecule", "Atoms", "MSONAtoms", "Data")


def check_structures(structures: Sequence[Any], name: str = "structures") -> list[Any]:
    """As :func:`list_structures`, of at least one structure.

    Raises:
        TypeError: for a single structure, or what is no list of structures.
        ValueError: for an empty list, or a DataFrame without a column of structures.
    """
    structures = list_structures(structures, name)
    check_argument(len(structures) > 0, name, "at least one structure", "none")
    return structures


def list_structures(structures: Sequence[Any], name: str) -> list[Any]:
    """Return the structures as a list, of a pandas DataFrame its column of structures.

    Raises:
        TypeError: for a single structure, or what is no list of structures.
        ValueError: for a DataFrame without a column of structures.
    """
    kind = type(structures).__name__
    is_sequence = hasattr(structures, "__iter__") or hasattr(structures, "__getitem__")
    if isinstance(structures, (str, bytes)) or kind in _ONE_STRUCTURE or not is_sequence:
        remedy = f"; give [{name}] for one" if kind in _ONE_STRUCTURE else ""
        raise TypeError(f"{name}: expected a list of pymatgen structures, ASE atoms or Data, received {kind}{remedy}")
    if is_data_frame(structures):
        frame: Any = structures
        columns = [str(column) for column in frame.columns]
        structures = frame.iloc[:, columns.index(structure_column_of(columns, None, f"{name}, a DataFrame"))]
    return list(structures)


def is_data_frame(value: Any) -> bool:
    """Whether this is a pandas DataFrame, without importing pandas."""
    return "pandas" in sys.modules and isinstance(value, sys.modules["pandas"].DataFrame)
