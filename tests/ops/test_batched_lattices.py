import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crystals import random_crystals
from torch_geometric_crystal.ops.batched_lattices import reduce_lattices
from torch_geometric_crystal.ops.lattice import reduce_lattice


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(random_crystals(), min_size=1, max_size=5))
def test_each_lattice_is_reduced_as_it_is_alone(crystals):
    together = reduce_lattices(np.stack([c.cell for c in crystals]), np.stack([c.pbc for c in crystals]))
    for crystal, basis, periodic in zip(crystals, together.basis, together.periodic, strict=True):
        alone = reduce_lattice(crystal.cell, crystal.pbc)
        rank = len(alone.basis)
        assert periodic.tolist() == [row < rank for row in range(3)]
        np.testing.assert_allclose(np.linalg.norm(basis[:rank], axis=1), np.linalg.norm(alone.basis, axis=1))


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_crystals())
def test_the_transform_is_unimodular_and_leads_back_to_the_cell(crystal):
    lattices = reduce_lattices(crystal.cell[None], crystal.pbc[None])
    transform, rank = lattices.transform[0], int(crystal.pbc.sum())
    assert abs(round(np.linalg.det(transform))) == 1
    assert not transform[:rank][:, ~crystal.pbc].any()
    np.testing.assert_allclose(transform[:rank] @ crystal.cell, lattices.basis[0, :rank], atol=1e-9)


def test_directions_that_do_not_repeat_are_completed_by_orthogonal_unit_vectors():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(8, 3, 3)) * 4.0
    pbc = np.array([[bool(n & 1), bool(n & 2), bool(n & 4)] for n in range(8)])
    lattices = reduce_lattices(cells, pbc)
    for basis, rank in zip(lattices.basis, pbc.sum(axis=1), strict=True):
        gram = basis @ basis.T
        np.testing.assert_allclose(gram[rank:, rank:], np.eye(3 - rank), atol=1e-12)
        np.testing.assert_allclose(gram[rank:, :rank], 0.0, atol=1e-12)


def test_vectors_in_a_plane_are_refused_by_crystal():
    cells = np.stack([np.eye(3), [[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]])
    with pytest.raises(ValueError, match=r"cell: expected linearly independent vectors .* \(crystal 1 of the batch\)"):
        reduce_lattices(cells, np.ones((2, 3), dtype=bool))
    pbc = np.array([[True, True, True], [True, True, False]])
    assert reduce_lattices(cells, pbc).periodic.tolist() == pbc.tolist()
