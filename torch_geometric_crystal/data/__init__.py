"""Structures to PyG `Data` and back, and the checks of what comes in."""

from torch_geometric_crystal.data.ase_atoms import from_ase_atoms, to_ase_atoms
from torch_geometric_crystal.data.structures import from_structure, make_crystal, to_structure
from torch_geometric_crystal.data.validation import OverlappingAtomsWarning, validate_crystal, validate_structure

__all__ = [
    "OverlappingAtomsWarning",
    "from_ase_atoms",
    "from_structure",
    "make_crystal",
    "to_ase_atoms",
    "to_structure",
    "validate_crystal",
    "validate_structure",
]
