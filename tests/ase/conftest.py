"""A small model of energies with random weights, in float64, and a distorted crystal."""

import numpy as np
import pytest
import torch
from ase.spacegroup import crystal as make_atoms

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.run import build_run_model

TINY = {"channels": 16, "num_blocks": 1, "num_heads": 2, "num_basis": 8}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_model():
    """A Crystalformer of energies per atom with random weights, scaled up to forces of some eV/A."""

    def make(unit="eV/atom", names=("energy",), scale=2e3, model="crystalformer", **options):
        options = (TINY if model == "crystalformer" else {}) | options
        units = [unit] * len(names)
        built = build_run_model(RunConfig(model=model, model_options=options, seed=3), names, units)
        built.normalization.std.fill_(scale)
        built.normalization.mean.fill_(-3.0)
        return built.double().eval()

    return make


@pytest.fixture
def rutile():
    """Titanium dioxide with its atoms displaced by some hundredths of an Angstrom."""
    atoms = make_atoms(
        ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.59, 4.59, 2.96, 90, 90, 90]
    )
    atoms.positions += np.random.default_rng(0).normal(scale=0.04, size=atoms.positions.shape)
    return atoms
