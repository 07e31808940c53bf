"""Histograms, means and maps of species, against sums by hand."""

import numpy as np
import pytest

from torch_geometric_crystal.explain import (
    attention_maps,
    attention_shells,
    mean_distance,
    self_share,
    sigma_by_head,
    sigma_quantiles,
    weight_by_distance,
    weight_by_species,
    weight_moved_by_dot_products,
)


def test_weight_by_distance_is_the_mean_over_atoms(by_hand):
    profile = weight_by_distance([by_hand, by_hand], [0.0, 1.0, 3.0, 5.0])
    np.testing.assert_allclose(profile.share[0, 0], [0.0, 0.35, 0.15])
    np.testing.assert_allclose(profile.decay_share[0, 0], [0.0, 0.4, 0.4])
    np.testing.assert_allclose(profile.self_share, [[0.5]])
    np.testing.assert_allclose(profile.images, [0, 2, 2])
    np.testing.assert_allclose(profile.centers, [0.5, 2.0, 4.0])
    assert profile.num_atoms == 4
    with pytest.raises(ValueError, match="rising"):
        weight_by_distance([by_hand], [1.0, 0.0])


def test_bins_and_the_atom_itself_hold_the_whole_weight(make_model, rutile):
    maps = attention_maps(make_model(), [rutile])
    profile = weight_by_distance(maps, np.arange(0, 30, 0.1))
    np.testing.assert_allclose(profile.share.sum(-1) + profile.self_share, 1.0, atol=1e-12)


def test_mean_distance_leaves_out_the_atom_itself(by_hand):
    # (0.7 * 2 + 0.3 * 4) / (0.7 + 0.3) over both atoms
    np.testing.assert_allclose(mean_distance([by_hand]), [[2.6]])
    np.testing.assert_allclose(mean_distance([by_hand], decay_only=True), [[3.0]])
    np.testing.assert_allclose(self_share([by_hand]), [[0.5]])


def test_weight_moved_by_dot_products_is_half_of_what_changes(by_hand):
    # atom 0: +0.2 on itself, -0.1 on each image at 4 A; atom 1: +0.4 on itself
    np.testing.assert_allclose(weight_moved_by_dot_products([by_hand]), [[0.3]])


def test_heads_in_reciprocal_space_are_gaps_in_every_statistic(make_model, rutile):
    maps = attention_maps(make_model(domain="multihead"), [rutile])
    profile, pairs = weight_by_distance(maps), weight_by_species(maps)
    for values in (profile.share, profile.decay_share, pairs.share, mean_distance(maps), self_share(maps)):
        assert np.isnan(values[:, 2:]).all()
        assert np.isfinite(values[:, :2]).all()
    assert np.isfinite(sigma_by_head(maps)).all()


def test_weight_by_species_sums_to_what_is_not_on_the_atom_itself(by_hand):
    pairs = weight_by_species([by_hand])
    assert pairs.elements == ("Na", "Cl")
    np.testing.assert_allclose(pairs.share[0, 0], [[0.2, 0.4], [0.3, 0.1]])
    np.testing.assert_allclose(pairs.decay_share[0, 0], [[0.4, 0.4], [0.4, 0.4]])
    np.testing.assert_allclose(pairs.self_share[0, 0], [0.4, 0.6])
    assert pairs.num_atoms.tolist() == [1, 1]


def test_crystals_without_a_pair_do_not_count_for_it(make_model, rutile, rocksalt):
    model = make_model()
    first, second = attention_maps(model, [rutile, rocksalt])
    pairs = weight_by_species([first, second])
    assert pairs.elements == ("O", "Na", "Cl", "Ti")
    alone = weight_by_species([first])
    np.testing.assert_allclose(pairs.share[..., 0, 3], alone.share[..., 0, 1])
    assert np.isnan(pairs.share[..., 0, 1]).all()
    np.testing.assert_allclose(np.nansum(pairs.share, -1) + pairs.self_share, 1.0, atol=1e-12)


def test_quantiles_of_the_widths(by_hand):
    np.testing.assert_allclose(sigma_quantiles([by_hand], [0.0, 0.5, 1.0])[:, 0, 0], [1.0, 1.5, 2.0])
    assert sigma_by_head([by_hand, by_hand]).shape == (1, 1, 4)
    with pytest.raises(ValueError, match="at least one"):
        sigma_by_head([])


def test_shells_hold_the_whole_weight_nearest_first(make_model, rutile, by_hand):
    shells = attention_shells(by_hand, 0)
    assert [(s.element, s.dist, s.number, s.is_self) for s in shells] == [
        ("Na", 0.0, 1, True),
        ("Cl", 2.0, 2, False),
        ("Na", 4.0, 2, False),
    ]
    np.testing.assert_allclose([s.share[0, 0] for s in shells], [0.4, 0.4, 0.2])
    (found,) = attention_maps(make_model(), [rutile])
    shells = attention_shells(found, 5)
    assert [(s.element, s.number) for s in shells[:3]] == [("O", 1), ("Ti", 2), ("Ti", 1)]
    np.testing.assert_allclose(sum(s.share for s in shells), 1.0, atol=1e-12)
    with pytest.raises(ValueError, match="a number from 0 to 5"):
        attention_shells(found, 6)
