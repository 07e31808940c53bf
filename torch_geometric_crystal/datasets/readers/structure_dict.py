"""Structures written as dictionaries: pymatgen's ``as_dict`` and JARVIS's ``atoms``.

Read straight into arrays. No class named in a dictionary is ever imported or built, whatever the file says.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import make_crystal, validate_crystal
from torch_geometric_crystal.data.elements import ATOMIC_NUMBERS
from torch_geometric_crystal.data.validation import (
    OCCUPANCY_TOLERANCE,
    disordered_site,
    no_atoms,
    unknown_element,
)

_REMEDY = "Write structures with pymatgen's as_dict(), or as JARVIS atoms (lattice_mat, coords, elements, cartesian)"


def crystal_from_dict(raw: Mapping[str, Any], structure_id: str, dtype: torch.dtype = torch.float32) -> Data:
    """A pymatgen or JARVIS dictionary as a checked crystal.

    Args:
        raw: ``Structure.as_dict()`` or ``Molecule.as_dict()`` of pymatgen, or an ``atoms`` dictionary of JARVIS.
        structure_id: Name used in messages.
        dtype: Type of `pos` and `cell`.

    Raises:
        InvalidStructureError: if keys are absent or malformed, a site is disordered, or the crystal is invalid.
    """
    try:
        if "lattice_mat" in raw:
            z, pos, cell, pbc = _read_jarvis(raw, structure_id)
        else:
            z, pos, cell, pbc = _read_pymatgen(raw, structure_id)
    except InvalidStructureError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InvalidStructureError(
            structure_id, f"malformed structure dictionary ({type(error).__name__}: {error})", _REMEDY
        ) from error
    data = make_crystal(z, pos, cell, pbc, structure_id=structure_id, dtype=dtype)
    validate_crystal(data, structure_id)
    return data


def lattice_from_parameters(parameters: np.ndarray) -> np.ndarray:
    r"""Lattice vectors from lengths and angles: c along z, a in the xz plane, as pymatgen lays them.

    .. math::
        a = a\,(\sin\beta, 0, \cos\beta), \quad
        b = b\,(-\sin\alpha\cos\gamma^*, \sin\alpha\sin\gamma^*, \cos\alpha), \quad c = c\,(0, 0, 1), \qquad
        \cos\gamma^* = \frac{\cos\alpha\cos\beta - \cos\gamma}{\sin\alpha\sin\beta}

    Args:
        parameters: a, b, c in A and alpha, beta, gamma in degrees, (n, 6).

    Shapes:
        (n, 6) to (n, 3, 3), rows are lattice vectors.
    """
    lengths, angles = parameters[:, :3], np.deg2rad(parameters[:, 3:])
    cos, sin = np.cos(angles), np.sin(angles)
    cos_gamma_star = (cos[:, 0] * cos[:, 1] - cos[:, 2]) / (sin[:, 0] * sin[:, 1])
    gamma_star = np.arccos(np.clip(cos_gamma_star, -1.0, 1.0))
    cell = np.zeros((len(parameters), 3, 3))
    cell[:, 0, 0] = sin[:, 1]
    cell[:, 0, 2] = cos[:, 1]
    cell[:, 1, 0] = -sin[:, 0] * np.cos(gamma_star)
    cell[:, 1, 1] = sin[:, 0] * np.sin(gamma_star)
    cell[:, 1, 2] = cos[:, 0]
    cell[:, 2, 2] = 1.0
    return cell * lengths[:, :, None]


def _read_jarvis(raw: Mapping[str, Any], structure_id: str) -> tuple[list[int], np.ndarray, np.ndarray, Sequence[bool]]:
    z = [_atomic_number(symbol, index, structure_id) for index, symbol in enumerate(raw["elements"])]
    coords = _coordinates(raw["coords"], len(z), structure_id)
    cell = np.array(raw["lattice_mat"], dtype=np.float64).reshape(3, 3)
    return z, coords if raw.get("cartesian") else coords @ cell, cell, (True, True, True)


def _read_pymatgen(
    raw: Mapping[str, Any], structure_id: str
) -> tuple[list[int], np.ndarray, np.ndarray, Sequence[bool]]:
    sites = raw["sites"]
    z = [_site_number(site, index, structure_id) for index, site in enumerate(sites)]
    lattice = raw.get("lattice")
    if lattice is None:
        return z, _coordinates([site["xyz"] for site in sites], len(z), structure_id), np.eye(3), (False, False, False)
    if "matrix" in lattice:
        cell = np.array(lattice["matrix"], dtype=np.float64).reshape(3, 3)
    else:
        values = [[float(lattice[key]) for key in ("a", "b", "c", "alpha", "beta", "gamma")]]
        cell = lattice_from_parameters(np.array(values))[0]
    pbc = lattice.get("pbc", (True, True, True))
    return z, _coordinates([site["abc"] for site in sites], len(z), structure_id) @ cell, cell, pbc


def _site_number(site: Mapping[str, Any], index: int, structure_id: str) -> int:
    species = site["species"]
    if len(species) != 1 or not math.isclose(species[0]["occu"], 1.0, abs_tol=OCCUPANCY_TOLERANCE):
        raise disordered_site(structure_id, index, ", ".join(f"{s['element']} {s['occu']:g}" for s in species))
    return _atomic_number(species[0]["element"], index, structure_id)


def _atomic_number(symbol: Any, index: int, structure_id: str) -> int:
    number = ATOMIC_NUMBERS.get(symbol) or ATOMIC_NUMBERS.get(str(symbol).strip())
    if number is None:
        raise unknown_element(structure_id, index, symbol)
    return number


def _coordinates(rows: Any, num_atoms: int, structure_id: str) -> np.ndarray:
    if num_atoms == 0:
        raise no_atoms(structure_id)
    coords = np.array(rows, dtype=np.float64)
    if coords.shape != (num_atoms, 3):
        raise InvalidStructureError(
            structure_id, f"coordinates have shape {coords.shape} for {num_atoms} atoms", "Give three numbers per atom"
        )
    return coords
