"""Small crystals, and estimators so small that training takes a second."""

import numpy as np
import pytest
import torch
from ase import Atoms
from pymatgen.core import Lattice, Structure

from torch_geometric_crystal.estimators import CrystalRegressor

TINY = {"channels": 8, "num_blocks": 1, "num_heads": 2, "num_basis": 4}
SETTINGS = {
    "model_options": TINY,
    "neighborhood": {"cutoff": 3.0},
    "epochs": 2,
    "batch_size": 8,
    "recipe": {"averaging_epochs": 0},
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_crystals(number, seed=0):
    """pymatgen structures and ASE atoms in turn, and a value that depends on species and volume."""
    generator = np.random.default_rng(seed)
    structures, values = [], []
    for index in range(number):
        z = generator.choice([3, 5, 8, 11, 14, 17], size=2)
        length = generator.uniform(3.0, 4.0)
        pos = [[0, 0, 0], [length / 2] * 3]
        structures.append(
            Structure(Lattice.cubic(length), z, pos, coords_are_cartesian=True)
            if index % 2
            else Atoms(z, pos, cell=length * np.eye(3), pbc=True)
        )
        values.append(z.mean() + length)
    return structures, np.array(values)


@pytest.fixture(scope="session")
def crystals():
    return small_crystals


@pytest.fixture(scope="session")
def settings():
    """Arguments of a small estimator; not to be changed."""
    return SETTINGS


@pytest.fixture
def regressor():
    def make(**settings):
        return CrystalRegressor(**SETTINGS | settings)

    return make


@pytest.fixture(scope="session")
def fitted():
    """A fitted regressor; not to be changed."""
    structures, values = small_crystals(24)
    return CrystalRegressor(**SETTINGS).fit(structures, values)
