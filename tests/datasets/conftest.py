"""Small crystals that the tests of the data sets share."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure


@pytest.fixture
def salt() -> Structure:
    return Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def crystals() -> list[Structure]:
    """Six different ordered crystals of 1 to 6 atoms."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(1, 7):
        cell = np.diag(rng.uniform(4, 6, 3)) + rng.uniform(-0.5, 0.5, (3, 3))
        coords = np.arange(number)[:, None] / number + rng.uniform(-0.02, 0.02, (number, 3))
        made.append(Structure(cell, rng.choice([3, 8, 11, 14, 22, 26], number).tolist(), coords))
    return made
