import builtins

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.crystals import random_crystals
from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError
from torch_geometric_crystal.data.neighbors import neighbor_list, periodic_images
from torch_geometric_crystal.ops.lattice import reduce_lattice


def as_set(target, source, shift):
    return set(map(tuple, np.column_stack([target, source, shift]).tolist()))


@settings(max_examples=1000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_crystals(), st.floats(0.5, 7.0))
def test_neighbors_are_those_of_plain_enumeration(crystal, cutoff):
    target, source, shift, dist = neighbor_list(crystal.pos, crystal.cell, crystal.pbc, cutoff)
    expected_target, expected_source, expected_shift, expected_dist = crystal.images(cutoff + 1e-6)
    assume((abs(expected_dist - cutoff) > 1e-9).all())
    other = ((expected_target != expected_source) | expected_shift.any(axis=1)) & (expected_dist <= cutoff)
    expected = as_set(expected_target[other], expected_source[other], expected_shift[other])
    assert as_set(target, source, shift) == expected
    assert len(target) == other.sum()
    np.testing.assert_allclose(np.sort(dist), np.sort(expected_dist[other]), atol=1e-9)
    vectors = crystal.pos[source] - crystal.pos[target] + shift @ crystal.cell
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), dist, atol=1e-9)


def test_lattice_vectors_of_directions_that_do_not_repeat_do_not_matter():
    pos = np.array([[0.0, 0, 0], [0, 0, 2.5], [0.5, 0, -30.0]])
    pbc = np.array([True, True, False])
    cell = np.diag([3.0, 3.0, 4.0])
    slanted = cell.copy()
    slanted[2] = [100.0, 7.0, 0.001]
    found = [as_set(*neighbor_list(pos, c, pbc, 6.0)[:3]) for c in (cell, slanted)]
    assert found[0] == found[1]
    assert all(shift_c == 0 for *_, shift_c in found[0])


def test_atoms_of_a_molecule_may_be_very_far_apart():
    pos = np.array([[0.0, 0, 0], [1e6, 0, 0], [1e6, 1.5, 0], [0, 0, -3e7]])
    target, source, _, dist = neighbor_list(pos, np.eye(3), np.zeros(3, dtype=bool), 5.0)
    assert sorted(zip(target.tolist(), source.tolist(), strict=True)) == [(1, 2), (2, 1)]
    np.testing.assert_allclose(dist, 1.5)


def test_two_atoms_at_one_place_are_neighbours_at_distance_zero():
    pos = np.array([[0.1, 0.2, 0.3], [5.1, 0.2, 0.3]])
    target, source, shift, dist = neighbor_list(pos, 5.0 * np.eye(3), np.ones(3, dtype=bool), 1.0)
    assert as_set(target, source, shift) == {(0, 1, -1, 0, 0), (1, 0, 1, 0, 0)}
    np.testing.assert_allclose(dist, 0.0, atol=1e-12)


def test_one_atom_cell_sees_its_own_images_but_not_itself():
    target, source, shift, dist = neighbor_list(np.zeros((1, 3)), 2.0 * np.eye(3), np.ones(3, dtype=bool), 2.0)
    assert (target == 0).all()
    assert (source == 0).all()
    assert len(shift) == 6
    np.testing.assert_allclose(dist, 2.0)


def test_cutoff_is_inclusive_and_nothing_beyond_it_is_listed():
    images = periodic_images(np.zeros((1, 3)), reduce_lattice(2.0 * np.eye(3), np.ones(3, dtype=bool)), 2.0)
    assert len(images.dist) == 7
    below = np.nextafter(2.0, 0.0)
    images = periodic_images(np.zeros((1, 3)), reduce_lattice(2.0 * np.eye(3), np.ones(3, dtype=bool)), below)
    assert images.dist.tolist() == [0.0]


@pytest.mark.parametrize("cutoff", [-1.0, np.nan, np.inf])
def test_cutoff_has_to_be_a_length(cutoff):
    with pytest.raises(ValueError, match="cutoff: expected a finite length >= 0 in A"):
        neighbor_list(np.zeros((1, 3)), np.eye(3), np.ones(3, dtype=bool), cutoff)


def test_missing_pymatgen_is_named(monkeypatch):
    real_import = builtins.__import__

    def no_pymatgen(name, *args, **kwargs):
        if name.startswith("pymatgen"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pymatgen)
    with pytest.raises(MissingDependencyError, match="'pymatgen' is needed"):
        neighbor_list(np.zeros((1, 3)), np.eye(3), np.ones(3, dtype=bool), 1.0)


def test_a_search_that_would_exhaust_the_memory_is_refused_before_it_begins():
    with pytest.raises(InvalidStructureError, match=r"structure 'tiny': within 10 A it has about 4.2e.09 pairs"):
        neighbor_list(np.zeros((1, 3)), 0.01 * np.eye(3), np.ones(3, dtype=bool), 10.0, "tiny")
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidStructureError, match="pairs of 20000 atoms and their images"):
        neighbor_list(rng.random((20_000, 3)), 10.0 * np.eye(3), np.ones(3, dtype=bool), 10.0)


def test_a_cell_with_few_atoms_far_apart_is_searched_with_larger_bins():
    cell, pbc = 50_000.0 * np.eye(3), np.ones(3, dtype=bool)
    pos = np.array([[0.0, 0, 0], [0, 0, 3.0], [25_000, 25_000, 25_000], [49_999, 0, 0]])
    target, source, shift, dist = neighbor_list(pos, cell, pbc, 5.0)
    found = sorted(zip(target.tolist(), source.tolist(), shift.tolist(), dist.round(6).tolist(), strict=True))
    assert [row[:2] for row in found] == [(0, 1), (0, 3), (1, 0), (1, 3), (3, 0), (3, 1)]
    assert found[1][2:] == ([-1, 0, 0], 1.0)
