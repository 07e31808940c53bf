"""Small crystals that between them have what goes wrong."""

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.data import make_crystal

_FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def small_crystals(dtype: torch.dtype = torch.float32) -> list[Data]:
    """Return crystals of 1 to 6 atoms, always the same: known structures, and cells of awkward shapes.

    Rock salt NaCl, CsCl, diamond, hcp Mg, fcc Cu with one atom, rutile TiO2 in a skewed basis with atoms outside the
    cell, a long thin cell of Se, perovskite SrTiO3, zinc blende GaAs in a left-handed basis, and a made-up triclinic
    crystal without any symmetry. All are periodic in three directions, and none has a graph.

    Args:
        dtype: type of `pos` and `cell`.
    """
    crystals = [
        ("NaCl", 5.64 * _FCC, [11, 17], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]),
        ("CsCl", 4.12 * np.eye(3), [55, 17], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]),
        ("diamond", 3.567 * _FCC, [6, 6], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]),
        ("Mg", _hexagonal(3.209, 5.211), [12, 12], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]),
        ("Cu", 3.615 * _FCC, [29], [[0.0, 0.0, 0.0]]),
        ("TiO2-skewed", *_skewed_rutile()),
        ("Se-long-thin", np.diag([2.6, 2.9, 31.0]), [34, 34], [[0.1, 0.2, 0.30], [0.6, 0.7, 0.36]]),
        (
            "SrTiO3",
            3.905 * np.eye(3),
            [38, 22, 8, 8, 8],
            [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]],
        ),
        ("GaAs-left-handed", 5.653 * _FCC[[1, 0, 2]], [31, 33], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]),
        (
            "triclinic",
            np.array([[4.1, 0.0, 0.0], [1.3, 5.2, 0.0], [-0.8, 1.1, 6.3]]),
            [3, 15, 8, 8],
            [[0.03, 0.11, 0.07], [0.48, 0.55, 0.42], [0.21, 0.83, 0.35], [0.77, 0.29, 0.71]],
        ),
    ]
    return [
        make_crystal(z, np.array(fractional) @ cell, cell, (True, True, True), structure_id=name, dtype=dtype)
        for name, cell, z, fractional in crystals
    ]


def _hexagonal(a: float, c: float) -> np.ndarray:
    return np.array([[a, 0.0, 0.0], [-0.5 * a, 0.5 * np.sqrt(3.0) * a, 0.0], [0.0, 0.0, c]])


def _skewed_rutile() -> tuple[np.ndarray, list[int], np.ndarray]:
    """Rutile (a = 4.594 A, c = 2.959 A, u = 0.305) in a basis far from reduced, some of its atoms outside the cell."""
    cell = np.diag([4.594, 4.594, 2.959])
    u = 0.305
    fractional = np.array(
        [[0, 0, 0], [0.5, 0.5, 0.5], [u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
    )
    combination = np.array([[1, 0, 0], [2, 1, 0], [-3, 2, 1]])
    return combination @ cell, [22, 22, 8, 8, 8, 8], fractional @ np.linalg.inv(combination)
