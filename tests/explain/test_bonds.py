"""Bonds by CrystalNN as edges, shares and recalls against brute force."""

import dataclasses
import itertools

import numpy as np
import pytest
from pymatgen.core import Lattice, Molecule, Structure

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.explain import (
    Bonds,
    attention_maps,
    bond_peaks,
    bond_recall,
    bond_shares,
    crystal_nn_bonds,
    peak_correlation,
)
from torch_geometric_crystal.explain.bonds import _recall
from torch_geometric_crystal.explain.peaks import BondPeaks

NEAREST = np.array([0, 1, 1, 0, 0, 0, 1, 1, 0, 0], dtype=bool)


@pytest.fixture
def hand_bonds():
    return Bonds(NEAREST, np.array([2, 2]))


def test_rock_salt_has_six_bonds_at_half_the_edge_of_its_cell(make_model, rocksalt):
    (found,) = attention_maps(make_model(), [rocksalt])
    bonds = crystal_nn_bonds(found)
    assert bonds.num_bonds.tolist() == [6] * 8
    assert bonds.is_bond.sum() == 48
    np.testing.assert_allclose(found.dist[bonds.is_bond], 5.64 / 2, rtol=1e-6)
    kinds = found.z[found.source] != found.z[found.target]
    assert kinds[bonds.is_bond].all()


def test_bonds_do_not_depend_on_where_the_cell_is_cut(make_model, rutile):
    model = make_model()
    moved = rutile.copy()
    moved.translate_sites([1], [2, -1, 0], to_unit_cell=False)
    moved.translate_sites([4], [0, 0, -3], to_unit_cell=False)
    first, second = attention_maps(model, [rutile, moved])
    bonds = crystal_nn_bonds(first), crystal_nn_bonds(second)
    assert bonds[0].num_bonds.tolist() == bonds[1].num_bonds.tolist() == [6, 6, 3, 3, 3, 3]
    for each, bond in zip((first, second), bonds, strict=True):
        assert each.sum_by_target(bond.is_bond.astype(float)).tolist() == bond.num_bonds.tolist()
    lengths = [np.sort(each.dist[bond.is_bond]) for each, bond in zip((first, second), bonds, strict=True)]
    np.testing.assert_allclose(*lengths, atol=1e-5)


def test_crystals_that_are_not_periodic_are_refused(make_model):
    maps = attention_maps(make_model(), [Molecule(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])])
    with pytest.raises(InvalidStructureError, match="three periodic directions"):
        crystal_nn_bonds(maps[0])


def test_shares_on_bonds_by_hand(by_hand, hand_bonds):
    shares = bond_shares([by_hand], [hand_bonds], within=5.0)
    np.testing.assert_allclose(shares.of_all, [[0.35]])
    np.testing.assert_allclose(shares.in_range, [[(0.4 / 0.6 + 0.3 / 0.4) / 2]])
    np.testing.assert_allclose(shares.in_range_decay, [[0.5]])
    assert shares.in_range_uniform == pytest.approx(0.5)
    assert shares.num_atoms == 2
    np.testing.assert_allclose(bond_shares([by_hand], [hand_bonds], within=3.0).in_range, [[1.0]])


def test_atoms_without_a_bond_do_not_count(by_hand):
    one = Bonds(NEAREST & (by_hand.target == 0), np.array([2, 0]))
    shares = bond_shares([by_hand], [one])
    assert shares.num_atoms == 1
    np.testing.assert_allclose(shares.of_all, [[0.4]])
    none = Bonds(np.zeros(10, dtype=bool), np.zeros(2, dtype=int))
    for function in (bond_shares, bond_recall, bond_peaks):
        with pytest.raises(ValueError, match="bond"):
            function([by_hand], [none])
        with pytest.raises(ValueError, match="one for each of 1 maps"):
            function([by_hand], [])


def test_equal_weights_within_the_range_give_the_share_of_bonds_among_images(make_model, rocksalt):
    (found,) = attention_maps(make_model(), [rocksalt])
    bonds = crystal_nn_bonds(found)
    counts = [6 + 12, 6 + 12 + 8]  # images of rock salt within 4.5 A and 5 A: a/2, a/sqrt(2), a sqrt(3)/2
    for within, count in zip((4.5, 5.0), counts, strict=True):
        assert bond_shares([found], [bonds], within).in_range_uniform == pytest.approx(6 / count)
    even = dataclasses.replace(found, weights=np.ones_like(found.weights))
    np.testing.assert_allclose(bond_shares([even], [bonds], 5.0).in_range, 6 / 26)


def test_recall_draws_ties_at_random():
    generator = np.random.default_rng(0)
    for _ in range(20):
        weights = generator.integers(1, 4, size=6).astype(float)
        hits = generator.random(6) < 0.5
        number = int(generator.integers(1, 6))
        orders = [sorted(order, key=lambda k: -weights[k]) for order in itertools.permutations(range(6))]
        expected = np.mean([hits[order[:number]].sum() / number for order in orders])
        assert _recall(weights, hits, number) == pytest.approx(expected)


def test_a_gaussian_finds_the_bonds_of_rock_salt_first(make_model, rocksalt):
    (found,) = attention_maps(make_model(), [rocksalt])
    gaussian = dataclasses.replace(found, weights=found.decay_weights)
    recall, nearest = bond_recall([gaussian], [crystal_nn_bonds(found)])
    np.testing.assert_allclose(recall, 1.0)
    assert nearest == 1.0


def test_bonds_beyond_the_graph_count_as_missed(by_hand):
    recall, nearest = bond_recall([by_hand], [Bonds(NEAREST, np.array([4, 4]))])
    np.testing.assert_allclose(recall, 0.5)
    assert nearest == 0.5


def test_peaks_by_hand_and_their_correlation(by_hand, hand_bonds):
    peaks = bond_peaks([by_hand], [hand_bonds])
    assert peaks.pairs == (("Na", "Cl"), ("Cl", "Na"))
    np.testing.assert_allclose(peaks.bond_length, [2.0, 2.0])
    np.testing.assert_allclose(peaks.peak, [[[2.0, 2.0]]])
    assert peaks.num_atoms.tolist() == [1, 1]


def test_a_peak_is_at_the_shell_of_the_largest_sum(make_model):
    # Two O at 2.0 A along c with little weight, four at 2.3 A in the plane with more.
    structure = Structure(
        Lattice.tetragonal(4.6, 4.0), ["Ti", "O", "O", "O"], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    )
    (found,) = attention_maps(make_model(), [structure])
    bonds = crystal_nn_bonds(found)
    mine = (found.target == 0) & bonds.is_bond
    assert mine.sum() == 6
    weights = np.where(mine & (found.dist < 2.1), 0.2, np.where(mine, 0.15, 0.0)) * np.ones_like(found.weights)
    peaks = bond_peaks([dataclasses.replace(found, weights=weights)], [bonds])
    place = peaks.pairs.index(("Ti", "O"))
    np.testing.assert_allclose(peaks.peak[..., place], 2.3, rtol=1e-6)
    assert peaks.bond_length[place] == pytest.approx((2 * 2.0 + 4 * 2.3) / 6)


def test_correlation_is_pearsons_over_pairs_with_enough_atoms():
    generator = np.random.default_rng(0)
    lengths, places = generator.random(6), generator.random((2, 3, 6))
    places[0, 0] = 1.0  # does not vary
    peaks = BondPeaks((("A", "B"),) * 6, lengths, places, places[::-1], np.array([9, 9, 9, 9, 9, 1]))
    found = peak_correlation(peaks, min_atoms=5)
    assert found[1, 2] == pytest.approx(np.corrcoef(lengths[:5], places[1, 2, :5])[0, 1])
    assert np.isnan(found[0, 0])
    np.testing.assert_allclose(peak_correlation(peaks, 5, decay_only=True)[0, 2], found[1, 2])
    with pytest.raises(ValueError, match="three pairs"):
        peak_correlation(peaks, min_atoms=10)
