"""The estimated numbers of edges and waves are close to the certified ones, and the cheaper domain follows."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from tests.crystals import real_crystals
from torch_geometric_crystal.ops.domain_cost import (
    cheaper_domain,
    estimated_edges,
    estimated_waves,
    real_space_cost,
    reciprocal_space_cost,
)
from torch_geometric_crystal.transforms import InfiniteNeighborhood

SIGMA_MAX, SIGMA_MIN, SPREAD = 1.98, 0.9, 1.5


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_estimates_are_close_to_the_certified_numbers(tol):
    transform = InfiniteNeighborhood(tol=tol, sigma_max=SIGMA_MAX, reciprocal_sigma_min=SIGMA_MIN)
    for pos, cell in real_crystals(step=200):
        volume, num_atoms = abs(np.linalg.det(cell)), len(pos)
        data = transform(Data(z=torch.ones(num_atoms).long(), pos=torch.tensor(pos), cell=torch.tensor(cell)[None]))
        edges = estimated_edges(num_atoms, volume, SIGMA_MAX, tol, SPREAD) / data.edge_index.size(1)
        waves = estimated_waves(num_atoms, volume, SIGMA_MIN, tol, SPREAD) / data.num_wave_vectors.item()
        assert 0.7 < edges < 1.3
        assert 0.7 < waves < 1.3


def test_a_given_cutoff_counts_the_atoms_within_it():
    assert estimated_edges(4, 40.0, SIGMA_MAX, 1e-3, SPREAD, cutoff=5.0) == pytest.approx(4 * np.pi / 3 * 125 * 0.1 * 4)
    assert estimated_edges(4, 40.0, SIGMA_MAX, 1e-3, SPREAD, cutoff=0.0) == 4


@pytest.mark.parametrize("volume_per_atom", [8.0, 15.0, 40.0])
def test_waves_pay_for_small_cells_and_edges_for_large_ones(volume_per_atom):
    sizes = [1, 2, 4, 8, 16, 64, 256]
    chosen = [cheaper_domain(n, n * volume_per_atom, SIGMA_MAX, 1.2, 1e-4, SPREAD) for n in sizes]
    assert chosen[0] == "reciprocal"
    assert chosen[-1] == "real"
    assert sorted(chosen, reverse=True) == chosen  # there is one size at which the choice changes


def test_the_choice_is_the_smaller_of_the_two_costs():
    chosen = set()
    for sigma_min in (0.5, 0.9, 1.5):
        edges = estimated_edges(3, 45.0, SIGMA_MAX, 1e-3, SPREAD)
        waves = estimated_waves(3, 45.0, sigma_min, 1e-3, SPREAD)
        cheaper = "reciprocal" if reciprocal_space_cost(3, waves) < real_space_cost(3, edges) else "real"
        assert cheaper_domain(3, 45.0, SIGMA_MAX, sigma_min, 1e-3, SPREAD) == cheaper
        chosen.add(cheaper)
    assert chosen == {"real", "reciprocal"}
