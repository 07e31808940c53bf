import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crystals import random_crystals
from torch_geometric_crystal.ops.lattice import (
    count_polynomials,
    edge_vectors,
    gram_schmidt_lengths,
    lattice_points,
    reciprocal_cell,
    reduce_basis,
    reduce_lattice,
)

some = settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def test_edge_vectors_follow_source_minus_target_with_the_cell_of_each_crystal():
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)
    cell = torch.stack([2.0 * torch.eye(3, dtype=torch.float64), 5.0 * torch.eye(3, dtype=torch.float64)])
    edge_index = torch.tensor([[1, 2], [0, 2]])
    edge_shift = torch.tensor([[1, 0, 0], [0, -1, 0]], dtype=torch.int32)
    vectors = edge_vectors(pos, cell, edge_index, edge_shift, torch.tensor([0, 0, 1]))
    assert torch.equal(vectors, torch.tensor([[3.0, 0, 0], [0, -5, 0]], dtype=torch.float64))


def test_edge_vectors_are_differentiable_in_pos_and_cell():
    pos = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    cell = (3.0 * torch.eye(3, dtype=torch.float64) + torch.rand(1, 3, 3, dtype=torch.float64)).requires_grad_()
    edge_index = torch.tensor([[0, 1, 0], [1, 0, 0]])
    edge_shift = torch.tensor([[0, 0, 0], [1, -1, 2], [0, 1, 0]])
    assert torch.autograd.gradcheck(lambda p, c: edge_vectors(p, c, edge_index, edge_shift), (pos, cell))


def test_edge_vectors_ask_for_batch_where_there_are_several_cells():
    with pytest.raises(ValueError, match="batch: expected the crystal of each atom"):
        edge_vectors(torch.zeros(2, 3), torch.ones(2, 3, 3), torch.zeros(2, 1, dtype=torch.long), torch.zeros(1, 3))


def test_edge_vectors_refuse_a_cell_without_the_crystal_axis():
    with pytest.raises(ValueError, match=r"cell: expected shape \(\*, 3, 3\), received \(3, 3\)"):
        edge_vectors(torch.zeros(2, 3), torch.eye(3), torch.zeros(2, 1, dtype=torch.long), torch.zeros(1, 3))


def test_reciprocal_cell_is_dual_to_the_cell():
    cell = torch.eye(3, dtype=torch.float64) + 0.3 * torch.rand(4, 3, 3, dtype=torch.float64)
    products = cell @ reciprocal_cell(cell).transpose(-1, -2)
    torch.testing.assert_close(products, 2.0 * math.pi * torch.eye(3, dtype=torch.float64).expand(4, 3, 3))


@some
@given(random_crystals())
def test_reduced_basis_spans_the_same_lattice_and_is_short(crystal):
    basis = crystal.cell[crystal.pbc]
    reduced, transform = reduce_basis(basis)
    assert round(abs(np.linalg.det(transform))) == 1
    np.testing.assert_allclose(transform @ basis, reduced)
    gram = reduced @ reduced.T
    lengths = np.sqrt(np.diagonal(gram))
    assert (np.diff(lengths) >= -1e-9 * lengths[:-1]).all()
    for i in range(len(reduced)):
        for j in range(i):
            assert abs(gram[i, j]) <= 0.5 * gram[j, j] * (1 + 1e-9)


@some
@given(random_crystals())
def test_a_skewed_basis_reduces_to_the_lengths_of_the_plain_one(crystal):
    plain = reduce_basis(crystal.core[crystal.pbc])[0]
    skewed = reduce_lattice(crystal.cell, crystal.pbc).basis
    np.testing.assert_allclose(np.linalg.norm(skewed, axis=1), np.linalg.norm(plain, axis=1), rtol=1e-9)


def test_gram_schmidt_lengths_multiply_to_the_volume():
    basis = np.array([[3.0, 0, 0], [1, 2, 0], [0.5, -0.7, 4]])
    np.testing.assert_allclose(gram_schmidt_lengths(basis), [3.0, 2.0, 4.0])
    assert gram_schmidt_lengths(np.zeros((0, 3))).prod() == 1.0


@settings(max_examples=2000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_crystals(), st.floats(0.0, 6.0), st.integers(0, 1000))
def test_no_ball_holds_more_lattice_points_than_any_counting_polynomial(crystal, radius, seed):
    core = crystal.core[crystal.pbc]
    polynomials = count_polynomials(gram_schmidt_lengths(reduce_lattice(crystal.cell, crystal.pbc).basis))
    rng = np.random.default_rng(seed)
    centre = rng.random(len(core)) @ core + rng.choice([0.0, 1.0]) * rng.normal(size=3)
    dual = np.linalg.norm(np.linalg.pinv(core), axis=0) if len(core) else np.ones(0)
    reach = np.floor((radius + np.linalg.norm(centre)) * dual).astype(int) + 1
    axes = np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij")
    points = np.stack([a.ravel() for a in axes], 1) @ core if len(core) else np.zeros((1, 3))
    inside = int((((points - centre) ** 2).sum(1) <= radius**2).sum())
    bounds = polynomials @ radius ** np.arange(polynomials.shape[1])
    assert (bounds >= inside * (1 - 1e-12)).all()


def test_counting_polynomials_approach_the_density_for_large_balls():
    polynomials = count_polynomials(np.array([3.0, 4.0, 5.0]))
    bound = (polynomials @ 1000.0 ** np.arange(4)).min()
    assert bound == pytest.approx(4.0 / 3.0 * math.pi * 1000.0**3 / 60.0, rel=0.02)


def test_a_single_point_is_counted_as_one():
    np.testing.assert_array_equal(count_polynomials(np.zeros(0)), [[1.0]])


def test_lattice_points_of_a_skewed_basis_are_those_of_the_cubic_one():
    skew = np.array([[1, 0, 0], [5, 1, 0], [-3, 7, 1]])
    points, lengths = lattice_points(2.0 * skew.astype(float), 6.1)
    grid = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    expected = grid[(grid**2).sum(1) * 4 <= 6.1**2]
    assert {tuple(p) for p in (points @ skew).tolist()} == {tuple(p) for p in expected.tolist()}
    assert len(points) == len(expected)
    np.testing.assert_allclose(lengths, 2.0 * np.linalg.norm(points @ skew, axis=1))


def test_lattice_points_of_no_lattice_are_the_origin():
    points, lengths = lattice_points(np.zeros((0, 3)), 3.0)
    assert points.shape == (1, 0)
    assert lengths.tolist() == [0.0]
